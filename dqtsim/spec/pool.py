"""Pools: equations B6 and B6' of spec/README.md."""

from collections.abc import Iterable

from .requantize import requantize
from .rules import Rounding


def average_pool(
    window: Iterable[int], z_x: int, m: int, s: int, z_y: int, lo: int, hi: int, rounding: Rounding
) -> int:
    """Return the code of one output: the sum of q - z over the window, through B4 with M carrying 1/area (B6, B6').

    `window` holds the codes inside the picture; padded taps hold z and add 0, so they may be left out.
    """
    return requantize(sum(q - z_x for q in window), m, s, z_y, lo, hi, rounding)


def max_pool(window: Iterable[int]) -> int:
    """Return the largest code of the window (B6); nesting is monotone, so nesting and max pool commute."""
    return max(window)
