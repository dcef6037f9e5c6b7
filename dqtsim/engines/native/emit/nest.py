"""Nesting: the activations of one convolution, copied into a padded buffer at the width in use (A1-A5).

A byte u is written for every code q. Its consumer subtracts zeta from it: u - zeta is the operand.

    u    = (min((q + add) >> k, cap) << t) | t
    zeta = min((z + add) >> k, cap) << t

k is the number of dropped bits. For TIES_UP, add is half of 2^k and cap is the greatest code; otherwise add is 0 and
there is no cap. t is 1 for MIDPOINT with k > 0, whose operands are odd. The border of the buffer is zeta, which stands
for the operand 0; for t = 1 no code gives this byte.
"""

from collections.abc import Callable
from typing import Any, assert_never

from ....numbers import of_nesting
from ....spec.rules import Nesting
from ..ir import I8, I64, Emitter, Record, constant, vector
from ..isa.base import Isa
from .choice import CHOICE, number_of
from .rows import fields, fill, pieces, share

NEST = Record(
    *CHOICE,
    "n",  # master width
    "rule",  # its number
    "zero",  # master zero point
    "source",  # pixel (0, 0)
    "source_row",  # bytes to the next row
    "source_step",  # bytes to the next pixel
    "target",  # first byte of the buffer, border included; its rows follow each other without gaps
    "height",
    "width",
    "step",
    "top",
    "left",
    "bottom",
    "right",
    "direct",  # 1: at full width the consumer reads the source itself, and only the border around it is written
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "nest" of NEST records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "nest")
    b = e.builder
    words, chunk = e.arguments
    _, width = number_of(e, NEST, words)
    r = fields(e, NEST, words)
    nesting = Nester(e, width, r.n, r.rule)
    zeta = b.trunc(nesting.zeta(r.zero), I8)
    in_place = b.and_(b.icmp_signed("!=", r.direct, constant(I64, 0)), nesting.exact)

    def border(start: Any, size: Any) -> None:
        fill(e, start, zeta, size)

    nest_rows(e, isa, r, chunk, nesting, in_place, border)
    e.done()
    return "nest"


def nest_rows(
    e: Emitter, isa: Isa, r: Any, chunk: Any, nesting: "Nester", in_place: Any, border: Callable[[Any, Any], None]
) -> None:
    """Nest the rows of a chunk, unless the source serves `in_place`, and write the border around them.

    `border` writes a number of bytes of border at an address.
    """
    b = e.builder
    first, last = share(e, r.chunks, chunk, r.height)
    first = b.select(b.icmp_signed("==", chunk, constant(I64, 0)), b.neg(r.top), first)
    is_last = b.icmp_signed("==", chunk, b.sub(r.chunks, constant(I64, 1)))
    last = b.select(is_last, b.add(r.height, r.bottom), last)

    before, inner, after = (b.mul(count, r.step) for count in (r.left, r.width, r.right))
    full = b.add(before, b.add(inner, after))
    row = b.select(in_place, r.source_row, full)
    # the address of the target's pixel (0, 0)
    origin = b.select(in_place, r.source, b.add(r.target, b.add(b.mul(r.top, row), before)))
    with e.loop(last, first) as y:
        to = b.add(origin, b.mul(y, row))
        with b.if_else(b.icmp_unsigned("<", y, r.height)) as (inside, outside):
            with inside:
                border(b.sub(to, before), before)
                border(b.add(to, inner), after)
                with b.if_then(b.not_(in_place)):
                    _nest_row(e, isa, nesting, r, b.add(r.source, b.mul(y, r.source_row)), to)
            with outside:
                border(b.sub(to, before), full)


def _nest_row(e: Emitter, isa: Isa, nesting: "Nester", r: Any, source: Any, target: Any) -> None:
    """Nest the pixels of one row."""
    b = e.builder
    with b.if_else(b.icmp_signed("==", r.source_step, r.step)) as (equal, unequal):
        with equal:
            for i, size in pieces(e, b.mul(r.width, r.step), 4 * isa.lanes, 16, 1):
                nesting.move(b.add(source, i), b.add(target, i), size)
        # only inputs of at most four channels have pixels of different sizes
        with unequal, e.loop(r.width) as x:
            nesting.move(b.add(source, b.mul(x, r.source_step)), b.add(target, b.mul(x, r.step)), 4)


class Nester:
    """The four numbers of a width and a rule, and their application to codes."""

    def __init__(self, e: Emitter, width: Any, n: Any, rule: Any) -> None:
        b = e.builder
        none, one = constant(I64, 0), constant(I64, 1)
        self.e, self.k = e, b.sub(n, width)
        self.exact = b.icmp_signed("==", self.k, none)
        for each in Nesting:
            match each:
                case Nesting.TIES_UP:
                    ties = b.and_(b.not_(self.exact), b.icmp_signed("==", rule, constant(I64, of_nesting(each))))
                case Nesting.FLOOR:
                    pass  # neither add nor t
                case Nesting.CENTROID:
                    pass  # no activation has it
                case Nesting.MIDPOINT:
                    middle = b.and_(b.not_(self.exact), b.icmp_signed("==", rule, constant(I64, of_nesting(each))))
                case _:
                    assert_never(each)
        self.add = b.select(ties, b.lshr(b.shl(one, self.k), one), none)
        self.cap = b.select(ties, b.sub(b.shl(one, width), one), constant(I64, 255))
        self.t = b.zext(middle, I64)

    def zeta(self, z: Any) -> Any:
        """Return the byte that stands for the operand 0, as i64."""
        b = self.e.builder
        return b.shl(self.e.least(b.ashr(b.add(z, self.add), self.k), self.cap), self.t)

    def move(self, source: Any, target: Any, size: int) -> None:
        """Nest `size` bytes."""
        self.e.store(self.of(source, size), target)

    def of(self, source: Any, size: int) -> Any:
        """Return `size` bytes at an address, nested.

        Bytes are enough: if a sum of TIES_UP overflows a byte, it saturates, and 255 >> k is at least the cap.
        """
        e, b = self.e, self.e.builder
        kind = vector(I8, size)
        add, k, cap, t = (e.splat(b.trunc(x, I8), size) for x in (self.add, self.k, self.cap, self.t))
        raised = e.call(f"llvm.uadd.sat.v{size}i8", kind, e.load(source, kind), add)
        code = e.least(b.lshr(raised, k), cap, signed=False)
        return b.or_(b.shl(code, t), t)
