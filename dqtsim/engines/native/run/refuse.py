"""Finding the sum that left its register under the policy ERROR: native operations only count overflows (B1)."""

from typing import NoReturn

from ....graph.model import Array
from ....planner import Plan
from ..fallback import compute


def refuse(plan: Plan, codes: Array) -> NoReturn:
    """Run a sample uint8 (1, ...), in which a sum does not fit, step by step, and raise its AccumulatorError."""
    values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
    for step in plan.steps:
        inputs = step.node.operands_in(values)
        values[step.node.outputs[0]] = compute(step, inputs).output
    raise AssertionError("the native operations counted a sum that fits")
