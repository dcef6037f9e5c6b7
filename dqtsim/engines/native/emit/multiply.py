"""NestedMultiply: the product of two master codes, with a multiplier and a shift (B10).

The product of two codes has int32 lanes, the rest int64 lanes. A distance of 0 between pieces of `b` multiplies every
piece of `a` by the same codes: one code per channel for all pixels.
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, Emitter, Record, vector
from ..isa.base import Isa
from .requantize import CodeEpilogue
from .rows import fields, pieces, rows_of

MULTIPLY = Record(
    "a",
    "a_row",  # bytes to the next row
    "a_step",  # bytes to the next piece of a row
    "b",
    "b_row",
    "b_step",
    "target",
    "target_row",
    "target_step",
    "rows",
    "columns",  # pieces of a row
    "bytes",  # number of bytes of a piece
    "z_a",
    "z_b",
    "z_y",
    "multiplier",
    "shift",
    "low",
    "high",
)


def emit(module: Any, isa: Isa, rounding: Rounding) -> str:
    """Add the operation "multiply" of MULTIPLY records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "multiply")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, MULTIPLY, words)
    finish = CodeEpilogue(e, rounding, r.shift, r.z_y, r.low, r.high)
    z_a, z_b = (b.trunc(zero, I32) for zero in (r.z_a, r.z_b))
    # LLVM then knows that 32 by 32 bits are multiplied
    multiplier = b.sext(b.trunc(r.multiplier, I32), I64)
    steps = (r.a_step, r.b_step, r.target_step)
    with rows_of(e, r.chunks, chunk, r.rows) as y:
        row = [b.add(at, b.mul(y, far)) for at, far in ((r.a, r.a_row), (r.b, r.b_row), (r.target, r.target_row))]
        with e.loop(r.columns) as x:
            places = [b.add(at, b.mul(x, step)) for at, step in zip(row, steps, strict=True)]
            for i, size in pieces(e, r.bytes, 2 * isa.lanes, 16, 1):
                codes, lanes, wide = vector(I8, size), vector(I32, size), vector(I64, size)
                s_a, s_b = (
                    b.sub(b.zext(e.load(b.add(place, i), codes), lanes), e.splat(zero, size))
                    for place, zero in ((places[0], z_a), (places[1], z_b))
                )
                product = b.mul(b.sext(b.mul(s_a, s_b), wide), e.splat(multiplier, size))
                e.store(finish.of(product, codes), b.add(places[2], i))
    e.done()
    return "multiply"
