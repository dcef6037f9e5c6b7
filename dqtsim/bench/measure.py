"""Interleaved timing: every round gives each contender its turn, so that all share what disturbs.

Whoever comes behind another finds the clock, the caches and the heat that it left; so the order changes from round to
round, and everyone comes behind everyone else equally often (Williams, "Experimental designs balanced for the
estimation of residual effects of treatments", 1949).

A turn is one run, or for contenders of less than BURST seconds as many as take that long: a first one that is not
measured, because the contender before it left the caches full of its own, and the rest together.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

WARM_UP = 2
# seconds of a turn
BURST = 0.02
MOST_RUNS = 1000


@dataclass(frozen=True)
class Contender:
    """Who takes part: `run()` does all the work once; `check(what it gave)` looks at it outside the measured time."""

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None] = lambda _given: None


@dataclass(frozen=True)
class Timing:
    """The seconds of a run of one contender, the mean of each of its turns, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median, in seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """Return the 10th and the 90th percentile, in seconds."""
        low, high = np.quantile(self.seconds, (0.1, 0.9))
        return float(low), float(high)


def interleave(
    contenders: Sequence[Contender],
    runs: int,
    done: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = perf_counter,
    burst: float = 0,
) -> list[Timing]:
    """Return the timing of each contender over `runs` rounds; two rounds before them warm up and are not measured.

    `done` is called after each measured round; `clock` gives seconds. burst: seconds of a turn, 0 for one run.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    repeats = [1] * len(contenders)
    with _no_collection():
        for round_ in range(-WARM_UP, runs):
            for index in order(round_, len(contenders)):
                contender = contenders[index]
                if repeats[index] > 1:
                    contender.check(contender.run())
                started = clock()
                for _ in range(repeats[index]):
                    given = contender.run()
                ended = clock()
                contender.check(given)
                if round_ >= 0:
                    seconds[index].append((ended - started) / repeats[index])
                elif burst:
                    repeats[index] = _repeats(burst, (ended - started) / repeats[index])
            if round_ >= 0:
                done()
    return [Timing(tuple(found)) for found in seconds]


def order(round_: int, count: int) -> list[int]:
    """Return in which order `count` contenders have their turns in a round.

    In `count` rounds, or twice as many where `count` is odd, everyone has each place and each other one before it
    equally often.
    """
    zigzag = [(place + 1) // 2 if place % 2 else count - place // 2 for place in range(count)]
    turned = [(index + round_) % count for index in zigzag]
    return turned[::-1] if count % 2 and round_ // count % 2 else turned


def _repeats(burst: float, seconds: float) -> int:
    """Return how many runs of so many seconds a turn has."""
    return int(min(max(burst / seconds, 1), MOST_RUNS)) if seconds > 0 else MOST_RUNS


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the measured runs."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
