"""Alignment, bias and requantization (B2-B4)."""

from typing import assert_never

import numpy as np

from ...graph.model import Array
from ...numbers import FLOOR, TIES_AWAY, TIES_EVEN, TIES_UP, RoundingNumber
from .compile import kernel


def select_row(b_w: int, b_a: int, row_widths: tuple[int, ...]) -> int:
    """Return the row of (B, M, S): how many row widths are below both widths, but never past the last (B3')."""
    return min(sum(width < b_w and width < b_a for width in row_widths), len(row_widths) - 1)


def select_pair_row(b_w: int, b_a: int, row_pairs: tuple[tuple[int, int], ...]) -> int:
    """Return the row of (B, M, S): the pair itself before wider ones before the last, each time the first (B3'')."""
    wide = (place for place, (row_w, row_a) in enumerate(row_pairs) if min(row_w - b_w, row_a - b_a) >= 0)
    return row_pairs.index((b_w, b_a)) if (b_w, b_a) in row_pairs else next(wide, len(row_pairs) - 1)


def less_half(p: Array, exponent: int, u: Array, e_a: int) -> Array:
    """Return A int64 (O, M) from P (O, M) and from U (groups, M): half of it, rounded up, is taken off (B2')."""
    half = -((-u << e_a) // 2)
    aligned: Array = (p.astype(np.int64) << exponent) - np.repeat(half, p.shape[0] // u.shape[0], axis=0)
    return aligned


@kernel
def shift_right(x: int, s: int, rounding: RoundingNumber) -> int:
    """Return x / 2^s, rounded."""
    if s == 0 or rounding == FLOOR:
        return x >> s
    half = 1 << (s - 1)
    if rounding == TIES_UP:
        return (x + half) >> s
    if rounding == TIES_AWAY:
        # ties go away from zero: round the magnitude and put the sign back
        return (x + half) >> s if x >= 0 else -((half - x) >> s)
    if rounding != TIES_EVEN:
        assert_never(rounding)
    # half - 1 moves a tie up only if the last kept bit is 1
    return (x + half - 1 + ((x >> s) & 1)) >> s


@kernel
def requantize(
    p: Array,
    exponent: int,
    bias: Array,
    multiplier: Array,
    shift: Array,
    z: int,
    low: int,
    high: int,
    rounding: RoundingNumber,
    out: Array,
) -> None:
    """Write the codes of `p` (O, M) into `out` uint8 (O, M); bias, multiplier, shift int64 (O) (B2-B4)."""
    for o in range(p.shape[0]):
        b, m, s = bias[o], multiplier[o], shift[o]
        for i in range(p.shape[1]):
            total = (p[o, i] << exponent) + b
            code = z + shift_right(total * m, s, rounding)
            out[o, i] = max(low, min(high, code))


@kernel
def add_bias(p: Array, exponent: int, bias: Array, out: Array) -> None:
    """Write A + B of `p` (O, M) into `out` int32 (O, M) (B2, B3, B7)."""
    for o in range(p.shape[0]):
        for i in range(p.shape[1]):
            out[o, i] = (p[o, i] << exponent) + bias[o]


@kernel
def requantize_codes(
    codes: Array, z_x: int, multiplier: int, s: int, z_y: int, low: int, high: int, rounding: RoundingNumber, out: Array
) -> None:
    """Write the codes of the flat uint8 `codes` on another grid into `out` (B4)."""
    for i in range(codes.size):
        code = z_y + shift_right((codes[i] - z_x) * multiplier, s, rounding)
        out[i] = max(low, min(high, code))
