"""Packed weights of a layer, and the kernel of each of its blocks at a pair of widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....graph.model import Array
from ....planner import Step
from ..emit.tile import BLOCK, CODES, DEPTH, LOGITS, PARAMETER_BYTES, QUADS
from ..isa.base import SMALL, Matrices
from ..memory import Constant, Function, Word
from ..proofs import tables
from .geometry import Part
from .one_bit import packed_bits
from .state import Lowering


@dataclass(frozen=True)
class Packed:
    """The operands of one width.

    address: of the operands of all blocks. totals: the sum of each channel's operands. sizes: bytes of each block's
    operands. run: bytes of the input's runs. pairs: `tables.pair_sums` of each block; empty if no kernel needs it.
    product, begin: for counted bits, the dot product, and the initial values of the sums.
    """

    address: Constant
    totals: Array
    sizes: Sequence[int]
    run: int
    pairs: Sequence[tuple[int, int]] = ()
    product: str = ""
    begin: Array | int = 0


def pack_weights(
    state: Lowering, step: Step, part: Part, blocks: Sequence[tables.Block], kind: str, matrices: Matrices | None
) -> Mapping[int, Packed]:
    """Return the operands of each weight width. matrices: the matrix instructions, None for vectors."""
    codes, machine, shape = state.operand(step, "w"), step.call.machine, part.shape
    found = {}
    for width in {pair[0] for pair in part.variants}:
        operands = tables.weight_operands(codes, width, machine)
        rows = operands.reshape(len(operands), -1)
        run, product, begin = shape.runs.shape[1], "", None
        if part.counted:
            product, parts, begin = packed_bits(rows, shape.runs, blocks, machine.weight_rule)
            run //= 8
        elif kind == DEPTH:
            parts = tables.packed_depth(rows, blocks)
        elif kind == QUADS:
            parts = tables.packed_quads(rows, blocks)
        else:
            least = 4 if matrices is None else matrices.depth
            parts = tables.packed_weights(shape.dense.spread(operands), shape.runs, blocks, least)
        address = state.memory.add(np.concatenate([packed.reshape(-1) for packed in parts]))
        wanted = kind in (CODES, LOGITS) and SMALL in state.isa.dots
        pairs = [tables.pair_sums(packed) for packed in parts] if wanted else []
        sizes, totals = [packed.size for packed in parts], rows.sum(1, dtype=np.int64)
        found[width] = Packed(address, totals, sizes, run, pairs, product, 0 if begin is None else begin)
    return found


def block_table(
    state: Lowering, blocks: Sequence[tables.Block], packed: Packed, code: int, *, depthwise: bool
) -> Constant:
    """Return the place of the BLOCK records for a pair of widths at which bytes of the input are 0 to `code`.

    A block uses the kernel of the narrow dot product if its operands prove that it is exact.
    """
    table: list[Word] = []
    at = 0
    for number, (block, size) in enumerate(zip(blocks, packed.sizes, strict=True)):
        small = bool(packed.pairs) and tables.fits_pairs(packed.pairs[number], code)
        function = Function((SMALL if small else packed.product) + block.kernel)
        table += [function, at, block.first * PARAMETER_BYTES, block.first if depthwise else 0, block.first]
        at += size
    return state.memory.table(BLOCK, table)
