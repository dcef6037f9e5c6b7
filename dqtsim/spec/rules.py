"""The named choices of the law. Names of roundings say where ties go; nothing is ever called "round" or "nearest"."""

from enum import StrEnum


class Nesting(StrEnum):
    """How the code of width b is taken from the master code, and what it is read back as (A1-A3')."""

    TIES_UP = "TIES_UP"
    FLOOR = "FLOOR"
    MIDPOINT = "MIDPOINT"
    CENTROID = "CENTROID"


class Rounding(StrEnum):
    """How the right shift of a requantization treats the dropped bits (B4)."""

    TIES_UP = "TIES_UP"
    FLOOR = "FLOOR"
    TIES_AWAY = "TIES_AWAY"
    TIES_EVEN = "TIES_EVEN"


class Overflow(StrEnum):
    """What an accumulator of W bits does with a sum that does not fit (B1)."""

    ERROR = "ERROR"
    WRAP = "WRAP"
    SATURATE = "SATURATE"
    SATURATE_EACH = "SATURATE_EACH"


class TapOrder(StrEnum):
    """The order in which the products of one output are added, outermost axis first (B1).

    Only SATURATE_EACH can tell the orders apart.
    """

    CHANNEL_ROW_COLUMN = "CHANNEL_ROW_COLUMN"
    ROW_COLUMN_CHANNEL = "ROW_COLUMN_CHANNEL"
