"""NestedAveragePool: the sum of q - z over the taps inside the picture, requantized (B6).

The sum of the codes has int32 lanes, which are enough for 2^24 taps; the zero point times the number of taps is
subtracted once. The product has int64 lanes. A multiplier for all positions has the distances 0 (B6); with others every
output has a multiplier of its own (B6').
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, Emitter, Record, constant, vector
from ..isa.base import Isa
from .requantize import CodeEpilogue
from .rows import fields, pieces, rows_of
from .window import WINDOW, taps

AVERAGE_POOL = Record(*WINDOW, "multipliers", "multiplier_row", "multiplier_step", "z_x", "shift", "z_y", "low", "high")


def emit(module: Any, isa: Isa, rounding: Rounding) -> str:
    """Add the operation "average_pool" of AVERAGE_POOL records to `module`; return its name.

    Chunks split output rows.
    """
    e = Emitter(module, "average_pool")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, AVERAGE_POOL, words)
    finish = CodeEpilogue(e, rounding, r.shift, r.z_y, r.low, r.high)
    one = constant(I64, 1)
    with rows_of(e, r.chunks, chunk, r.rows) as oy:
        y = b.sub(b.mul(oy, r.stride_y), r.top)
        first_y, last_y = taps(e, y, r.height, r.kernel_y, one)
        with e.loop(r.columns) as ox:
            x = b.sub(b.mul(ox, r.stride_x), r.left)
            first_x, last_x = taps(e, x, r.width, r.kernel_x, one)
            count = b.mul(b.sub(last_y, first_y), b.sub(last_x, first_x))
            zeros = b.mul(count, r.z_x)
            at = b.add(r.source, b.add(b.mul(y, r.source_row), b.mul(x, r.source_step)))
            place = b.add(b.mul(oy, r.multiplier_row), b.mul(ox, r.multiplier_step))
            # LLVM then knows that 32 by 32 bits are multiplied
            multiplier = b.sext(b.trunc(e.load(b.add(r.multipliers, place), I64), I32), I64)
            to = b.add(r.target, b.add(b.mul(oy, r.target_row), b.mul(ox, r.target_step)))
            for c, size in pieces(e, r.channels, 2 * isa.lanes, 16, 4):
                codes, lanes, wide = vector(I8, size), vector(I32, size), vector(I64, size)
                total = e.slot(lanes, constant(lanes, 0))
                with e.loop(last_y, first_y) as ky:
                    line = b.add(b.add(at, c), b.mul(ky, r.source_row))
                    with e.loop(last_x, first_x) as kx:
                        code = b.zext(e.load(b.add(line, b.mul(kx, r.source_step)), codes), lanes)
                        b.store(b.add(b.load(total), code), total)
                sums = b.sub(b.zext(b.load(total), wide), e.splat(zeros, size))
                e.store(finish.of(b.mul(sums, e.splat(multiplier, size)), codes), b.add(to, c))
    e.done()
    return "average_pool"
