"""Max pool on codes: the largest of the taps inside the picture (B6)."""

from typing import Any

from .emit import I8, Emitter, Record, constant, vector
from .isa import Isa
from .rows import pieces, share
from .window import taps

MAX_POOL = Record(
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
    "dilation_y",
    "dilation_x",
    "top",
    "left",
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "max_pool" of MAX_POOL records to `module`; return its name. Chunks split output rows."""
    e = Emitter(module, "max_pool")
    b = e.builder
    words, chunk = e.arguments
    (
        *(source, source_row, source_step, height, width, target, target_row, target_step, rows, columns, channels),
        *(kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x, top, left),
    ) = e.unpack(MAX_POOL, words, *MAX_POOL.names[2:])
    down, right = b.mul(dilation_y, source_row), b.mul(dilation_x, source_step)
    with e.loop(*reversed(share(e, MAX_POOL, words, chunk, rows))) as oy:
        y = b.sub(b.mul(oy, stride_y), top)
        first_y, last_y = taps(e, y, height, kernel_y, dilation_y)
        with e.loop(columns) as ox:
            x = b.sub(b.mul(ox, stride_x), left)
            first_x, last_x = taps(e, x, width, kernel_x, dilation_x)
            at = b.add(source, b.add(b.mul(y, source_row), b.mul(x, source_step)))
            to = b.add(target, b.add(b.mul(oy, target_row), b.mul(ox, target_step)))
            for c, size in pieces(e, channels, 4 * isa.lanes, 16, 4):
                codes = vector(I8, size)
                largest = e.slot(codes, constant(codes, 0))
                with e.loop(last_y, first_y) as ky:
                    line = b.add(b.add(at, c), b.mul(ky, down))
                    with e.loop(last_x, first_x) as kx:
                        code = e.load(b.add(line, b.mul(kx, right)), codes)
                        b.store(e.greatest(b.load(largest), code, signed=False), largest)
                e.store(b.load(largest), b.add(to, c))
    e.done()
    return "max_pool"
