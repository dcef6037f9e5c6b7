"""Codes and widths: equations A1 to A6 of spec/README.md."""

from typing import assert_never

from .rules import Nesting


def nest(q: int, b: int, n: int, rule: Nesting) -> int:
    """Return the code of width `b` of the master code `q` of width `n` (A1-A3').

    `q` is unsigned, 0 <= q < 2^n; 1 <= b <= n <= 8; the result is unsigned, below 2^b.
    TIES_UP does not compose: nest from the master, never from a nested code.
    """
    k = n - b
    if k == 0:
        return q
    match rule:
        case Nesting.TIES_UP:
            epsilon = (q >> (k - 1)) & 1
            return min((q >> k) + epsilon, (1 << b) - 1)
        case Nesting.FLOOR | Nesting.MIDPOINT | Nesting.CENTROID:
            return q >> k
        case _:
            assert_never(rule)


def nest_zero_point(z: int, b: int, n: int, rule: Nesting) -> int:
    """Return the zero point at width `b` (A4); MIDPOINT and CENTROID nest zero points by FLOOR."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return nest(z, b, n, rule)
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return nest(z, b, n, Nesting.FLOOR)
        case _:
            assert_never(rule)


def operand(q: int, z: int, b: int, n: int, rule: Nesting) -> int:
    """Return the signed operand s of the multiplier for the master code `q` (A5)."""
    s = nest(q, b, n, rule) - nest_zero_point(z, b, n, rule)
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return s
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return 2 * s + 1 if b < n else s
        case _:
            assert_never(rule)


def exponent(b: int, n: int, rule: Nesting) -> int:
    """Return e such that an operand s of width `b` stands for s * 2^e master steps (A5)."""
    k = n - b
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return k
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return max(k - 1, 0)
        case _:
            assert_never(rule)


def takes_half(b: int, n: int, rule: Nesting) -> bool:
    """Return whether weights of width `b` are read back half a master step below their operands (A3', B2')."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return False
        case Nesting.CENTROID:
            return b < n
        case _:
            assert_never(rule)


def nest_window(q: int, z: int, b: int, j: int, n: int, rule: Nesting) -> int:
    """Return the code u of width `b` that is taken `j` bits lower, 0 <= j <= n - b, and saturates (A6).

    `z` is the master zero point, which `u` has at its usual place, nest(z, b). j = 0 is the code of A1 or A2.
    """
    moved = nest_zero_point(z, b + j, n, rule) - nest_zero_point(z, b, n, rule)
    return min(max(nest(q, b + j, n, rule) - moved, 0), (1 << b) - 1)


def window_operand(q: int, z: int, b: int, j: int, n: int, rule: Nesting) -> int:
    """Return the signed operand of a master code of activations taken `j` bits lower (A6).

    Its exponent is that of width b + j.
    """
    return nest_window(q, z, b, j, n, rule) - nest_zero_point(z, b, n, rule)


def master_zero_point_of_weights(n: int) -> int:
    """Return 2^(n-1), the zero point of every weight tensor (offset binary of two's complement)."""
    return 1 << (n - 1)
