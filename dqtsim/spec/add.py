"""Residual addition: equation B5 of spec/README.md."""

from .requantize import clip, shift_right
from .rules import Rounding


def add(
    q_a: int, z_a: int, m_a: int, q_b: int, z_b: int, m_b: int, s: int, z_y: int, lo: int, hi: int, rounding: Rounding
) -> int:
    """Return y = clip(z_y + ((q_a - z_a) * M_a + (q_b - z_b) * M_b) >> S, lo, hi) of two master codes (B5)."""
    total = (q_a - z_a) * m_a + (q_b - z_b) * m_b
    return clip(z_y + shift_right(total, s, rounding), lo, hi)
