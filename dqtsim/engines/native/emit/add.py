"""NestedAdd: two master codes with a multiplier each and one shift (B5).

"add" has int64 lanes. "add.narrow" has int32 lanes; it needs a shift of at most 30, and the sum of both products and
half of 2^shift must fit 32 bits for all codes (single products may wrap). Lowering proves this. The target may be one
of the inputs.
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, Emitter, Record, vector
from ..isa.base import Isa
from .requantize import CodeEpilogue
from .rows import fields, pieces, rows_of

ADD = Record(
    "a",
    "a_row",  # bytes to the next row
    "b",
    "b_row",
    "target",
    "target_row",
    "rows",
    "row_bytes",  # number of bytes to compute
    "z_a",
    "z_b",
    "z_y",
    "m_a",
    "m_b",
    "shift",
    "low",
    "high",
)


def emit(module: Any, isa: Isa, rounding: Rounding, *, narrow: bool = False) -> str:
    """Add the operation "add" or "add.narrow" of ADD records to `module`; return its name. Chunks split rows."""
    name = "add.narrow" if narrow else "add"
    e = Emitter(module, name)
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, ADD, words)
    finish = CodeEpilogue(e, rounding, r.shift, r.z_y, r.low, r.high)
    # the zero points of both inputs are one constant of the sum
    offset = b.neg(b.add(b.mul(r.z_a, r.m_a), b.mul(r.z_b, r.m_b)))
    element = I32 if narrow else I64
    numbers = [b.trunc(x, I32) if narrow else x for x in (r.m_a, r.m_b, offset)]
    with rows_of(e, r.chunks, chunk, r.rows) as y:
        places = [b.add(at, b.mul(y, row)) for at, row in ((r.a, r.a_row), (r.b, r.b_row), (r.target, r.target_row))]
        for i, size in pieces(e, r.row_bytes, (2 if narrow else 1) * isa.lanes, 16, 1):
            codes, lanes = vector(I8, size), vector(element, size)
            by_a, by_b, total = (e.splat(number, size) for number in numbers)
            for place, by in zip(places, (by_a, by_b), strict=False):
                total = b.add(total, b.mul(b.zext(e.load(b.add(place, i), codes), lanes), by))
            e.store(finish.of(total, codes), b.add(places[2], i))
    e.done()
    return name
