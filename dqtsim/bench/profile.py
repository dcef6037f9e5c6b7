"""Where the time of one picture goes: every operation of the engine's program, timed between two readings of the clock.

One thread runs the program from its first operation to its last, as an inference does, so every operation finds the
caches in the same state as there. The time of two readings and an empty call is measured and subtracted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..engines.native import native
from ..engines.native.program import Fallback
from ..engines.native.run.loaded import Instance
from ..graph.model import Array
from ..planner import Plan
from .measure import WARM_UP
from .peak import peak

# the name of an operation without a native function
FALLBACK = "fallback"
# operations that multiply for a layer; its other operations prepare or finish the work
MULTIPLIES = ("conv", FALLBACK)
# how often an empty call is timed
LOOKS = 9


@dataclass(frozen=True)
class OperationTime:
    """One operation: the step that it belongs to, its function, the median of its seconds, its MACs."""

    step: str
    function: str
    seconds: float
    macs: int


@dataclass(frozen=True)
class Profile:
    """All operations in order; peak: GMAC/s of one thread, measured beside them, of `instruction`."""

    parts: tuple[OperationTime, ...]
    peak_gmacs: float
    instruction: str

    @property
    def seconds(self) -> float:
        """Return the sum of all operations."""
        return sum(part.seconds for part in self.parts)

    def share(self, part: OperationTime) -> float:
        """Return the share of the peak that an operation with MACs reaches."""
        return part.macs / part.seconds / 1e9 / self.peak_gmacs


def profile(plan: Plan, codes: Array, runs: int, done: Callable[[], None] = lambda: None) -> Profile:
    """Time the operations of the first picture of `codes` uint8 (N, ...) in `runs` runs; call `done` after each.

    Raises AccumulatorError if a sum of that picture does not fit its register and the target's policy is ERROR.
    """
    engine = native(plan)
    loaded = engine.loaded
    matrices = engine.library.isa.matrices is not None
    best, instruction = peak(1, matrices=matrices)
    instance = loaded.instance()
    try:
        found = []
        for number in range(-WARM_UP, runs):
            row = _once(instance, codes[:1])
            if number >= 0:
                found.append(row)
                done()
        loaded.check(instance.report()[None], codes[:1])
        best = max(best, peak(1, matrices=matrices)[0])
        medians = np.median(np.array(found), axis=0) * 1e-9
        names = list(_names(instance))
    finally:
        loaded.release(instance)
    parts = [
        OperationTime(step, function, seconds, 0)
        for (step, function), seconds in zip(names, medians.tolist(), strict=True)
    ]
    for step, macs in plan.macs.items():
        # a layer that counts bits has two operations that multiply, of which one returns at once
        own = [number for number, part in enumerate(parts) if part.step == step and part.function in MULTIPLIES]
        if own:
            longest = max(own, key=lambda number: parts[number].seconds)
            parts[longest] = replace(parts[longest], macs=macs)
    return Profile(tuple(parts), best, instruction)


def _names(instance: Instance) -> Iterator[tuple[str, str]]:
    """Yield the step and the function of every operation."""
    for operation in instance.loaded.program.operations:
        yield operation.step, FALLBACK if isinstance(operation, Fallback) else operation.function


def _once(instance: Instance, codes: Array) -> list[int]:
    """Run one picture and return the nanoseconds of every operation."""
    times: list[int] = []

    def look() -> None:
        times.append(perf_counter_ns())

    instance.one_by_one(codes, look)
    count = len(times)
    for _ in range(LOOKS):
        instance.loaded.run(0, 0, 0)
        look()
    steps = np.diff(times).tolist()
    nothing = int(np.median(steps[count - 1 :]))
    return [max(1, step - nothing) for step in steps[: count - 1]]


def print_profile(console: Console, found: Profile, title: str) -> None:
    """Print a row for each operation, then the sum, the part that multiplies, and the share of the peak."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for heading in ("step", "operation", "microseconds", "of all", "GMAC/s", "of the peak"):
        table.add_column(heading, justify="left" if heading in ("step", "operation") else "right")
    for part in found.parts:
        gmacs = part.macs / part.seconds / 1e9
        table.add_row(
            part.step or "-",
            part.function,
            f"{part.seconds * 1e6:.2f}",
            f"{100 * part.seconds / found.seconds:.1f} %",
            f"{gmacs:.1f}" if part.macs else "",
            f"{100 * found.share(part):.1f} %" if part.macs else "",
        )
    console.print(table)
    multiplied = sum(part.seconds for part in found.parts if part.macs)
    macs = sum(part.macs for part in found.parts)
    console.print(
        f"{found.seconds * 1e6:.1f} microseconds in all, {100 * multiplied / found.seconds:.1f} % in operations that "
        f"multiply; {100 * macs / found.seconds / 1e9 / found.peak_gmacs:.1f} % of the peak of "
        f"{found.peak_gmacs:.1f} GMAC/s, {found.instruction}"
    )


def as_json(found: Profile, **context: Any) -> dict[str, Any]:
    """Return a profile as one JSON object; `context` (model, bits, ...) comes first."""
    return {
        **context,
        "peak": {"instruction": found.instruction, "gmacs_per_second": found.peak_gmacs},
        "operations": [
            {"step": part.step, "operation": part.function, "seconds": part.seconds, "macs": part.macs}
            for part in found.parts
        ],
    }
