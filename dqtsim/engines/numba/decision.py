"""Decisions (B7, B8)."""

from ...graph.model import Array
from .compile import kernel


@kernel
def argmax(rows: Array, out: Array) -> None:
    """Write the index of the largest entry of each row of `rows` (R, K) into `out` int64 (R), the lowest on a tie."""
    for r in range(rows.shape[0]):
        best = 0
        for k in range(1, rows.shape[1]):
            if rows[r, k] > rows[r, best]:
                best = k
        out[r] = best
