"""Multiply-accumulate, its register, alignment and bias: equations B1, B2, B2' and B3 of spec/README.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal, assert_never

from .rules import Overflow

AtTheEnd = Literal[Overflow.ERROR, Overflow.WRAP, Overflow.SATURATE]


@dataclass
class Flags:
    """What the accumulators of one layer did. Counts are exact and part of the result.

    saturations: how often the register clamped: outputs under SATURATE, additions under SATURATE_EACH.
    wraps: outputs whose exact sum did not fit under WRAP.
    lowest, highest: extremes over all outputs of the sum before it is narrowed (under SATURATE_EACH, of the register
        after the last product); both include 0, the register's start.
    """

    saturations: int = 0
    wraps: int = 0
    lowest: int = 0
    highest: int = 0


class AccumulatorOverflow(ArithmeticError):
    """A sum left the register under the policy ERROR; `value` is the exact sum."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


def limits(width: int) -> tuple[int, int]:
    """Return the least and the greatest value of a two's-complement register of `width` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def wrap(value: int, width: int) -> int:
    """Return `value` modulo 2^width, read as two's complement."""
    low = value & ((1 << width) - 1)
    return low - (1 << width) if low >> (width - 1) else low


def saturate(value: int, width: int) -> int:
    """Return the value of the register of `width` bits that is nearest to `value`."""
    lowest, highest = limits(width)
    return min(max(value, lowest), highest)


def narrow(total: int, width: int, overflow: AtTheEnd, flags: Flags) -> int:
    """Put an exact sum into the accumulator at the end of a window (ERROR, WRAP, SATURATE)."""
    flags.lowest = min(flags.lowest, total)
    flags.highest = max(flags.highest, total)
    lowest, highest = limits(width)
    if lowest <= total <= highest:
        return total
    match overflow:
        case Overflow.ERROR:
            raise AccumulatorOverflow(total)
        case Overflow.WRAP:
            flags.wraps += 1
            return wrap(total, width)
        case Overflow.SATURATE:
            flags.saturations += 1
            return saturate(total, width)
        case _:
            assert_never(overflow)


def accumulate_saturating(products: Iterable[int], width: int, flags: Flags) -> int:
    """Add product after product into a register that clamps after each (SATURATE_EACH)."""
    register = 0
    for product in products:
        total = register + product
        register = saturate(total, width)
        flags.saturations += register != total
    flags.lowest = min(flags.lowest, register)
    flags.highest = max(flags.highest, register)
    return register


def dot(weights: Sequence[int], taps: Sequence[int], width: int, overflow: Overflow, flags: Flags) -> int:
    """Return P = sum of s_w * s_a over one window (B1), as the accumulator of `width` bits holds it.

    `weights` and `taps` are operands in the target's tap order.
    """
    products = map(mul, weights, taps)
    match overflow:
        case Overflow.SATURATE_EACH:
            return accumulate_saturating(products, width, flags)
        case Overflow.ERROR | Overflow.WRAP | Overflow.SATURATE:
            return narrow(sum(products), width, overflow, flags)
        case _:
            assert_never(overflow)


def align(p: int, e_w: int, e_a: int) -> int:
    """Return A = P * 2^(e_w + e_a), which is in steps of the master widths (B2)."""
    return p << (e_w + e_a)


def add_up(taps: Sequence[int]) -> int:
    """Return U = sum of s_a over one window, padded taps included, in a register that is never too narrow (B2')."""
    return sum(taps)


def half(u: int, e_a: int) -> int:
    """Return half of U * 2^e_a, ties up: exact for e_a > 0 (B2')."""
    return ((u << e_a) + 1) >> 1


def take_half(a: int, u: int, e_a: int) -> int:
    """Return A less half a master step of the weight of every tap, for an aligned A of CENTROID weights (B2')."""
    return a - half(u, e_a)


def add_bias(a: int, bias: int, bias_width: int) -> int:
    """Return A + B with B saturated to the bias register (B3)."""
    return a + saturate(bias, bias_width)
