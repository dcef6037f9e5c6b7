"""Rounded shifts and what follows them (B4), on integers or on vectors of them.

`half` is what one unit of the result is worth, halved, and `less` one below it; both are 0 where the shift is 0. A
value's floor after adding `less` differs from its floor after adding `half` for ties only, so the choice between the
two says where ties go.
"""

from typing import Any, assert_never

from ....spec.rules import Rounding
from ..ir import Emitter, constant


def is_folded(rounding: Rounding) -> bool:
    """Return whether a rounding is a plain shift of a sum in which its half, if any, is contained already."""
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
    """The last steps to a code: shift, zero point, clamp. Words are i64; lanes are of the type `element`."""

    def __init__(self, e: Emitter, rounding: Rounding, shift: Any, zero: Any, low: Any, high: Any) -> None:
        b = e.builder
        self.e, self.rounding, self.shift, self.zero = e, rounding, shift, zero
        # clamped before the zero point is added, so that the addition cannot leave the type
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
