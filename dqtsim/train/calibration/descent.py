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

SWEEPS = 3
# How far a code moves at once, up or down.
REACH = 10
# The same where codes follow the outputs: to any code of the next narrow one.
FAR = 16


def _compiled(function: F) -> F:
    return cast(F, njit(cache=True, nogil=True)(function))


def descend(codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, threads: int) -> None:
    """Move `codes` [B, O, n], in place, one after the other, each to where the sum of its costs is least.

    The cost of a move that changes the operand at width b by d is share[b] * d * (2 * slope[b] + H[i, i] * d).
    `slope` [B, O, W, n] is H times the error of each width, and follows; `found` [B, n, n] is H; `operands` [W, 256]
    are those of all codes at each width.
    """
    _among(codes, threads, lambda start, end: _outputs(start, end, codes, slope, found, share, operands))


def _among(codes: CodeArray, threads: int, run: Callable[[int, int], object]) -> None:
    """Run a range of outputs of codes [B, O, n] in each thread."""
    outputs = codes.shape[0] * codes.shape[1]
    parts = max(1, min(threads, outputs))
    edges = [outputs * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(run, edges[i], edges[i + 1]) for i in range(parts)]:
            done.result()


@_compiled
def _outputs(start: int, end: int, codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals) -> None:
    for output in range(start, end):
        block, o = divmod(output, codes.shape[1])
        for _ in range(SWEEPS):
            for i in range(codes.shape[2]):
                _move(codes[block, o], slope[block, o], found[block], share, operands, i)


@_compiled
def _move(codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, i: int) -> None:
    now = int(codes[i])
    best, least = now, 0.0
    for code in range(max(0, now - REACH), min(TOP_CODE, now + REACH) + 1):
        cost = 0.0
        for b in range(len(share)):
            delta = operands[b, code] - operands[b, now]
            cost += share[b] * delta * (2 * slope[b, i] + found[i, i] * delta)
        if cost < least:
            best, least = code, cost
    if best == now:
        return
    codes[i] = best
    for b in range(len(share)):
        delta = operands[b, best] - operands[b, now]
        if delta != 0:
            slope[b] += delta * found[i]


def follow(codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, threads: int) -> None:
    """One sweep as in `descend`, with an H per pair and a share per output and pair.

    `slope` [B, O, P, n], `found` [B, P, n, n], `share` [B, O, P], `operands` [P, 256].
    """
    _among(codes, threads, lambda start, end: _follow(start, end, codes, slope, found, share, operands))


@_compiled
def _follow(start: int, end: int, codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals) -> None:
    for output in range(start, end):
        block, o = divmod(output, codes.shape[1])
        for i in range(codes.shape[2]):
            _step(codes[block, o], slope[block, o], found[block], share[block, o], operands, i)


@_compiled
def _step(codes: CodeArray, slope: Reals, found: Reals, share: Reals, operands: Reals, i: int) -> None:
    now = int(codes[i])
    best, least = now, 0.0
    for code in range(max(0, now - FAR), min(TOP_CODE, now + FAR) + 1):
        cost = 0.0
        for p in range(len(share)):
            delta = operands[p, code] - operands[p, now]
            cost += share[p] * delta * (2 * slope[p, i] + found[p, i, i] * delta)
        if cost < least:
            best, least = code, cost
    if best == now:
        return
    codes[i] = best
    for p in range(len(share)):
        delta = operands[p, best] - operands[p, now]
        if delta != 0:
            slope[p] += delta * found[p, i]
