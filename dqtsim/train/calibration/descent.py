"""Coordinate descent over master codes, compiled: every output of a layer for itself, so threads change nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from dqtsim.train.rules import TOP_CODE

Reals = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.uint8]
F = TypeVar("F", bound=Callable[..., object])


def _compiled(function: F) -> F:
    return cast(F, njit(cache=True, nogil=True)(function))


def descend(
    codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, *, reach: int, sweeps: int,
    threads: int,
) -> None:  # fmt: skip
    """Move `codes` [B, O, n], in place, one after the other, each by at most `reach` to where its cost is least.

    The cost of a move that changes the operand at setting p, a width or a pair of widths, by d is the sum over p of
    share[p] * d * (2 * slope[p] + H[i, i] * d). `slope` [B, O, P, n] is half the gradient, and follows; `found`
    [B, P, n, n] or, alike for all settings, [B, 1, n, n] is H; `share` is [B, O, P]; `operands` [P, 256] are those of
    all codes.
    """
    outputs = codes.shape[0] * codes.shape[1]
    parts = max(1, min(threads, outputs))
    edges = [outputs * i // parts for i in range(parts + 1)]

    def run(start: int, end: int) -> None:
        _outputs(start, end, codes, slope, found, share, operands, reach, sweeps)

    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(run, edges[i], edges[i + 1]) for i in range(parts)]:
            done.result()


@_compiled
def _outputs(
    start: int, end: int, codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, reach: int,
    sweeps: int,
) -> None:  # fmt: skip
    for output in range(start, end):
        block, o = divmod(output, codes.shape[1])
        for _ in range(sweeps):
            for i in range(codes.shape[2]):
                _move(codes[block, o], slope[block, o], found[block], share[block, o], operands, i, reach)


@_compiled
def _move(
    codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, i: int, reach: int
) -> None:  # fmt: skip
    now = int(codes[i])
    best, least, own = now, 0.0, len(found) > 1
    for code in range(max(0, now - reach), min(TOP_CODE, now + reach) + 1):
        cost = 0.0
        for p in range(len(share)):
            delta = operands[p, code] - operands[p, now]
            cost += share[p] * delta * (2 * slope[p, i] + found[p if own else 0, i, i] * delta)
        if cost < least:
            best, least = code, cost
    if best == now:
        return
    codes[i] = best
    for p in range(len(share)):
        delta = operands[p, best] - operands[p, now]
        if delta != 0:
            slope[p] += delta * found[p if own else 0, i]
