"""Max pool on codes: the largest of the taps inside the picture (B6)."""

from typing import Any

from ..ir import I8, Emitter, Record, constant, vector
from ..isa.base import Isa
from .rows import fields, pieces, rows_of
from .window import WINDOW, taps

MAX_POOL = Record(*WINDOW, "dilation_y", "dilation_x")


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "max_pool" of MAX_POOL records to `module`; return its name. Chunks split output rows."""
    e = Emitter(module, "max_pool")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, MAX_POOL, words)
    down, right = b.mul(r.dilation_y, r.source_row), b.mul(r.dilation_x, r.source_step)
    with rows_of(e, r.chunks, chunk, r.rows) as oy:
        y = b.sub(b.mul(oy, r.stride_y), r.top)
        first_y, last_y = taps(e, y, r.height, r.kernel_y, r.dilation_y)
        with e.loop(r.columns) as ox:
            x = b.sub(b.mul(ox, r.stride_x), r.left)
            first_x, last_x = taps(e, x, r.width, r.kernel_x, r.dilation_x)
            at = b.add(r.source, b.add(b.mul(y, r.source_row), b.mul(x, r.source_step)))
            to = b.add(r.target, b.add(b.mul(oy, r.target_row), b.mul(ox, r.target_step)))
            for c, size in pieces(e, r.channels, 4 * isa.lanes, 16, 4):
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
