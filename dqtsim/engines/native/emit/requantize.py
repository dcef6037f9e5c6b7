"""Rounded shifts and what follows them (B4), on integers or on vectors of them.

`half` is half a unit of the result, 2^(shift - 1), and `less` is half - 1; both are 0 if the shift is 0. Adding `less`
instead of `half` before the shift changes the result only for ties, so the choice between the two decides where ties
go.
"""

from typing import Any, assert_never

from ....spec.rules import Rounding
from ..ir import Emitter, constant


def is_folded(rounding: Rounding) -> bool:
    """Return whether rounding is only a shift, because its half (if any) has already been added to the sum."""
    match rounding:
        case Rounding.TIES_UP | Rounding.FLOOR:
            return True
        case Rounding.TIES_AWAY | Rounding.TIES_EVEN:
            return False
        case _:
            assert_never(rounding)


def rounded_shift(e: Emitter, value: Any, shift: Any, rounding: Rounding) -> Any:
    """Return value / 2^shift as an integer of the same type; every lane has its own shift, from 0 to its width - 2.

    `value` plus half of 2^shift must fit the type.
    """
    b = e.builder
    one, nothing = constant(value.type, 1), constant(value.type, 0)
    match rounding:
        case Rounding.FLOOR:
            return b.ashr(value, shift)
        case Rounding.TIES_UP:
            half, _ = _half(b, one, shift)
            return b.ashr(b.add(value, half), shift)
        case Rounding.TIES_AWAY:
            half, unit = _half(b, one, shift)
            less = b.lshr(b.sub(unit, one), one)
            down = b.icmp_signed("<", value, nothing)
        case Rounding.TIES_EVEN:
            half, unit = _half(b, one, shift)
            less = b.lshr(b.sub(unit, one), one)
            down = b.icmp_signed("==", b.and_(b.ashr(value, shift), one), nothing)
        case _:
            assert_never(rounding)
    return b.ashr(b.add(value, b.select(down, less, half)), shift)


def _half(b: Any, one: Any, shift: Any) -> tuple[Any, Any]:
    """Return half of 2^shift and 2^shift."""
    unit = b.shl(one, shift)
    return b.lshr(unit, one), unit


class CodeEpilogue:
    """The last steps to a code: shift, zero point, clamp. Fields are i64; lanes are of the type `element`."""

    def __init__(self, e: Emitter, rounding: Rounding, shift: Any, zero: Any, low: Any, high: Any) -> None:
        b = e.builder
        self.e, self.rounding, self.shift, self.zero = e, rounding, shift, zero
        # clamped before the zero point is added, so that the addition cannot overflow the type
        self.low, self.high = b.sub(low, zero), b.sub(high, zero)

    def of(self, value: Any, narrow: Any) -> Any:
        """Return clip(zero + value / 2^shift, low, high) as a vector of the type `narrow`."""
        e, b = self.e, self.e.builder
        element, lanes = value.type.element, value.type.count
        shift, zero, low, high = (
            e.splat(word if element == word.type else b.trunc(word, element), lanes)
            for word in (self.shift, self.zero, self.low, self.high)
        )
        shifted = rounded_shift(e, value, shift, self.rounding)
        return b.trunc(b.add(e.least(e.greatest(shifted, low), high), zero), narrow)
