"""Nesting through a window, and borders of any codes (A6, B1').

A window takes the code j bits lower and saturates: u = clip(nest(q, b + j) - d, 0, 2^b - 1) with
d = nest(z, b + j) - nest(z, b). Both are at least 0, so bytes are enough: the subtraction saturates at 0. The consumer
subtracts nest(z, b), whatever j is. Full width has no window; its consumer may read the source itself.

Pixels of the border are copies of one pixel for each width, which lowering has nested already: the zero point, or the
padding codes of the channels.
"""

from typing import Any

from ..ir import I8, I64, WORD, Emitter, Record, constant, vector
from ..isa.base import Isa
from .choice import number_of
from .copy import copy
from .nest import NEST, Nester, nest_row
from .rows import fields, share

WINDOW_NEST = Record(
    *NEST.names[2:],
    "windows",  # address of int64 [9]: j of each width of activations
    "border",  # address of uint8 [9][step]: a pixel of the border at each width; 0 if there is no border
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "window_nest" of WINDOW_NEST records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "window_nest")
    b = e.builder
    words, chunk = e.arguments
    _, width = number_of(e, WINDOW_NEST, words)
    r = fields(e, WINDOW_NEST, words)
    lower = e.load(b.add(r.windows, b.mul(width, constant(I64, WORD))), I64, 8)
    window = _Window(e, width, lower, r)
    pixel = b.add(r.border, b.mul(width, r.step))
    full_width = b.icmp_signed("==", width, r.n)
    in_place = b.and_(b.icmp_signed("!=", r.direct, constant(I64, 0)), full_width)

    first, last = share(e, r.chunks, chunk, r.height)
    first = b.select(b.icmp_signed("==", chunk, constant(I64, 0)), b.neg(r.top), first)
    is_last = b.icmp_signed("==", chunk, b.sub(r.chunks, constant(I64, 1)))
    last = b.select(is_last, b.add(r.height, r.bottom), last)

    before, inner, after = (b.mul(count, r.step) for count in (r.left, r.width, r.right))
    full = b.add(before, b.add(inner, after))
    row = b.select(in_place, r.source_row, full)
    # the address of the target's pixel (0, 0)
    origin = b.select(in_place, r.source, b.add(r.target, b.add(b.mul(r.top, row), before)))

    def fill(start: Any, size: Any) -> None:
        with e.loop(size, 0, r.step) as at:
            copy(e, isa, pixel, b.add(start, at), r.step)

    with e.loop(last, first) as y:
        to = b.add(origin, b.mul(y, row))
        with b.if_else(b.icmp_unsigned("<", y, r.height)) as (inside, outside):
            with inside:
                fill(b.sub(to, before), before)
                fill(b.add(to, inner), after)
                with b.if_then(b.not_(in_place)):
                    nest_row(e, isa, window, r, b.add(r.source, b.mul(y, r.source_row)), to)
            with outside:
                fill(b.sub(to, before), full)
    e.done()
    return "window_nest"


class _Window(Nester):
    """The numbers of a width, a rule and a window, and their application to codes."""

    def __init__(self, e: Emitter, width: Any, lower: Any, r: Any) -> None:
        b = e.builder
        super().__init__(e, b.add(width, lower), r.n, r.rule)
        self.offset = b.sub(self.zeta(r.zero), Nester(e, width, r.n, r.rule).zeta(r.zero))
        self.most = b.sub(b.shl(constant(I64, 1), width), constant(I64, 1))

    def of(self, source: Any, size: int) -> Any:
        """Return `size` bytes at an address, nested through the window."""
        e, b = self.e, self.e.builder
        kind = vector(I8, size)
        offset, most = (e.splat(b.trunc(x, I8), size) for x in (self.offset, self.most))
        lowered = e.call(f"llvm.usub.sat.v{size}i8", kind, super().of(source, size), offset)
        return e.least(lowered, most, signed=False)
