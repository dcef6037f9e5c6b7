"""Interleaved timing: every round runs each contender once, in rotating order, so that all share what disturbs."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

WARM_UP = 2


@dataclass(frozen=True)
class Contender:
    """Who takes part: `run()` does all the work once; `check(what it gave)` looks at it outside the measured time."""

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None] = lambda _given: None


@dataclass(frozen=True)
class Timing:
    """The seconds of all measured runs of one contender, in order."""

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
) -> list[Timing]:
    """Return the timing of each contender over `runs` rounds; two rounds before them warm up and are not measured.

    `done` is called after each measured round; `clock` gives seconds.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    with _no_collection():
        for round_ in range(-WARM_UP, runs):
            for place in range(len(contenders)):
                index = (round_ + place) % len(contenders)
                contender = contenders[index]
                started = clock()
                given = contender.run()
                ended = clock()
                contender.check(given)
                if round_ >= 0:
                    seconds[index].append(ended - started)
            if round_ >= 0:
                done()
    return [Timing(tuple(found)) for found in seconds]


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
