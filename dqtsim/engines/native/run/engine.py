"""The native engine: one sample by one or several threads, or many samples side by side."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple
from weakref import finalize

import numpy as np

from ....graph.model import BITS, Array, Widths
from ....ops import Outcome
from ....planner import Plan, Step
from ....spec.mac import Flags
from ..check import check
from ..compile.build import VARIABLE, choose
from ..compile.functions import Functions
from ..lower.lower import lower
from ..program import Program, Report
from .loaded import NOTHING, Library, Loaded
from .team import Team

# about the number of multiply-accumulates of one native call, so that progress is shown and Ctrl-C works
GROUP_MACS = 400_000_000
# the number of choices of widths whose BitOPs an engine remembers
MOST_SEEN = 4096


class Ran(NamedTuple):
    """The result of one sample: the graph's outputs, the widths of its layers in order, the BitOPs, the flags."""

    outputs: Mapping[str, Array]
    bits: tuple[Widths, ...]
    bitops: int
    flags: Mapping[str, Flags | None]


@dataclass(frozen=True)
class Numbers:
    """The number of each layer, the numbers of layers whose overflows are counted, and whether overflows are wraps."""

    layers: Mapping[str, int]
    counted: Mapping[str, int]
    wraps: bool


class Reports:
    """Reports uint8 (N, bytes) of samples; flags are decoded on demand, because most are never read."""

    __slots__ = ("_counts", "_extremes", "array", "numbers", "report")

    def __init__(self, numbers: Numbers, report: Report, array: Array) -> None:
        self.numbers, self.report, self.array = numbers, report, array
        self._extremes: list[list[int]] | None = None
        self._counts: list[list[int]] | None = None

    def flags(self, sample: int, layer: str) -> Flags:
        """Return the flags of a layer in a sample."""
        numbers = self.numbers
        if self._extremes is None:
            self._extremes = self.array[:, : 8 * len(self.report.layers)].view(np.int32).tolist()
        place = 2 * numbers.layers[layer]
        lowest, highest = self._extremes[sample][place : place + 2]
        count = 0
        if layer in numbers.counted:
            if self._counts is None:
                self._counts = self.report.overflow_counts(self.array).tolist()
            count = self._counts[sample][numbers.counted[layer]]
        return Flags(0 if numbers.wraps else count, count if numbers.wraps else 0, lowest, highest)


