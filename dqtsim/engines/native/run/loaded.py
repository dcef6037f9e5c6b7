"""Running a program: addresses for its constants and functions, an arena and records for each thread, results."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from ....errors import AccumulatorError
from ....graph.model import Array
from ....ops import Outcome, refuse_widths
from ....planner import Plan, Step
from ....spec.mac import Flags
from ....spec.rules import Overflow
from ..check import check
from ..emit.schedule import COUNTER
from ..fallback import compute
from ..ir import WORD
from ..isa.base import Isa
from ..memory import ALIGNMENT, SLACK, Constant, Function, Place, Slabs, Spot, Table, Word, aligned
from ..operations import GIVEN, RECORDS, words_of
from ..program import Fallback, Operation, Program
from .refuse import refuse
from .team import Team

RUN = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
MANY = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)
SHARE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


# the number of samples of a batch that read weights together, if the constants exceed the cache and several arenas fit
# in it: constants of more than FAR_CONSTANTS bytes, an arena of at most NEAR_ARENA bytes
TOGETHER = 4
FAR_CONSTANTS = 1 << 20
NEAR_ARENA = 512 << 10
PICTURE = "picture"
SOURCE = len(GIVEN) + words_of(PICTURE).index("source")
NOTHING: Mapping[str, Flags | None] = {}


@dataclass(frozen=True)
class Library:
    """Native functions: their addresses by name, and the instruction set and rounding for which they were made."""

    isa: Isa
    functions: Mapping[str, int]


class Addresses:
    """The addresses of a program's constants and functions in this process. They live as long as this object.

    Bytes that kernels can read in place are not copied, unless `slabs` is given, which then takes all of them.
    """

    def __init__(self, program: Program, functions: Mapping[str, int], slabs: Slabs | None = None) -> None:
        self.functions = functions
        own = slabs or Slabs()
        self.memory: list[Array] = []
        for piece in program.constants:
            if isinstance(piece, Table):
                self.memory.append(own.take(piece.nbytes + SLACK)[: piece.nbytes])
            else:
                there = slabs is None and readable(piece.array)
                self.memory.append(piece.array if there else own.copy(piece.array))
        self.starts = [int(array.ctypes.data) for array in self.memory]
        for piece, array in zip(program.constants, self.memory, strict=True):
            if isinstance(piece, Table):
                array.view(np.int64)[:] = [self.of(word) for word in piece.words]

    def of(self, word: Word) -> int:
        """Return the value of a table's field in this process."""
        match word:
            case int():
                return word
            case Constant(number, offset):
                return self.starts[number] + offset
            case Function(name):
                return self.functions[name]
            case None:
                return 0
            case Spot():
                raise ValueError("every arena has addresses of its own, which no constant can hold")
            case _:
                assert_never(word)

    def record(self, program: Program, operation: Operation, base: int) -> list[int]:
        """Return the values of an operation's record for an arena at the address `base`."""
        words = {
            name: base + program.at(word) if isinstance(word, Spot) else self.of(word)
            for name, word in operation.words.items()
        }
        function = self.functions[operation.function]
        return RECORDS[operation.function].words(function=function, chunks=operation.chunks, **words)


def readable(array: Array) -> bool:
    """Return whether kernels can read uint8 in place: aligned, with SLACK bytes of the same memory after it."""
    start = int(array.ctypes.data)
    if start % ALIGNMENT or not isinstance(array.base, np.ndarray):
        return False
    return start + array.nbytes + SLACK <= int(array.base.ctypes.data) + array.base.nbytes


