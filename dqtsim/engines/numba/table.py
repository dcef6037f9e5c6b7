"""The engine `numba`: which kernel computes which operator, and a plan step by step.

Each file says which operators its functions compute. Operators that only move data have one function for every engine,
in their file in `ops`.
"""

from collections.abc import Mapping

from ...graph.model import Array
from ...ops import Execute as Kernel
from ...ops import Outcome, move
from ...planner import Plan, Step
from ..result import Execute
from ..steps import step_by_step
from . import codes, layers

KERNELS: Mapping[tuple[str, str], Kernel] = {
    **layers.KERNELS,
    **codes.KERNELS,
    **{(operator.domain, operator.name): operator.law for operator in move.OPERATORS},
}


def compute(step: Step, inputs: Mapping[str, Array]) -> Outcome:
    """Return the outcome of one step by the kernels; `inputs` come by role."""
    return KERNELS[step.node.domain, step.node.operator](step.call, inputs)


def numba_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`."""
    return step_by_step(plan, compute)
