"""Step by step: a plan executed with one function an operator. This loop decides nothing and computes nothing."""

from collections.abc import Callable, Mapping, Sequence

from ..graph.model import Array
from ..ops import Outcome
from ..planner import Plan, Step
from ..spec.mac import Flags
from .result import Execute, Observer, Result, summarize

Compute = Callable[[Step, Mapping[str, Array]], Outcome]


def step_by_step(plan: Plan, compute: Compute) -> Execute:
    """Return the engine that gives each step of `plan` and its inputs to `compute`."""

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
        flags: dict[str, Flags | None] = {}
        for step in plan.steps:
            outcome = compute(step, step.node.operands_in(values))
            values[step.node.outputs[0]] = outcome.output
            if outcome.flags is not None:
                flags[step.node.name] = outcome.flags
            for observer in observers:
                observer(step, outcome)
        return summarize(plan, values, flags)

    return execute
