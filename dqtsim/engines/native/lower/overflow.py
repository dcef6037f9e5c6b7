"""Layers whose sums fit 32 bits but, in some channels, not the register: the operation "narrow" (B1, C2, C3)."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from ....graph.model import Array, Widths
from ....graph.rows import rows_of
from ....planner import Step
from ....spec.rules import Overflow
from ..emit.overflow import CODE_BYTES, LOGIT_BYTES, NARROWED
from ..memory import Spot, Word
from ..proofs import tables
from ..proofs.variants import Variants, bias_register, row_index
from .nest import choose
from .state import Known, Lowering, spread
from .tiles import apart

# the least number of sums in a chunk
CHUNK_SUMS = 1 << 16
MOST_CHUNKS = 16


def narrow(
    state: Lowering,
    step: Step,
    variants: Variants,
    sums: Spot,
    stride: int,
    places: Array,
    words: Mapping[str, Word],
) -> None:
    """Append the operation "narrow" of a layer whose exact sums int32 are at `sums`, `stride` bytes a pixel.

    places: offsets int64 of the output pixels; words: of the convolution.
    """
    machine, node, lanes = step.call.machine, step.node, state.isa.lanes
    logits = node.operator == "NestedLogits"
    pixels = len(places)
    target_offsets = state.memory.add(places)
    records: list[Word] = []
    most = 0
    for pair, variant in variants.items():
        which, packed = finishing(state, step, pair, variant)
        records += [len(which), state.memory.add(which * lanes), state.memory.add(packed)]
        most = max(most, len(which))
    most_chunks = min(MOST_CHUNKS, pixels) if logits or apart(places, lanes) else 1
    state.add(
        "narrow_logits" if logits else "narrow",
        spread(pixels * most * lanes, at_most=most_chunks, least=CHUNK_SUMS),
        **choose(state, step, variants),
        variants=state.memory.table(NARROWED, records),
        sums=sums,
        stride=stride,
        target=words["target"],
        target_offsets=target_offsets,
        pixels=pixels,
        events=state.overflow_counts[node.name].start,
        wraps=int(_wraps(machine.overflow)),
        unused=32 - machine.accumulator_width,
        zero=0 if logits else state.scalar(step, "y_zero_point"),
        low=words["low"],
        high=words["high"],
    )


def _wraps(overflow: Overflow) -> bool:
    """Return whether sums that do not fit are wrapped, not clamped; after an ERROR they are discarded."""
    match overflow:
        case Overflow.WRAP:
            return True
        case Overflow.ERROR | Overflow.SATURATE:
            return False
        case Overflow.SATURATE_EACH:
            raise ValueError("SATURATE_EACH clamps product by product; see saturate_each.py")
        case _:
            assert_never(overflow)


def finishing(known: Known, step: Step, pair: Widths, variant: "tables.Scaling | int") -> tuple[Array, Array]:
    """Return the vectors with a channel that can leave its register at a pair of widths, and their constants, uint8."""
    machine, node, lanes = step.call.machine, step.node, known.isa.lanes
    which = np.unique(step.call.bounds[pair].unproven(machine.accumulator_width) // lanes)
    if isinstance(variant, int):
        bias = bias_register(known.operand(step, "bias"), machine.bias_width)
        line = bias[row_index(rows_of(node, known.operands(step)), pair)].astype(np.int32)
        parts: tuple[Array, ...] = (np.full(step.call.type.shape[1], variant, np.int32), line)
    else:
        parts = (variant.multiplier, variant.addend, variant.shift)
    packed = tables.packed(parts, lanes)[which]
    assert packed.shape[1] == (LOGIT_BYTES if isinstance(variant, int) else CODE_BYTES) * lanes
    return which, packed
