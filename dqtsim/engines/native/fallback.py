"""The fallback: the kernels of the engine `numba` compute steps without a native form or without a proof."""

from collections.abc import Mapping

from ...graph.model import Array
from ...ops import Outcome, move
from ...planner import Step


def compute(step: Step, inputs: Mapping[str, Array]) -> Outcome:
    """Return the outcome of one step by the kernels of `numba`; `inputs` come by role.

    Operators that only move data have one function for every engine. Most plans need no other fallback and never import
    Numba.
    """
    if step.operator in move.OPERATORS:
        return step.operator.law(step.call, inputs)
    from ..numba.table import compute as by_kernel

    return by_kernel(step, inputs)
