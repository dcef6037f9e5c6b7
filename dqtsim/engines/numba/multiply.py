"""Products of two codes (B10)."""

from ...graph.model import Array
from ...numbers import RoundingNumber
from .compile import kernel
from .requantize import shift_right


@kernel
def multiply(
    a: Array,
    b: Array,
    zeros: tuple[int, int, int],
    m: int,
    s: int,
    low: int,
    high: int,
    rounding: RoundingNumber,
    out: Array,
) -> None:
    """Write the codes of a * b into `out`, uint8 (C, pixels) as `a`; `b` uint8 (C, 1) or as `a`.

    `zeros` are the zero points of a, b and out.
    """
    z_a, z_b, z_y = zeros
    shared = b.shape[1] == 1
    for c in range(a.shape[0]):
        for i in range(a.shape[1]):
            factor = b[c, 0 if shared else i] - z_b
            code = z_y + shift_right((a[c, i] - z_a) * factor * m, s, rounding)
            out[c, i] = max(low, min(high, code))
