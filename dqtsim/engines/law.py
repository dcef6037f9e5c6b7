"""The engine `spec`: every step by the law itself, on Python integers."""

from collections.abc import Mapping

from ..graph.model import Array
from ..ops import Outcome
from ..planner import Plan, Step
from .result import Execute
from .steps import step_by_step


def law_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`."""
    return step_by_step(plan, compute)


def compute(step: Step, inputs: Mapping[str, Array]) -> Outcome:
    """Return the outcome of one step by the law, from its inputs."""
    return step.operator.law(step.call, inputs)
