"""Convolutions of one bit by one bit: which of them count bits instead of multiplying, and their inputs (A5, B1)."""

import math
from collections.abc import Sequence
from typing import assert_never

import numpy as np

from ....graph.model import Array
from ....planner import Step
from ....spec.rules import Nesting
from ..compile.functions import can_count
from ..emit.one_bit import CHANNELS
from ..isa.base import AND, XOR
from ..memory import Address, Planes
from ..proofs import tables
from ..proofs.activations import Activations, activations_of
from ..proofs.variants import Variants, clamps_products, has_halves
from .nest import choose
from .state import Known, Lowering, spread

ONE = (1, 1)
WORD_BYTES = 4
# with fewer channels, words are too empty to gain; with fewer taps, making the bits takes longer than they save
LEAST_CHANNELS = 16
LEAST_TAPS = 32


def counts_bits(known: Known, step: Step, place: Planes) -> bool:
    """Return whether a convolution over all channels counts bits where both its widths are 1.

    Registers that clamp after each product need codes as bytes, and so do halves that are taken off sums; the border
    has one bit for all channels. MIDPOINT has no operand 0 for lanes whose channels do not exist, and the sums of these
    lanes must not be among the extremes.
    """
    machine, outputs = step.call.machine, step.call.type.shape[1]
    if not can_count(known.isa) or ONE not in step.call.bounds or step.node.integer("group") != 1:
        return False
    if "padding" in step.node.form or has_halves(step):
        return False
    if _is_odd(machine.weight_rule) and outputs % known.isa.lanes:
        return False
    taps = math.prod(known.operand(step, "w").shape[1:])
    return not clamps_products(step) and place.channels >= LEAST_CHANNELS and taps >= LEAST_TAPS


def _is_odd(rule: Nesting) -> bool:
    """Return whether operands of width 1 are -1 and 1, not -1 and 0 (A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return False
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return True
        case _:
            assert_never(rule)


def pixel_bytes(channels: int) -> int:
    """Return the bytes of a pixel's words."""
    return -(-channels // CHANNELS) * WORD_BYTES


def bits_row(place: Planes, pads: Sequence[int]) -> int:
    """Return the bytes of a row of words, border included."""
    return (pads[1] + place.width + pads[3]) * pixel_bytes(place.channels)


def threshold(activations: Activations) -> int:
    """Return the least master code whose nested code of width 1 is 1; nesting is monotone."""
    codes = activations.codes(1)
    # the zero point keeps its place in a window, and there are codes above it, or it is 1 itself
    assert codes.max() == 1
    return int(np.argmax(codes))


def bits(state: Lowering, step: Step, place: Planes, variants: Variants) -> Address:
    """Append the operation "bits" of a convolution's input, at the widths in `variants`; return the place of its words.

    The first word belongs to the border.
    """
    activations, node = activations_of(step, state.operands(step)), step.node
    top, left, bottom, right = pads = node.integers("pads")
    target = state.room((top + place.height + bottom) * bits_row(place, pads))
    state.add(
        "bits",
        spread(place.height * place.width * place.channels, at_most=8, least=1 << 16),
        **choose(state, step, variants),
        threshold=threshold(activations),
        zero=activations.zeta(1),
        **place.words(),
        target=target,
        words=pixel_bytes(place.channels) // WORD_BYTES,
        # bits of channels that exist; the last word is full if the channels are a multiple of its bits
        last=(1 << (place.channels - 1) % CHANNELS + 1) - 1,
        top=top,
        left=left,
        bottom=bottom,
        right=right,
    )
    return target


def taps_of_bits(place: Planes, row: int, kernel: Sequence[int], dilation: tuple[int, int]) -> tuple[Array, Array]:
    """Return (segments, runs) over a buffer of bits whose rows have `row` bytes: the tap of each bit of a run.

    A whole row of taps is one run if pixels lie side by side.
    """
    rows, columns = kernel
    channels, step = place.channels, pixel_bytes(place.channels)
    taps = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    together = columns if dilation[1] == 1 else 1
    segments, runs = [], []
    for ky in range(rows):
        for kx in range(0, columns, together):
            segments.append(ky * dilation[0] * row + kx * dilation[1] * step)
            line = np.full((together, 8 * step), -1, np.int64)
            line[:, :channels] = taps[:, ky, kx : kx + together].T
            runs.append(line.reshape(-1))
    return np.array(segments, np.int64), np.array(runs, np.int64)


def packed_bits(
    operands: Array, runs: Array, blocks: Sequence[tables.Block], rule: Nesting
) -> tuple[str, list[Array], Array]:
    """Return the kernels' dot product, uint8 [words][channels][4] of every block, and the initial values of the sums.

    operands: (O, taps), of width 1: -1 or 0, for MIDPOINT -1 or 1. A bit is 1 for -1, for MIDPOINT it is 1 for 1.
    """
    middle = _is_odd(rule)
    marks = operands == (1 if middle else -1)
    parts = []
    for part in tables.packed_weights(marks.astype(np.int8), runs, blocks):
        # of every channel's bytes, eight groups of four that follow each other become a word
        whole = part.reshape(-1, 8, part.shape[1], 4).swapaxes(1, 2).reshape(-1, part.shape[1], 32)
        parts.append(np.packbits(whole, axis=2, bitorder="little"))
    begin = marks.sum(1, dtype=np.int64) if middle else np.zeros(len(operands), np.int64)
    return (XOR if middle else AND), parts, begin
