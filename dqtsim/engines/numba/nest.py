"""Operands of activations and weights (A1-A5), one table look-up a code."""

from typing import assert_never

import numpy as np

from ...graph.model import Array
from ...spec.rules import Nesting
from .compile import kernel


def operand_table(z: int, b: int, n: int, rule: Nesting) -> Array:
    """Return int32 [2^n]: the operand of every master code at width `b` for zero point `z` (A5)."""
    codes = np.arange(1 << n, dtype=np.int32)
    both = np.append(codes, np.int32(z))
    k = n - b
    odd = 0
    match rule:
        case Nesting.TIES_UP:
            both = np.minimum((both + ((1 << k) >> 1)) >> k, (1 << b) - 1).astype(np.int32)
        case Nesting.FLOOR:
            both = both >> k
        case Nesting.MIDPOINT:
            both, odd = both >> k, int(k > 0)
        case _:
            assert_never(rule)
    operands: Array = ((both[:-1] - both[-1]) << odd) + odd
    return operands


def exponent(b: int, n: int, rule: Nesting) -> int:
    """Return e such that an operand s of width `b` stands for s * 2^e master steps (A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return n - b
        case Nesting.MIDPOINT:
            return max(n - b - 1, 0)
        case _:
            assert_never(rule)


@kernel
def nest_planes(codes: Array, table: Array, top: int, left: int, out: Array) -> None:
    """Write the operands of `codes` uint8 (C, H, W) into `out` int32 (C, H + pads, W + pads), but no border.

    `out` contains zeros before, which is the operand of a padded tap (B1).
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