class Instance:
    """One arena with the records that point into it, for one thread that runs samples."""

    def __init__(self, loaded: "Loaded", slabs: Slabs | None = None) -> None:
        self.loaded = loaded
        program = loaded.program
        self.arena = (slabs or Slabs()).take(program.arena_bytes)
        base = int(self.arena.ctypes.data)
        self.segments: list[tuple[Array, int] | Fallback] = []
        self.picture: Array | None = None
        for group in loaded.segments:
            if isinstance(group, Fallback):
                self.segments.append(group)
                continue
            records = np.zeros((len(group), program.record_words), np.int64)
            for row, operation in zip(records, group, strict=True):
                found = loaded.addresses.record(program, operation, base)
                row[: len(found)] = found
                if operation.function == PICTURE:
                    self.picture = row
            self.segments.append((records, int(records.ctypes.data)))
        # the only segment, if the whole program is native
        first = self.segments[0] if loaded.whole else None
        self._address, self._count = (first[1], len(first[0])) if isinstance(first, tuple) else (0, 0)
        begin = program.at(program.report.start)
        self._report = self.arena[begin : begin + program.report.size]
        self.views, self.flag_views, self.overflow_views, self.sum_views = (
            {name: self._view(place) for name, place in places.items()}
            for places in (program.places, program.flags, program.overflow_counts, program.sums)
        )
        self.outcomes: dict[str, Outcome] = {}
        # two counters for each operation, for threads that share a segment
        self._counters = [
            aligned(0 if isinstance(segment, Fallback) else 2 * COUNTER * len(segment[0])) for segment in self.segments
        ]
        self._run = 0
        self._source = np.zeros(0, np.uint8)

    def _view(self, place: Place) -> Array:
        assert isinstance(place.start, Spot)
        return place.view(self.arena[self.loaded.program.at(place.start) :])

    def execute(self, codes: Array) -> None:
        """Run one sample, codes uint8 (1, ...)."""
        loaded = self.loaded
        self._give(codes)
        if loaded.whole:
            loaded.run(self._address, self._count, loaded.record_bytes)
            return
        for segment in self.segments:
            if isinstance(segment, Fallback):
                self._fallback(segment)
            else:
                loaded.run(segment[1], len(segment[0]), loaded.record_bytes)

    def one_by_one(self, codes: Array, done: Callable[[], None]) -> None:
        """Run one sample as `execute` does, but call `done` before the first operation and after each."""
        size = self.loaded.record_bytes
        self._give(codes)
        done()
        for segment in self.segments:
            if isinstance(segment, Fallback):
                self._fallback(segment)
                done()
                continue
            for number in range(len(segment[0])):
                self.loaded.run(segment[1] + number * size, 1, size)
                done()

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Return the fields of ARENA, for a program of one segment that begins with a picture."""
        assert self.picture is not None
        return self._address, int(self.picture[SOURCE:].ctypes.data), int(self._report.ctypes.data)

    def report(self) -> Array:
        """Return the report of the last sample, uint8 (bytes)."""
        return self._report.copy()

    @property
    def own_flags(self) -> Mapping[str, Flags | None]:
        """Return the flags of the layers that fallback kernels ran."""
        return {layer: outcome.flags for layer, outcome in self.outcomes.items()} if self.outcomes else NOTHING

    def _give(self, codes: Array) -> None:
        """Set the address of the sample, which is kept alive until the next one."""
        # contiguous codes are not copied
        self._source = np.ascontiguousarray(codes)
        if self.picture is not None:
            self.picture[SOURCE] = self._source.__array_interface__["data"][0]
        else:
            self.views[self.loaded.plan.graph.input.name][...] = self._source

    def execute_together(self, codes: Array, team: Team) -> None:
        """Run one sample with the threads of a team. The caller's thread runs the fallback kernels."""
        loaded = self.loaded
        self._give(codes)
        self._run += 1
        run = self._run
        for segment, counters in zip(self.segments, self._counters, strict=True):
            if isinstance(segment, Fallback):
                self._fallback(segment)
                continue
            address, operations, at = segment[1], len(segment[0]), counters.ctypes.data

            # the closure keeps the instance, and so its memory, alive until the last thread has left
            def part(_: "Instance" = self, a: int = address, n: int = operations, c: int = at) -> None:
                loaded.share(a, n, loaded.record_bytes, c, run)

            team.together(part)

    def value(self, name: str) -> Array:
        """Return a copy of a tensor, or the constant of that name."""
        if name in self.views:
            return np.array(self.views[name], order="C")
        return self.loaded.constants[name]

    def _fallback(self, operation: Fallback) -> None:
        step = self.loaded.steps[operation.step]
        try:
            outcome = compute(step, {role: self.value(name) for role, name in step.node.operands.items()})
        except AccumulatorError:
            # a sum of an earlier layer may have left its register, and all later values are then wrong
            refuse(self.loaded.plan, self._source)
        self.views[operation.output][...] = outcome.output
        self.outcomes[operation.step] = outcome

    def flags(self) -> dict[str, Flags | None]:
        """Return the flags of every layer."""
        found: dict[str, Flags | None] = {}
        wraps = self.loaded.wraps
        for layer, view in self.flag_views.items():
            if layer in self.outcomes:
                found[layer] = self.outcomes[layer].flags
            else:
                count = int(self.overflow_views[layer][0]) if layer in self.overflow_views else 0
                found[layer] = Flags(0 if wraps else count, count if wraps else 0, *view.tolist())
        return found


