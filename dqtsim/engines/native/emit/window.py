"""Windows over pixels: their fields, and the taps that lie inside the picture."""

from typing import Any

from ..ir import I64, Emitter, constant

# the fields of every operation that moves a window over pixels
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
    "channels",  # number of bytes of a pixel to compute, a multiple of 4
    "kernel_y",
    "kernel_x",
    "stride_y",
    "stride_x",
    "top",
    "left",
)


def taps(e: Emitter, start: Any, size: Any, kernel: Any, dilation: Any) -> tuple[Any, Any]:
    """Return the first tap k with start + k * dilation in 0 .. size - 1, and the first k after the last such tap.

    There is at least one: a window over padding alone is not a valid operation.
    """
    b = e.builder
    zero, round_up = constant(I64, 0), b.sub(dilation, constant(I64, 1))
    before = b.add(e.greatest(b.neg(start), zero), round_up)
    behind = b.add(b.sub(size, start), round_up)
    return b.sdiv(before, dilation), e.least(kernel, b.sdiv(behind, dilation))
