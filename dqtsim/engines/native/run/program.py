"""Running a lowered plan: arenas, records, threads, results."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np

from ....errors import AccumulatorError
from ....graph.model import Array
from ....ops import Outcome, refuse_widths
from ....planner import Plan, Step
from ....spec.mac import Flags
from ....spec.rules import Overflow
from ..emit.picture import PICTURE
from ..emit.schedule import COUNTER
from ..fallback import compute
from ..ir import WORD
from ..lower.state import Lowered, Native, Ordinary, lower
from ..memory import SLACK, Slabs, Spot, aligned, allocate
from .refuse import refuse
from .team import Team

if TYPE_CHECKING:
    from ..isa.base import Isa

RUN = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
MANY = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)
SHARE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


# samples of a batch that read weights together, where constants are too many bytes to stay near from sample to sample,
# and an arena so few that several are as near as one
TOGETHER = 4
FAR_CONSTANTS = 1 << 20
NEAR_ARENA = 512 << 10
SOURCE = PICTURE.names.index("source")
NOTHING: Mapping[str, Flags | None] = {}


@dataclass(frozen=True)
class Library:
    """Native functions: their addresses by name, and what they were made for."""

    isa: "Isa"
    functions: Mapping[str, int]


class Instance:
    """One arena with the records that point into it: what one thread needs to run samples."""

    def __init__(self, program: "Program") -> None:
        self.program = program
        lowered = program.lowered
        self.arena = Slabs().take(program.arena_bytes)
        base = int(self.arena.ctypes.data)
        self.segments: list[tuple[Array, int] | Ordinary] = []
        self.picture: Array | None = None
        for group in program.segments:
            if isinstance(group, Ordinary):
                self.segments.append(group)
                continue
            records = np.zeros((len(group), program.record_words), np.int64)
            for row, native in zip(records, group, strict=True):
                words = {
                    name: base + value.buffer.offset + value.offset if isinstance(value, Spot) else value
                    for name, value in native.words.items()
                }
                found = native.record.words(function=native.function, chunks=native.chunks, **words)
                row[: len(found)] = found
                if native.record is PICTURE:
                    self.picture = row
            self.segments.append((records, int(records.ctypes.data)))
        # the one segment of a program that is native as a whole
        first = self.segments[0] if program.whole else None
        self._address, self._count = (first[1], len(first[0])) if isinstance(first, tuple) else (0, 0)
        begin = lowered.report.start.buffer.offset
        self._report = self.arena[begin : begin + lowered.report.size]
        self.views = {name: place.view(self.arena) for name, place in lowered.places.items()}
        self.flag_views = {layer: place.view(self.arena) for layer, place in lowered.flags.items()}
        self.event_views = {layer: place.view(self.arena) for layer, place in lowered.events.items()}
        self.sum_views = {layer: place.view(self.arena) for layer, place in lowered.sums.items()}
        self.outcomes: dict[str, Outcome] = {}
        # two counters of each operation, for threads that share a segment
        self._counters = [
            aligned(0 if isinstance(segment, Ordinary) else 2 * COUNTER * len(segment[0])) for segment in self.segments
        ]
        self._run = 0
        self._source = np.zeros(0, np.uint8)

    def execute(self, codes: Array) -> None:
        """Run one sample, codes uint8 (1, ...)."""
        program = self.program
        self._give(codes)
        if program.whole:
            program.run(self._address, self._count, program.record_bytes)
            return
        for segment in self.segments:
            if isinstance(segment, Ordinary):
                self._ordinary(segment.step)
            else:
                program.run(segment[1], len(segment[0]), program.record_bytes)

    def one_by_one(self, codes: Array, done: Callable[[], None]) -> None:
        """Run one sample as `execute` does, but call `done` before the first operation and after each."""
        size = self.program.record_bytes
        self._give(codes)
        done()
        for segment in self.segments:
            if isinstance(segment, Ordinary):
                self._ordinary(segment.step)
                done()
                continue
            for number in range(len(segment[0])):
                self.program.run(segment[1] + number * size, 1, size)
                done()

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Return what ARENA names, of a program in one piece that begins with a picture."""
        assert self.picture is not None
        return self._address, int(self.picture[SOURCE:].ctypes.data), int(self._report.ctypes.data)

    def report(self) -> Array:
        """Return the report of the last sample, uint8 (bytes)."""
        return self._report.copy()

    @property
    def own_flags(self) -> Mapping[str, Flags | None]:
        """Return the flags of the layers that ordinary kernels ran."""
        return {layer: outcome.flags for layer, outcome in self.outcomes.items()} if self.outcomes else NOTHING

    def _give(self, codes: Array) -> None:
        """Say where the sample is; it stays alive until the next."""
        # no copy of what is contiguous
        self._source = np.ascontiguousarray(codes)
        if self.picture is not None:
            self.picture[SOURCE] = self._source.__array_interface__["data"][0]
        else:
            self.views[self.program.plan.graph.input.name][...] = self._source

    def execute_together(self, codes: Array, team: Team) -> None:
        """Run one sample by the threads of a team. What is left to ordinary kernels is done by the caller's."""
        program = self.program
        self._give(codes)
        self._run += 1
        run = self._run
        for segment, counters in zip(self.segments, self._counters, strict=True):
            if isinstance(segment, Ordinary):
                self._ordinary(segment.step)
                continue
            address, operations, at = segment[1], len(segment[0]), counters.ctypes.data

            # the instance in the closure keeps its memory until the last thread has left
            def part(_: "Instance" = self, a: int = address, n: int = operations, c: int = at) -> None:
                program.share(a, n, program.record_bytes, c, run)

            team.together(part)

    def value(self, name: str) -> Array:
        """Return a copy of a tensor, or the constant of that name."""
        if name in self.views:
            return np.array(self.views[name], order="C")
        return self.program.lowered.constants[name]

    def _ordinary(self, step: Step) -> None:
        try:
            inputs = {role: self.value(name) for role, name in step.node.operands.items()}
            outcome = compute(step, inputs)
        except AccumulatorError:
            # a sum of an earlier layer may have left its register, and what followed it means nothing
            refuse(self.program.plan, self._source)
        self.views[step.node.outputs[0]][...] = outcome.output
        self.outcomes[step.node.name] = outcome

    def flags(self) -> dict[str, Flags | None]:
        """Return the flags of every layer."""
        found: dict[str, Flags | None] = {}
        wraps = self.program.wraps
        for layer, view in self.flag_views.items():
            if layer in self.outcomes:
                found[layer] = self.outcomes[layer].flags
            else:
                events = int(self.event_views[layer][0]) if layer in self.event_views else 0
                found[layer] = Flags(0 if wraps else events, events if wraps else 0, *view.tolist())
        return found


