"""Products of two codes: equation B10 of spec/README.md."""

from .requantize import requantize
from .rules import Rounding


def multiply(
    q_a: int, z_a: int, q_b: int, z_b: int, m: int, s: int, z_y: int, lo: int, hi: int, rounding: Rounding
) -> int:
    """Return y = clip(z_y + ((q_a - z_a) * (q_b - z_b) * M) >> S, lo, hi) of two master codes (B10)."""
    return requantize((q_a - z_a) * (q_b - z_b), m, s, z_y, lo, hi, rounding)
