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
from .nest import NEST, Nester, nest_rows
from .rows import fields

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

    def border(start: Any, size: Any) -> None:
        with e.loop(size, 0, r.step) as at:
            copy(e, isa, pixel, b.add(start, at), r.step)

    nest_rows(e, isa, r, chunk, window, in_place, border)
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
