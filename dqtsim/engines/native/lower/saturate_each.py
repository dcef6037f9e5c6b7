"""Layers whose register clamps after every product and can overflow in some channels: the operation "each" (B1)."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from ....graph.model import Array
from ....planner import Step
from ....spec.rules import TapOrder
from ..emit.saturate_each import DEPTH, EACHED, LOGITS, PLAIN
from ..emit.tile import DEPTH as DEPTH_KIND
from ..emit.tile import QUADS
from ..memory import Spot, Word
from ..proofs import tables
from ..proofs.activations import activations_of
from ..proofs.variants import Variants
from .geometry import Shape, Source
from .nest import choose
from .overflow import finishing
from .state import Lowering, spread
from .tiles import apart

# the least number of products in a chunk
CHUNK_PRODUCTS = 1 << 18
MOST_CHUNKS = 16


def each(
    state: Lowering,
    step: Step,
    shape: Shape,
    source: Source,
    variants: Variants,
    sums: Spot,
    stride: int,
    places: Array,
    words: Mapping[str, Word],
    kind: str,
) -> None:
    """Append the operation "each" of a layer whose exact sums int32 are at `sums`, `stride` bytes a pixel.

    shape, source, kind: of the convolution. places: offsets int64 of the output pixels; words: of the convolution.
    """
    machine, node, lanes, memory = step.call.machine, step.node, state.isa.lanes, state.memory
    logits, depthwise = node.operator == "NestedLogits", kind in (DEPTH_KIND, QUADS)
    codes = state.operand(step, "w")
    taps, order = _taps(shape, codes, machine.tap_order, depthwise=depthwise)
    activations = activations_of(step, state.operands(step))
    pixels = len(places)
    records: list[Word] = []
    most = 0
    for pair, variant in variants.items():
        which, parameters = finishing(state, step, pair, variant)
        operands = tables.weight_operands(codes, pair[0], machine)
        rows = operands.reshape(len(operands), -1) if depthwise else shape.dense.spread(operands)
        packed = tables.packed_taps(rows[:, order], which, lanes)
        records += [int(pair[1] == machine.n), activations.zeta(pair[1]), memory.add(packed)]
        records += [len(which), memory.add(which * lanes), memory.add(parameters)]
        most = max(most, len(which))
    state.add(
        LOGITS if logits else DEPTH if depthwise else PLAIN,
        spread(
            pixels * most * lanes * len(taps),
            at_most=min(MOST_CHUNKS, pixels) if logits or apart(places, lanes) else 1,
            least=CHUNK_PRODUCTS,
        ),
        **choose(state, step, variants),
        variants=memory.table(EACHED, records),
        direct=source.direct,
        nested=source.nested,
        offsets=memory.add(shape.offsets),
        taps=memory.add(taps),
        tap_count=len(taps),
        sums=sums,
        stride=stride,
        vectors=stride // (4 * lanes),
        target=words["target"],
        target_offsets=memory.add(places),
        pixels=pixels,
        events=state.overflow_counts[node.name].start,
        flags=state.flags[node.name].start,
        unused=32 - machine.accumulator_width,
        zero=0 if logits else state.scalar(step, "y_zero_point"),
        low=words["low"],
        high=words["high"],
    )


def _taps(shape: Shape, codes: Array, tap_order: TapOrder, *, depthwise: bool) -> tuple[Array, Array]:
    """Return the int64 offsets of the taps from the first, and their numbers, in the order of the target.

    codes: the weights. Numbers count channels, rows and columns of the kernel, the last of these fastest.
    """
    if depthwise:
        count = int(np.prod(codes.shape[2:]))
        return shape.segments[:count], np.arange(count)
    there = shape.runs >= 0
    starts = shape.segments[:, None] + np.arange(shape.runs.shape[1], dtype=np.int64)
    offsets = np.zeros(int(there.sum()), np.int64)
    offsets[shape.runs[there]] = starts[there]
    numbers = np.arange(len(offsets))
    match tap_order:
        case TapOrder.CHANNEL_ROW_COLUMN:
            pass
        case TapOrder.ROW_COLUMN_CHANNEL:
            if codes.ndim == 4:
                numbers = numbers.reshape(shape.dense.channels, -1).T.reshape(-1)
        case _:
            assert_never(tap_order)
    return offsets[numbers], numbers
