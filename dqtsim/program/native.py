"""The engine behind `jit`: one sample by one or several threads, or many samples side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph.model import BITS, Array, Widths
from ..kernels.vector.build import choose
from ..kernels.vector.functions import functions
from ..ops import Outcome
from ..planner import Plan, Step
from ..spec.mac import Flags
from .engine import Instance, Library, Program
from .team import Team


@dataclass(frozen=True, eq=False)
class Ran:
    """What one sample gave: the graph's outputs, the widths of each layer by name, the flags."""

    outputs: Mapping[str, Array]
    widths: Mapping[str, Widths]
    flags: Mapping[str, Flags | None]


class Native:
    """A plan ready to run. Any number of threads may use it at once."""

    def __init__(self, plan: Plan, library: Library) -> None:
        self.plan, self.library = plan, library
        self.program = Program(plan, library)
        self._kept: Program | None = None
        self._names = [value.name for value in plan.graph.outputs if value.name != BITS]
        self._widths = {step.node.name: step.node.inputs[-1] for step in plan.layer_steps()}
        known = self.program.lowered.constants
        self._static = {layer: _pair(known[name]) for layer, name in self._widths.items() if name in known}

    def execute(self, codes: Array, threads: int = 1) -> Ran:
        """Run one sample, codes uint8 (1, ...), by so many threads together."""
        instance = self.program.instance()
        try:
            if threads > 1:
                instance.execute_together(codes, Team.of(threads))
            else:
                instance.execute(codes)
            return self._ran(instance)
        finally:
            self.program.release(instance)

    def trace(self, codes: Array) -> Iterator[tuple[Step, Outcome]]:
        """Run one sample and yield every step with all that it gave."""
        if self._kept is None:
            self._kept = Program(self.plan, self.library, keep=True)
        instance = self._kept.instance()
        try:
            instance.execute(codes)
            yield from self._kept.outcomes(instance)
        finally:
            self._kept.release(instance)

    def _ran(self, instance: Instance) -> Ran:
        widths = {
            layer: self._static[layer] if layer in self._static else _pair(instance.views[name])
            for layer, name in self._widths.items()
        }
        return Ran({name: instance.value(name) for name in self._names}, widths, instance.flags())


def native(plan: Plan) -> Native:
    """Return the engine of a plan for the kernel that this process uses; it is made once.

    Raises InputError where DQTSIM_KERNEL names none that can be used.
    """
    isa = choose().isa
    found = plan.engines.get(isa.name)
    if not isinstance(found, Native):
        found = Native(plan, Library(isa, functions(isa, plan.machine.rounding)))
        plan.engines[isa.name] = found
    return found


def _pair(widths: Array) -> Widths:
    first, second = widths.tolist()
    return first, second


__all__ = ["Native", "Ran", "Sequence", "native", "np"]
