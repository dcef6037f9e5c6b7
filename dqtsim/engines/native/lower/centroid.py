"""Layers whose weights stand for the mean of their codes: half a master step of every product is taken off (B2')."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ....graph.model import Array
from ....graph.rows import rows_of
from ....planner import Step
from ..emit.centroid import HALVED, SUMMED
from ..emit.overflow import CODE_BYTES, LOGIT_BYTES
from ..memory import Address, Planes, Spot, Word
from ..proofs import tables
from ..proofs.variants import Halves, bias_register, halves_of, row_index
from .nest import choose
from .state import Lowering, spread
from .tiles import apart

# the least number of bytes in a chunk
CHUNK_BYTES = 1 << 16
MOST_CHUNKS = 16


@dataclass(frozen=True)
class Window:
    """The window of a layer over its input `place`; nested: the copy of the input at lower widths, laid out alike.

    offsets: (y, x) int64 of the first taps of the output pixels, in pixels from pixel (0, 0); those of the border are
    negative. taps: (y, x) int64 of the taps, from the first. group: of the channels.
    """

    place: Planes
    nested: Address | None
    offsets: tuple[Array, Array]
    taps: tuple[Array, Array]
    group: int


def centroid(
    state: Lowering, step: Step, window: Window, sums: Spot, stride: int, places: Array, words: Mapping[str, Word]
) -> None:
    """Append the operations "columns" and "centroid" of a layer whose P int32 are at `sums`, `stride` bytes a pixel.

    places: offsets int64 of the output pixels; words: of the convolution.
    """
    halves = halves_of(step, state.operands(step))
    assert halves
    lanes, place, outputs = state.isa.lanes, window.place, step.call.type.shape[1]
    # all channels of the output share one column, or have one each, in whole vectors
    each = window.group > 1
    columns = -(-outputs // lanes) * lanes if each else 1
    size = 4 * columns
    made = _columns(state, step, window, halves, columns)

    def column(y: Array, x: Array) -> Array:
        found: Array = (y * (place.row // place.step) + x) * size
        return found

    logits = step.node.operator == "NestedLogits"
    pixels, taps = len(places), len(window.taps[0])
    state.add(
        "centroid_logits" if logits else "centroid",
        spread(
            pixels * (taps * columns + outputs) * 4,
            at_most=min(MOST_CHUNKS, pixels) if logits or apart(places, lanes) else 1,
            least=CHUNK_BYTES,
        ),
        **choose(state, step, halves),
        variants=state.memory.table(HALVED, _records(state, step, halves)),
        columns=made + place.at(0, 0) // place.step * size,
        offsets=state.memory.add(column(*window.offsets)),
        taps=state.memory.add(column(*window.taps)),
        tap_count=taps,
        each=int(each),
        sums=sums,
        stride=stride,
        vectors=-(-outputs // lanes),
        target=words["target"],
        target_offsets=state.memory.add(places),
        pixels=pixels,
        zero=0 if logits else state.scalar(step, "y_zero_point"),
        low=words["low"],
        high=words["high"],
    )


def _columns(state: Lowering, step: Step, window: Window, halves: Halves, columns: int) -> Spot:
    """Append the operation "columns"; return the place of its sums."""
    place, group, outputs = window.place, window.group, step.call.type.shape[1]
    pixels = place.size // place.step
    target = state.room(4 * pixels * columns)
    n = step.call.machine.n
    state.add(
        "columns",
        spread(pixels * (place.channels + 4 * columns), at_most=min(MOST_CHUNKS, pixels), least=CHUNK_BYTES),
        **choose(state, step, halves),
        variants=state.memory.table(SUMMED, [int(b_a == n) for _, b_a in halves]),
        direct=place.start,
        nested=window.nested,
        pixels=pixels,
        step=place.step,
        groups=group,
        channels=place.channels // group,
        copies=outputs // group if group > 1 else 1,
        columns=columns,
        target=target,
    )
    return target


def _records(state: Lowering, step: Step, halves: Halves) -> list[Word]:
    """Return the fields of the HALVED records."""
    lanes, constants = state.isa.lanes, state.operands(step)
    records: list[Word] = []
    for pair, (taken, epilogue) in halves.items():
        if isinstance(epilogue, int):
            bias = bias_register(constants["bias"], step.call.machine.bias_width)
            line = bias[row_index(rows_of(step.node, constants), pair)].astype(np.int32)
            parts: tuple[Array, ...] = (np.zeros(len(line), np.int32), line)
        else:
            parts = (epilogue.multiplier, epilogue.addend, epilogue.shift)
        packed = tables.packed(parts, lanes)
        assert packed.shape[1] == (LOGIT_BYTES if isinstance(epilogue, int) else CODE_BYTES) * lanes
        records += [taken.exponent, taken.exponent_of_codes, taken.zeros, state.memory.add(packed)]
    return records