class Loaded:
    """A program of a plan in the memory of this process, for any number of samples.

    Raises ProgramError if the program would access memory that is not its own.
    """

    def __init__(self, plan: Plan, program: Program, library: Library, slabs: Slabs | None = None) -> None:
        assert (program.isa, program.rounding) == (library.isa.name, plan.machine.rounding)
        check(program)
        self.plan, self.program = plan, program
        self.addresses = Addresses(program, library.functions, slabs)
        self.steps = {step.node.name: step for step in plan.steps}
        # constant tensors
        self.constants: Mapping[str, Array] = {**plan.graph.initializers, **program.folded}
        self.segments, self.whole = program.segments, program.whole
        self.record_bytes = WORD * program.record_words
        # whether an overflow stops the run, and whether overflows are wraps
        self.stops = self.wraps = False
        match plan.machine.overflow:
            case Overflow.ERROR:
                self.stops = bool(program.overflow_counts)
            case Overflow.WRAP:
                self.wraps = True
            case Overflow.SATURATE | Overflow.SATURATE_EACH:
                pass
            case _:
                assert_never(plan.machine.overflow)
        # samples that are run together
        gains = program.constant_bytes > FAR_CONSTANTS and program.arena_bytes <= NEAR_ARENA
        self.together, self.alone = TOGETHER if gains else 1, program.alone
        functions = library.functions
        self.many = MANY(functions["many"])
        self.run, self.share = RUN(functions["run"]), SHARE(functions["share"])
        self.idle: list[Instance] = []

    def instance(self) -> Instance:
        """Return an instance for this thread alone; return it with `release`."""
        try:
            return self.idle.pop()
        except IndexError:
            return Instance(self)

    def release(self, instance: Instance) -> None:
        """Keep an instance for the next sample."""
        self.idle.append(instance)

    def execute_many(self, codes: Array) -> Array:
        """Run samples uint8 (N, ...), contiguous, with a program of one segment; return reports uint8 (N, bytes)."""
        report = self.program.report
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
                len(self.program.operations),
                self.alone,
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
        """Raise the error, if any, that the reports of the samples `codes` state.

        ModelError: a layer got widths for which it has no variant, which a checked graph never gives (B8).
        AccumulatorError: a sum did not fit under the policy ERROR; for the first such sample (B1).
        """
        unplanned = self.program.report.refused(reports)
        if unplanned:
            refuse_widths(self.plan.graph.node(unplanned[0]), unplanned[1])
        if self.stops:
            overflows = self.program.report.overflow_counts(reports).any(axis=1)
            if overflows.any():
                first = int(np.argmax(overflows))
                refuse(self.plan, codes[first : first + 1])

    def outcomes(self, instance: Instance) -> Iterator[tuple[Step, Outcome]]:
        """Yield every step with its outcome in the last run; only for a program that keeps everything."""
        flags = instance.flags()
        for step in self.plan.steps:
            name = step.node.outputs[0]
            accumulator = None
            if step.node.name in instance.outcomes:
                accumulator = instance.outcomes[step.node.name].accumulator
            elif step.node.name in instance.sum_views:
                outputs = step.call.type.shape[1]
                sums = instance.sum_views[step.node.name][:, :outputs]
                accumulator = np.ascontiguousarray(sums.T).reshape(step.call.type.shape)
            output = self.constants[name] if name in self.constants else instance.value(name)
            yield step, Outcome(output, accumulator, flags.get(step.node.name))
