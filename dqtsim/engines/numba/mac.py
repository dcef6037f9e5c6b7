"""Multiply-accumulate and the accumulator register (B1)."""

from typing import assert_never

import numpy as np

from ...graph.model import Array
from ...numbers import (
    CHANNEL_ROW_COLUMN,
    ERROR,
    ROW_COLUMN_CHANNEL,
    SATURATE,
    SATURATE_EACH,
    WRAP,
    OverflowNumber,
    TapOrderNumber,
)
from .compile import kernel


@kernel
def conv(a: Array, w: Array, strides: tuple[int, int], dilations: tuple[int, int], group: int, out: Array) -> None:
    """Add exact sums into `out` (O, OH, OW), which contains zeros, int32 or int64, whichever is proven wide enough.

    `a` int32 (C, H, W): operands with their border; `w` int32 (O, C / group, kernel rows, kernel columns).
    """
    outputs, rows, columns = out.shape
    channels, kernel_rows, kernel_columns = w.shape[1], w.shape[2], w.shape[3]
    per_group = outputs // group
    stride_y, stride_x = strides
    for o in range(outputs):
        first = (o // per_group) * channels
        for y in range(rows):
            line = out[o, y]
            for c in range(channels):
                for ky in range(kernel_rows):
                    source = a[first + c, y * stride_y + ky * dilations[0]]
                    for kx in range(kernel_columns):
                        weight = w[o, c, ky, kx]
                        taps = source[kx * dilations[1] :]
                        if stride_x == 1:
                            for x in range(columns):
                                line[x] += weight * taps[x]
                        else:
                            for x in range(columns):
                                line[x] += weight * taps[x * stride_x]


@kernel
def gemm(a: Array, w: Array, out: Array) -> None:
    """Write exact sums into `out` (O, 1) of `a` int32 (K) and `w` int32 (O, K)."""
    for o in range(w.shape[0]):
        total = out[o, 0]
        for k in range(w.shape[1]):
            total += w[o, k] * a[k]
        out[o, 0] = total


def column(a: Array, w: Array, strides: tuple[int, int], dilations: tuple[int, int], group: int, out: Array) -> None:
    """Add U of every window into `out` int64 (group, OH, OW), which contains zeros: weights of 1 (B2').

    Other arguments as for `conv`. Channels are added first, so that one kernel plane a group remains.
    """
    planes = a.reshape(group, w.shape[1], *a.shape[1:]).sum(1, dtype=np.int32)
    conv(planes, np.ones((group, 1, *w.shape[2:]), np.int32), strides, dilations, group, out)


@kernel
def extremes(p: Array) -> tuple[int, int]:
    """Return the least and greatest entry of `p` (O, M) and of the register's start, 0."""
    lowest = 0
    highest = 0
    for o in range(p.shape[0]):
        for m in range(p.shape[1]):
            lowest = min(lowest, p[o, m])
            highest = max(highest, p[o, m])
    return lowest, highest


@kernel
def narrow(p: Array, width: int, overflow: OverflowNumber) -> tuple[int, int]:
    """Put the exact sums `p` int64 (O, M) into registers of `width` bits, in place.

    `overflow` is the number of ERROR, WRAP or SATURATE; SATURATE_EACH narrows elsewhere and raises ValueError here.
    Returns (overflows, where): the number of sums that did not fit; and for ERROR the flat index m * O + o of the first
    of them in the order of positions, else -1.
    """
    if overflow == SATURATE_EACH:
        raise ValueError("SATURATE_EACH narrows after every product, not at the end of a window")
    outputs, positions = p.shape
    half = 1 << (width - 1)
    overflows = 0
    for m in range(positions):
        for o in range(outputs):
            value = p[o, m]
            if -half <= value < half:
                continue
            if overflow == ERROR:
                return 1, m * outputs + o
            overflows += 1
            if overflow == WRAP:
                p[o, m] = ((value + half) & ((half << 1) - 1)) - half
            elif overflow == SATURATE:
                p[o, m] = half - 1 if value > 0 else -half
            else:
                assert_never(overflow)
    return overflows, -1


@kernel
def conv_saturate_each(
    a: Array,
    w: Array,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    group: int,
    tap_order: TapOrderNumber,
    width: int,
    which: Array,
    out: Array,
) -> int:
    """Overwrite the rows of `out` int64 (O, OH, OW) named by `which` with sums clamped after every product.

    Other arguments as for `conv`. Returns how many additions were clamped.
    """
    rows, columns = out.shape[1], out.shape[2]
    channels, kernel_rows, kernel_columns = w.shape[1], w.shape[2], w.shape[3]
    per_group = out.shape[0] // group
    taps = kernel_rows * kernel_columns
    highest = (1 << (width - 1)) - 1
    lowest = -highest - 1
    overflows = 0
    for o in which:
        first = (o // per_group) * channels
        for y in range(rows):
            for x in range(columns):
                register = 0
                for i in range(channels * taps):
                    if tap_order == CHANNEL_ROW_COLUMN:
                        c, tap = i // taps, i % taps
                    elif tap_order == ROW_COLUMN_CHANNEL:
                        c, tap = i % channels, i // channels
                    else:
                        assert_never(tap_order)
                    ky, kx = tap // kernel_columns, tap % kernel_columns
                    row = y * strides[0] + ky * dilations[0]
                    column = x * strides[1] + kx * dilations[1]
                    register += w[o, c, ky, kx] * a[first + c, row, column]
                    if register > highest:
                        register = highest
                        overflows += 1
                    elif register < lowest:
                        register = lowest
                        overflows += 1
                out[o, y, x] = register
    return overflows
