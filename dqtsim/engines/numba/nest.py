"""Operands of activations and weights (A1-A6), one table look-up a code."""

from typing import assert_never

import numpy as np

from ...graph.model import Array
from ...spec.rules import Nesting
from .compile import kernel


def nested(codes: Array, b: int, n: int, rule: Nesting) -> Array:
    """Return the codes of width `b` of master codes int32 (A1-A3)."""
    k = n - b
    match rule:
        case Nesting.TIES_UP:
            kept: Array = np.minimum((codes + ((1 << k) >> 1)) >> k, (1 << b) - 1)
        case Nesting.FLOOR | Nesting.MIDPOINT | Nesting.CENTROID:
            kept = codes >> k
        case _:
            assert_never(rule)
    return kept.astype(np.int32)


def operand_table(z: int, b: int, n: int, rule: Nesting) -> Array:
    """Return int32 [2^n]: the operand of every master code at width `b` for zero point `z` (A5)."""
    both = nested(np.append(np.arange(1 << n, dtype=np.int32), np.int32(z)), b, n, rule)
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            odd = 0
        case Nesting.MIDPOINT | Nesting.CENTROID:
            odd = int(b < n)
        case _:
            assert_never(rule)
    operands: Array = ((both[:-1] - both[-1]) << odd) + odd
    return operands


def window_table(z: int, b: int, j: int, n: int, rule: Nesting) -> Array:
    """Return int32 [2^n]: the operand of every master code at width `b`, taken `j` bits lower (A6).

    It saturates where the codes of `b` bits end, seen from the zero point.
    """
    below = int(nested(np.array([z], np.int32), b, n, rule)[0])
    return np.clip(operand_table(z, b + j, n, rule), -below, (1 << b) - 1 - below)


def exponent(b: int, n: int, rule: Nesting) -> int:
    """Return e such that an operand s of width `b` stands for s * 2^e master steps (A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return n - b
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return max(n - b - 1, 0)
        case _:
            assert_never(rule)


def is_below_middle(b: int, n: int, rule: Nesting) -> bool:
    """Return whether weights stand for half a master step less than their operands say (A3')."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return False
        case Nesting.CENTROID:
            return n > b
        case _:
            assert_never(rule)


@kernel
def nest_planes(codes: Array, table: Array, top: int, left: int, out: Array) -> None:
    """Write the operands of `codes` uint8 (C, H, W) into `out` int32 (C, H + pads, W + pads), but no border.

    `out` contains the operands of padded taps before: zeros (B1), or those of each channel's padding code (B1').
    """
    channels, height, width = codes.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                out[c, y + top, x + left] = table[codes[c, y, x]]


@kernel
def nest_flat(codes: Array, table: Array, out: Array) -> None:
    """Write the operands of `codes` uint8 (any shape, flat) into `out` int32 of the same length."""
    for i in range(codes.size):
        out[i] = table[codes[i]]
