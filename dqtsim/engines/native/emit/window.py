"""Windows over pixels: their words, and the taps that lie inside the picture."""

from typing import Any

from ..ir import I64, Emitter, constant

# the words of every operation that moves a window over pixels
WINDOW = (
    "source",  # pixel (0, 0)
    "source_row",
    "source_step",
    "height",
    "width",
    "target",
    "target_row",
    "target_step",
    "rows",  # of the output
    "columns",
    "channels",  # bytes of a pixel that are computed, a multiple of 4
    "kernel_y",
    "kernel_x",
    "stride_y",
    "stride_x",
    "top",
    "left",
)


def taps(e: Emitter, start: Any, size: Any, kernel: Any, dilation: Any) -> tuple[Any, Any]:
    """Return the first tap k with start + k * dilation in 0 .. size - 1, and the first behind them.

    There is one at least: a window that sees nothing but padding is no valid operation.
    """
    b = e.builder
    zero, round_up = constant(I64, 0), b.sub(dilation, constant(I64, 1))
    before = b.add(e.greatest(b.neg(start), zero), round_up)
    behind = b.add(b.sub(size, start), round_up)
    return b.sdiv(before, dilation), e.least(kernel, b.sdiv(behind, dilation))
