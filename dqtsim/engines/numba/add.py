"""Residual addition (B5)."""

from ...graph.model import Array
from ...numbers import RoundingNumber
from .compile import kernel
from .requantize import shift_right


@kernel
def add(
    a: Array,
    b: Array,
    zeros: tuple[int, int, int],
    multipliers: tuple[int, int],
    s: int,
    low: int,
    high: int,
    rounding: RoundingNumber,
    out: Array,
) -> None:
    """Write the codes of a + b into `out`, all flat uint8; `zeros` are the zero points of a, b and out."""
    z_a, z_b, z_y = zeros
    # the zero points of both inputs are one constant of the sum
    offset = -(z_a * multipliers[0] + z_b * multipliers[1])
    for i in range(a.size):
        total = a[i] * multipliers[0] + b[i] * multipliers[1] + offset
        out[i] = max(low, min(high, z_y + shift_right(total, s, rounding)))
