"""Operands of activations and weights (A1-A5), one table look-up a code."""

import numpy as np

from ..graph.model import Array
from ..spec.rules import Nesting
from .compile import kernel


def operand_table(z: int, b: int, n: int, rule: Nesting) -> Array:
    """Return int32 [2^n]: the operand of every master code at width `b` for zero point `z` (A5)."""
    codes = np.arange(1 << n, dtype=np.int32)
    both = np.append(codes, np.int32(z))
    k = n - b
    if k > 0 and rule == Nesting.TIES_UP:
        both = np.minimum((both + (1 << (k - 1))) >> k, (1 << b) - 1).astype(np.int32)
    else:
        both = both >> k
    operands: Array = both[:-1] - both[-1]
    if k > 0 and rule == Nesting.MIDPOINT:
        operands = 2 * operands + 1
    return operands


def exponent(b: int, n: int, rule: Nesting) -> int:
    """Return how many places an operand of width `b` is short of the master steps (A5)."""
    return max(n - b - (rule == Nesting.MIDPOINT), 0)


@kernel
def nest_planes(codes: Array, table: Array, top: int, left: int, out: Array) -> None:
    """Write the operands of `codes` uint8 (C, H, W) into `out` int32 (C, H + pads, W + pads); the border is left alone.

    `out` arrives as zeros, which is the operand of a padded tap (B1).
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