class Program:
    """A plan in native code, for any number of samples; `keep` keeps every tensor and accumulator."""

    def __init__(self, plan: Plan, library: Library, *, keep: bool = False) -> None:
        from ..lower.handlers import HANDLERS

        self.plan, self.library = plan, library
        self.lowered: Lowered = lower(plan, library.isa, library.functions, HANDLERS, keep=keep)
        last = len(self.lowered.operations)
        for buffer in self.lowered.buffers:
            buffer.last = min(buffer.last, last)
        self.arena_bytes = allocate(self.lowered.buffers) + SLACK
        natives = [op for op in self.lowered.operations if isinstance(op, Native)]
        self.record_words = max((len(op.record.names) for op in natives), default=2)
        self.record_bytes = WORD * self.record_words
        self.segments: list[list[Native] | Ordinary] = []
        for operation in self.lowered.operations:
            if isinstance(operation, Ordinary):
                self.segments.append(operation)
            elif self.segments and isinstance(self.segments[-1], list):
                self.segments[-1].append(operation)
            else:
                self.segments.append([operation])
        # whether an event of any layer stops the run, and whether events are wraps
        self.stops = self.wraps = False
        match plan.machine.overflow:
            case Overflow.ERROR:
                self.stops = bool(self.lowered.events)
            case Overflow.WRAP:
                self.wraps = True
            case Overflow.SATURATE | Overflow.SATURATE_EACH:
                pass
            case _:
                assert_never(plan.machine.overflow)
        # one native call does it all
        self.whole = len(self.segments) == 1 and isinstance(self.segments[0], list)
        # samples that take turns
        gains = self.lowered.memory.size > FAR_CONSTANTS and self.arena_bytes <= NEAR_ARENA
        self.together = TOGETHER if gains else 1
        self.many = MANY(library.functions["many"])
        self.run, self.share = RUN(library.functions["run"]), SHARE(library.functions["share"])
        self.idle: list[Instance] = []

    def instance(self) -> Instance:
        """Return an instance that no other thread uses; give it back with `release`."""
        try:
            return self.idle.pop()
        except IndexError:
            return Instance(self)

    def release(self, instance: Instance) -> None:
        """Keep an instance for the next sample."""
        self.idle.append(instance)

    def execute_many(self, codes: Array) -> Array:
        """Run samples uint8 (N, ...), contiguous, of a program in one piece; return their reports uint8 (N, bytes)."""
        report = self.lowered.report
        results = np.empty((len(codes), report.size), np.uint8)
        instances = [self.instance() for _ in range(min(len(codes), self.together))]
        try:
            if instances[0].picture is None:
                for index in range(len(codes)):
                    instances[0].execute(codes[index : index + 1])
                    results[index] = instances[0].report()
                return results
            arenas = np.array([instance.addresses for instance in instances], np.int64)
            self.many(
                arenas.ctypes.data,
                len(instances),
                len(self.lowered.operations),
                self.lowered.alone,
                self.record_bytes,
                len(codes),
                codes.ctypes.data,
                codes[0].size,
                report.size,
                results.ctypes.data,
            )
            return results
        finally:
            for instance in instances:
                self.release(instance)

    def check(self, reports: Array, codes: Array) -> None:
        """Raise what the reports of the samples `codes` say is wrong.

        ModelError: a layer met widths for which it has no variant, as no checked graph gives them (B8).
        AccumulatorError: in the first sample of which it is so, a sum did not fit and may not (B1).
        """
        unplanned = self.lowered.report.refused(reports)
        if unplanned:
            refuse_widths(self.plan.graph.node(unplanned[0]), unplanned[1])
        if self.stops:
            events = self.lowered.report.events(reports).any(axis=1)
            if events.any():
                first = int(np.argmax(events))
                refuse(self.plan, codes[first : first + 1])

    def outcomes(self, instance: Instance) -> Iterator[tuple[Step, Outcome]]:
        """Yield every step with what it gave in the last run; only where everything is kept."""
        flags = instance.flags()
        lowered = self.lowered
        for step in self.plan.steps:
            name = step.node.outputs[0]
            accumulator = None
            if step.node.name in instance.outcomes:
                accumulator = instance.outcomes[step.node.name].accumulator
            elif step.node.name in instance.sum_views:
                outputs = step.call.type.shape[1]
                sums = instance.sum_views[step.node.name][:, :outputs]
                accumulator = np.ascontiguousarray(sums.T).reshape(step.call.type.shape)
            output = lowered.constants[name] if name in lowered.constants else instance.value(name)
            yield step, Outcome(output, accumulator, flags.get(step.node.name))
