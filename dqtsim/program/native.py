"""The engine behind `jit`: one sample by one or several threads, or many samples side by side."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..graph.model import BITS, Array, Widths
from ..kernels.vector.build import VARIABLE, choose
from ..kernels.vector.functions import functions
from ..ops import Outcome
from ..planner import Plan, Step
from ..spec.mac import Flags
from .engine import Instance, Library, Program
from .team import Team

# samples of one native call: about so many multiply-accumulates, so that progress is seen and Ctrl-C heard
GROUP_MACS = 400_000_000


@dataclass(frozen=True, eq=False)
class Ran:
    """What one sample gave: the graph's outputs, the widths of each layer by name, the flags."""

    outputs: Mapping[str, Array]
    widths: Mapping[str, Widths]
    flags: Mapping[str, Flags | None]


@dataclass(frozen=True)
class Numbers:
    """The number of each layer, and of those whose events are counted; whether these are wraps."""

    layers: Mapping[str, int]
    counted: Mapping[str, int]
    wraps: bool


class LayerFlags(Mapping[str, Flags | None]):
    """Flags by layer, made when somebody looks: most samples of a batch are never asked.

    numbers: see `Numbers`. row: least and greatest accumulator of each, one after the other. events: how many sums of
    each counted layer did not fit. own: the flags of layers that ordinary kernels ran.
    """

    __slots__ = ("_events", "_numbers", "_own", "_row")

    def __init__(
        self, numbers: Numbers, row: Sequence[int], events: Sequence[int], own: Mapping[str, Flags | None]
    ) -> None:
        self._numbers, self._row, self._events, self._own = numbers, row, events, own

    def __getitem__(self, layer: str) -> Flags | None:
        """Return the flags of a layer."""
        if layer in self._own:
            return self._own[layer]
        numbers = self._numbers
        place = 2 * numbers.layers[layer]
        events = self._events[numbers.counted[layer]] if layer in numbers.counted else 0
        saturations, wraps = (0, events) if numbers.wraps else (events, 0)
        return Flags(saturations, wraps, self._row[place], self._row[place + 1])

    def __iter__(self) -> Iterator[str]:
        """Yield the layers."""
        return iter(self._numbers.layers)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._numbers.layers)

    def __eq__(self, other: object) -> bool:
        """Return whether another mapping says the same."""
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show it as a dictionary."""
        return repr(dict(self.items()))


class Native:
    """A plan ready to run. Any number of threads may use it at once."""

    def __init__(self, plan: Plan, library: Library) -> None:
        self.plan, self.library = plan, library
        self.program = Program(plan, library)
        self._kept: Program | None = None
        self._known = known = self.program.lowered.constants
        report = self.program.lowered.report
        layers, counted = ({layer: k for k, layer in enumerate(names)} for names in (report.layers, report.counted))
        self._numbers = Numbers(layers, counted, self.program.wraps)
        self._names = [value.name for value in plan.graph.outputs if value.name != BITS]
        sources = {step.node.name: step.node.inputs[-1] for step in plan.layer_steps()}
        self._static: dict[str, Widths] = {
            layer: (int(known[name][0]), int(known[name][1])) for layer, name in sources.items() if name in known
        }
        self._chosen = [(layer, 2 * report.chosen.index(name)) for layer, name in sources.items() if name not in known]
        self._macs = max(1, sum(plan.macs.values()))

    @property
    def held_bytes(self) -> int:
        """Return the bytes of all constants and of one arena."""
        return self.program.lowered.memory.size + self.program.arena_bytes

    def execute(self, codes: Array, threads: int = 1) -> Ran:
        """Run one sample, codes uint8 (1, ...), by so many threads together."""
        instance = self.program.instance()
        try:
            if threads > 1:
                instance.execute_together(codes, Team.of(threads))
            else:
                instance.execute(codes)
            return self._reports(instance.report()[None], codes, [instance])[0]
        finally:
            self.program.release(instance)

    def batch(self, codes: Array, threads: int) -> Iterator[Ran]:
        """Yield what each sample of codes uint8 (N, ...) gave, in order; each is one thread's work."""
        samples = np.ascontiguousarray(codes)
        size = max(1, min(-(-len(samples) // threads), GROUP_MACS // self._macs))
        groups = [samples[at : at + size] for at in range(0, len(samples), size)]
        if threads == 1:
            for group in groups:
                yield from self._group(group)
            return
        for ran in _pool(threads).map(self._group, groups):
            yield from ran

    def _group(self, codes: Array) -> list[Ran]:
        instance = self.program.instance()
        try:
            if self.program.whole:
                return self._reports(instance.execute_many(codes), codes, [instance] * len(codes))
            return [self.execute(codes[index : index + 1]) for index in range(len(codes))]
        finally:
            self.program.release(instance)

    def trace(self, codes: Array) -> Iterator[tuple[Step, Outcome]]:
        """Run one sample and yield every step with all that it gave."""
        if self._kept is None:
            self._kept = Program(self.plan, self.library, keep=True)
        instance = self._kept.instance()
        try:
            instance.execute(codes)
            self._kept.check(instance.report()[None], codes)
            yield from self._kept.outcomes(instance)
        finally:
            self._kept.release(instance)

    def _reports(self, reports: Array, codes: Array, instances: "list[Instance]") -> list[Ran]:
        """Return what reports uint8 (N, bytes) say of the samples `codes`."""
        self.program.check(reports, codes)
        report, count = self.program.lowered.report, len(reports)
        tensors = {}
        for name in self._names:
            if name in report.tensors:
                at, place = report.tensors[name]
                tensors[name] = reports[:, at : at + place.size].view(place.dtype).reshape(count, *place.shape)
        extremes = reports[:, : 8 * len(report.layers)].view(np.int32).tolist()
        events = report.events(reports).tolist() if report.counted else [()] * count
        outputs = [(name, tensors[name] if name in tensors else [self._known[name]] * count) for name in self._names]
        widths = report.widths(reports).tolist() if self._chosen else None
        found = []
        for number, row in enumerate(extremes):
            pairs = self._static
            if widths:
                line = widths[number]
                pairs = pairs | {layer: (line[at], line[at + 1]) for layer, at in self._chosen}
            flags = LayerFlags(self._numbers, row, events[number], instances[number].own_flags)
            found.append(Ran({name: arrays[number] for name, arrays in outputs}, pairs, flags))
        return found


def native(plan: Plan) -> Native:
    """Return the engine of a plan for the kernel that this process uses; it is made once.

    Raises InputError where DQTSIM_KERNEL names none that can be used.
    """
    asked = os.environ.get(VARIABLE, "")
    found = plan.engines.get(asked)
    if not isinstance(found, Native):
        isa = choose().isa
        found = Native(plan, Library(isa, functions(isa, plan.machine.rounding)))
        plan.engines[asked] = found
    return found


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
