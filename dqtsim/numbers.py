"""The numbers that stand for the named choices in compiled code and circuits: the only table of each.

`rtl/dqt.sv` states the same for circuits; a test compares the two. A number is only another name, not arithmetic, so
every engine may import this file, except the law, which uses the names themselves. A published number never changes.
"""

from typing import Final, Literal, assert_never

from .spec.rules import Nesting, Overflow, Rounding, TapOrder
from .target import ArrayMode

NestingNumber = Literal[0, 1, 2, 3]
NEST_TIES_UP: Final = 0
NEST_FLOOR: Final = 1
NEST_MIDPOINT: Final = 2
NEST_CENTROID: Final = 3

RoundingNumber = Literal[0, 1, 2, 3]
TIES_UP: Final = 0
FLOOR: Final = 1
TIES_AWAY: Final = 2
TIES_EVEN: Final = 3

OverflowNumber = Literal[0, 1, 2, 3]
ERROR: Final = 0
WRAP: Final = 1
SATURATE: Final = 2
SATURATE_EACH: Final = 3

TapOrderNumber = Literal[0, 1]
CHANNEL_ROW_COLUMN: Final = 0
ROW_COLUMN_CHANNEL: Final = 1

ModeNumber = Literal[0, 1, 2]
PARALLEL: Final = 0
ACTIVATION_SERIAL: Final = 1
DIGIT_SERIAL: Final = 2


def of_nesting(rule: Nesting) -> NestingNumber:
    """Return the number of a nesting rule."""
    match rule:
        case Nesting.TIES_UP:
            return NEST_TIES_UP
        case Nesting.FLOOR:
            return NEST_FLOOR
        case Nesting.MIDPOINT:
            return NEST_MIDPOINT
        case Nesting.CENTROID:
            return NEST_CENTROID
        case _:
            assert_never(rule)


def of_rounding(rounding: Rounding) -> RoundingNumber:
    """Return the number of a rounding."""
    match rounding:
        case Rounding.TIES_UP:
            return TIES_UP
        case Rounding.FLOOR:
            return FLOOR
        case Rounding.TIES_AWAY:
            return TIES_AWAY
        case Rounding.TIES_EVEN:
            return TIES_EVEN
        case _:
            assert_never(rounding)


def of_overflow(overflow: Overflow) -> OverflowNumber:
    """Return the number of an overflow policy."""
    match overflow:
        case Overflow.ERROR:
            return ERROR
        case Overflow.WRAP:
            return WRAP
        case Overflow.SATURATE:
            return SATURATE
        case Overflow.SATURATE_EACH:
            return SATURATE_EACH
        case _:
            assert_never(overflow)


def of_tap_order(order: TapOrder) -> TapOrderNumber:
    """Return the number of an order of taps."""
    match order:
        case TapOrder.CHANNEL_ROW_COLUMN:
            return CHANNEL_ROW_COLUMN
        case TapOrder.ROW_COLUMN_CHANNEL:
            return ROW_COLUMN_CHANNEL
        case _:
            assert_never(order)


def of_mode(mode: ArrayMode) -> ModeNumber:
    """Return the number of the way in which processing elements multiply."""
    match mode:
        case ArrayMode.PARALLEL:
            return PARALLEL
        case ArrayMode.ACTIVATION_SERIAL:
            return ACTIVATION_SERIAL
        case ArrayMode.DIGIT_SERIAL:
            return DIGIT_SERIAL
        case _:
            assert_never(mode)
