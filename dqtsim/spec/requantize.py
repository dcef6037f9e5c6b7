"""Rows per width and requantization: equations B3', B3'' and B4 of spec/README.md."""

from collections.abc import Sequence
from typing import assert_never

from .rules import Rounding


def select_row(b_w: int, b_a: int, row_widths: Sequence[int]) -> int:
    """Return the index of the row of (B, M, S) for widths (b_w, b_a) (B3').

    The first row whose width is at least min(b_w, b_a), else the last. `row_widths` ascends.
    """
    narrower = min(b_w, b_a)
    for index, width in enumerate(row_widths):
        if width >= narrower:
            return index
    return len(row_widths) - 1


def select_pair_row(b_w: int, b_a: int, row_pairs: Sequence[tuple[int, int]]) -> int:
    """Return the index of the row of (B, M, S) for widths (b_w, b_a) where rows belong to pairs of widths (B3'').

    The row of the pair itself; else the first row with both widths at least as wide; else the last. The pairs are
    distinct, in any order.
    """
    for index, pair in enumerate(row_pairs):
        if pair == (b_w, b_a):
            return index
    for index, (row_w, row_a) in enumerate(row_pairs):
        if row_w >= b_w and row_a >= b_a:
            return index
    return len(row_pairs) - 1


def shift_right(x: int, s: int, rounding: Rounding) -> int:
    """Return x / 2^s as an integer; `rounding` says what happens to the dropped bits. s = 0 drops none."""
    if s == 0:
        return x
    floor = x >> s
    dropped = x - (floor << s)
    half = 1 << (s - 1)
    nearer = floor + (dropped > half)
    tie = dropped == half
    match rounding:
        case Rounding.FLOOR:
            return floor
        case Rounding.TIES_UP:
            return floor + 1 if tie else nearer
        case Rounding.TIES_AWAY:
            return floor + 1 if tie and x >= 0 else nearer
        case Rounding.TIES_EVEN:
            return floor + (floor & 1) if tie else nearer
        case _:
            assert_never(rounding)


def clip(x: int, lo: int, hi: int) -> int:
    """Return `x` limited to lo..hi."""
    return min(max(x, lo), hi)


def requantize(total: int, m: int, s: int, z: int, lo: int, hi: int, rounding: Rounding) -> int:
    """Return the master code y = clip(z + (total * M) >> S, lo, hi) (B4)."""
    return clip(z + shift_right(total * m, s, rounding), lo, hi)