class LayerFlags(Mapping[str, Flags | None]):
    """Flags by layer of the sample `sample` of `reports`. own: the flags of layers that fallback kernels ran."""

    __slots__ = ("_own", "_reports", "_sample")

    def __init__(self, reports: Reports, sample: int, own: Mapping[str, Flags | None]) -> None:
        self._reports, self._sample, self._own = reports, sample, own

    def __getitem__(self, layer: str) -> Flags | None:
        """Return the flags of a layer."""
        return self._own[layer] if layer in self._own else self._reports.flags(self._sample, layer)

    def __iter__(self) -> Iterator[str]:
        """Yield the layers."""
        return iter(self._reports.numbers.layers)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._reports.numbers.layers)

    def __eq__(self, other: object) -> bool:
        """Return whether another mapping has the same content."""
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show it as a dictionary."""
        return repr(dict(self.items()))


class Choices:
    """The widths of all layers of `plan` in a report, and their BitOPs.

    known: constant tensors, among them the widths of layers that no controller chooses.
    """

    def __init__(self, plan: Plan, report: Report, known: Mapping[str, Array]) -> None:
        sources = {step.node.name: step.node.operand("widths") for step in plan.layer_steps()}
        layers = list(plan.graph.layers)
        layers += [name for name in sources if name not in layers]
        self._report = report
        self._count = len(plan.graph.layers)
        # int64 (layers, 2), the layers of the graph first, and which of them each tensor of the report gives
        self._widths = np.zeros((len(layers), 2), np.int64)
        self._rows: list[int] = []
        self._columns: list[int] = []
        for row, layer in enumerate(layers):
            if sources[layer] in known:
                self._widths[row] = known[sources[layer]]
            else:
                self._rows.append(row)
                self._columns.append(report.chosen.index(sources[layer]))
        self._macs = [plan.macs.get(layer, 0) for layer in layers]
        self._seen: dict[bytes, tuple[tuple[Widths, ...], int]] = {}

    def of(self, reports: Array) -> list[tuple[tuple[Widths, ...], int]]:
        """Return (widths of the graph's layers, BitOPs) of every report uint8 (N, bytes)."""
        found = []
        for chosen in self._report.widths(reports):
            # a controller often chooses the same widths again; other threads may clear the memory meanwhile
            key = chosen.tobytes()
            known = self._seen.get(key)
            if known is None:
                known = self._of(chosen)
                if len(self._seen) >= MOST_SEEN:
                    self._seen.clear()
                self._seen[key] = known
            found.append(known)
        return found

    def _of(self, chosen: Array) -> tuple[tuple[Widths, ...], int]:
        widths = self._widths.copy()
        widths[self._rows] = chosen.reshape(-1, 2)[self._columns]
        pairs = [(b_w, b_a) for b_w, b_a in widths.tolist()]
        bitops = sum(macs * b_w * b_a for macs, (b_w, b_a) in zip(self._macs, pairs, strict=True))
        return tuple(pairs[: self._count]), bitops


class NativeEngine:
    """A plan ready to run. Any number of threads may use it at once."""

    def __init__(self, plan: Plan, library: Library) -> None:
        self.plan, self.library = plan, library
        self.loaded = self._load(keep=False)
        self._kept: Loaded | None = None
        known = self.loaded.constants
        report = self.program.report
        layers, counted = ({layer: k for k, layer in enumerate(names)} for names in (report.layers, report.counted))
        self._numbers = Numbers(layers, counted, self.loaded.wraps)
        self._names = names = [value.name for value in plan.graph.outputs if value.name != BITS]
        # outputs in a report, and constant outputs
        reported = [(name, *report.tensors[name]) for name in names if name in report.tensors]
        self._reported = [name for name, _, _ in reported]
        self._record = np.dtype(
            {
                "names": self._reported,
                "formats": [(place.dtype, place.shape) for _, _, place in reported],
                "offsets": [at for _, at, _ in reported],
                "itemsize": report.size,
            }
        )
        self._outputs = {name: known[name] for name in names if name not in report.tensors}
        self._choices = Choices(plan, report, known)
        self._macs = max(1, sum(plan.macs.values()))

    def _load(self, *, keep: bool) -> Loaded:
        return Loaded(self.plan, lower(self.plan, self.library.isa, keep=keep), self.library)

    @property
    def program(self) -> Program:
        """Return the program that samples run without an observer."""
        return self.loaded.program

    @property
    def held_bytes(self) -> int:
        """Return the bytes of all constants and of one arena."""
        return self.program.constant_bytes + self.program.arena_bytes

    def free(self) -> None:
        """Let go of idle arenas, which refer to what they were loaded from: their memory is then free at once."""
        for loaded in (self.loaded, self._kept):
            if loaded is not None:
                loaded.idle.clear()

    def execute(self, codes: Array, threads: int = 1) -> Ran:
        """Run one sample, codes uint8 (1, ...), with `threads` threads together."""
        instance = self.loaded.instance()
        try:
            if threads > 1:
                instance.execute_together(codes, Team.of(threads))
            else:
                instance.execute(codes)
            return self._reports(instance.report()[None], codes, instance.own_flags)[0]
        finally:
            self.loaded.release(instance)

    def batch(self, codes: Array, threads: int) -> Iterator[Ran]:
        """Yield the result of each sample of codes uint8 (N, ...), in order; one thread runs a whole sample."""
        samples = np.ascontiguousarray(codes)
        most = max(self.loaded.together, GROUP_MACS // self._macs)
        size = max(1, min(-(-len(samples) // threads), most))
        groups = [samples[at : at + size] for at in range(0, len(samples), size)]
        if threads == 1:
            for group in groups:
                yield from self._group(group)
            return
        for ran in _pool(threads).map(self._group, groups):
            yield from ran

    def _group(self, codes: Array) -> list[Ran]:
        if self.loaded.whole:
            return self._reports(self.loaded.execute_many(codes), codes)
        return [self.execute(codes[index : index + 1]) for index in range(len(codes))]

    def trace(self, codes: Array) -> Iterator[tuple[Step, Outcome]]:
        """Run one sample and yield every step with its outcome."""
        if self._kept is None:
            self._kept = self._load(keep=True)
        instance = self._kept.instance()
        try:
            instance.execute(codes)
            self._kept.check(instance.report()[None], codes)
            yield from self._kept.outcomes(instance)
        finally:
            self._kept.release(instance)

    def _reports(self, reports: Array, codes: Array, own: Mapping[str, Flags | None] = NOTHING) -> list[Ran]:
        """Return the results in reports uint8 (N, bytes) of the samples `codes`; own: flags from fallback kernels."""
        self.loaded.check(reports, codes)
        seen = Reports(self._numbers, self.program.report, reports)
        records = reports.view(self._record)[:, 0]
        columns = [(name, records[name]) for name in self._reported]
        choices = self._choices.of(reports)
        found = []
        for number in range(len(reports)):
            outputs = {name: array[number] for name, array in columns}
            if self._outputs:
                outputs = {name: self._outputs.get(name, outputs.get(name)) for name in self._names}
            found.append(Ran(outputs, *choices[number], LayerFlags(seen, number, own)))
        return found


def program_of(plan: Plan) -> Program:
    """Return the program of a plan for the kernel that this process uses, checked but not loaded.

    Raises InputError where DQTSIM_KERNEL names none that can be used.
    """
    made = lower(plan, choose().isa)
    check(made)
    return made


# the engine of each plan that is alive, by its identity and the kernel asked for; an engine has a copy of its plan, so
# that it keeps no plan alive
_ENGINES: dict[tuple[int, str], "NativeEngine"] = {}


def native(plan: Plan) -> NativeEngine:
    """Return the engine of a plan for the kernel that this process uses; it is made once.

    Raises InputError where DQTSIM_KERNEL names none that can be used.
    """
    asked = os.environ.get(VARIABLE, "")
    found = _ENGINES.get((id(plan), asked))
    if not isinstance(found, NativeEngine):
        isa = choose().isa
        found = NativeEngine(replace(plan), Library(isa, Functions(isa, plan.machine.rounding)))
        _ENGINES[id(plan), asked] = found
        finalize(plan, _forget, (id(plan), asked)).atexit = False
    return found


def _forget(key: tuple[int, str]) -> None:
    engine = _ENGINES.pop(key, None)
    if engine is not None:
        engine.free()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
