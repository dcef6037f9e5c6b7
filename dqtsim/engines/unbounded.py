"""The refusal of engines with unbounded accumulators: plans that need anything else."""

from ..errors import TargetError
from ..planner import Plan


def refuse_narrowing(plan: Plan, subject: str, exact: int) -> None:
    """Raise TargetError unless an unbounded accumulator gives the bits of the plan's target.

    `subject` begins the sentence; `exact` is the width in bits of the engine's own additions.
    """
    graph, machine = plan.graph, plan.machine
    if machine.rounding != graph.arithmetic.rounding:
        raise TargetError(
            f"{subject} round {graph.arithmetic.rounding}; target '{machine.target}' rounds {machine.rounding}."
        )
    for step in plan.layer_steps():
        name = step.node.name
        for pair, bound in step.call.bounds.items():
            if bound.unproven(min(machine.accumulator_width, exact)).size:
                raise TargetError(
                    f"{subject} never overflow; layer '{name}' at widths {pair} may "
                    f"need {bound.bits} bits, and target '{machine.target}' has {machine.accumulator_width}."
                )
        if plan.saturated_biases[name]:
            raise TargetError(
                f"{subject} never saturate; layer '{name}' has "
                f"{plan.saturated_biases[name]} biases outside the {machine.bias_width}-bit bias register of target "
                f"'{machine.target}'."
            )
