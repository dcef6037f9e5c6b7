"""The fallback: what has no native form, or no proof for it, is computed by the kernels of the engine `numba`."""

from collections.abc import Mapping

from ...graph.model import Array
from ...ops import Outcome, move
from ...planner import Step


def compute(step: Step, inputs: Mapping[str, Array]) -> Outcome:
    """Return what the kernels of `numba` make of one step's inputs, by role.

    Operators that only move data have one function for every engine. Most plans need no other, and never import Numba.
    """
    if step.operator in move.OPERATORS:
        return step.operator.law(step.call, inputs)
    from ..numba.table import compute as by_kernel

    return by_kernel(step, inputs)
