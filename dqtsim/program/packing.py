"""Packed weights of a layer, and which kernel computes each of its blocks at a pair of widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..graph.model import Array
from ..kernels.vector.tile import CODES, DEPTH, LOGITS, PARAMETER_BYTES, QUADS, SMALL
from ..planner import Step
from . import tables
from .lower import Lowering
from .tiles import DEPTH_BYTES, by_matrices

if TYPE_CHECKING:
    from .layers import Shape


@dataclass(frozen=True)
class Packed:
    """The operands of one width.

    address: of all blocks' operands. totals: the sum of each channel's. sizes: bytes of each block's. pairs: of each
    block's, `tables.pair_sums`; empty where no kernel needs to know.
    """

    address: int
    totals: Array
    sizes: Sequence[int]
    pairs: Sequence[tuple[int, int]]


def pack_weights(
    state: Lowering, step: Step, shape: "Shape", blocks: Sequence[tables.Block], kind: str, pixels: int
) -> Mapping[int, Packed]:
    """Return the operands of each weight width."""
    codes = state.out.constants[step.node.inputs[1]]
    found = {}
    for width in {pair[0] for pair in step.call.bounds}:
        operands = tables.weight_operands(codes, width, step.call.machine)
        rows = operands.reshape(len(operands), -1)
        if kind == DEPTH:
            parts = tables.packed_depth(rows, blocks)
        elif kind == QUADS:
            parts = tables.packed_quads(rows, blocks)
        else:
            least = DEPTH_BYTES if by_matrices(state.isa, pixels, kind) else 4
            parts = tables.packed_weights(shape.dense.spread(operands), shape.runs, blocks, least)
        address = state.out.memory.add(np.concatenate([part.reshape(-1) for part in parts]))
        wanted = kind in (CODES, LOGITS) and state.isa.narrow_dot is not None
        pairs = [tables.pair_sums(part) for part in parts] if wanted else []
        found[width] = Packed(address, rows.sum(1, dtype=np.int64), [part.size for part in parts], pairs)
    return found


def block_table(state: Lowering, blocks: Sequence[tables.Block], packed: Packed, code: int, *, depthwise: bool) -> int:
    """Return the address of the BLOCK records of a pair of widths at which bytes of the input are 0 to `code`.

    A block takes the kernel of the narrow dot product where its own operands prove that it is exact.
    """
    table: list[int] = []
    at = 0
    for number, (block, size) in enumerate(zip(blocks, packed.sizes, strict=True)):
        small = bool(packed.pairs) and tables.fits_pairs(packed.pairs[number], code)
        function = state.function(SMALL + block.kernel if small else block.kernel)
        table += [function, at, block.first * PARAMETER_BYTES, block.first if depthwise else 0, block.first]
        at += size
    return state.table(table)
