"""Interleaved timing: in every round each contender has one turn, so that a disturbance affects all of them.

A contender finds the clock, the caches and the heat that the one before it left. So the order changes from round to
round, and each contender comes after each other one equally often (Williams, "Experimental designs balanced for the
estimation of residual effects of treatments", 1949).

A turn is one run. For contenders that need less than BURST seconds, it is as many runs as take that long: the first is
not measured, because the contender before left the caches full of its own data; the rest are measured together.
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
    """A contender: `run()` does all the work once; `check(result)` examines the result outside the measured time."""

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
    """Return the order in which `count` contenders have their turns in a round.

    In `count` rounds, or twice as many if `count` is odd, each contender has each place, and each other contender
    directly before it, equally often.
    """
    zigzag = [(place + 1) // 2 if place % 2 else count - place // 2 for place in range(count)]
    turned = [(index + round_) % count for index in zigzag]
    return turned[::-1] if count % 2 and round_ // count % 2 else turned


def _repeats(burst: float, seconds: float) -> int:
    """Return the number of runs in a turn, if a run takes `seconds`."""
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
