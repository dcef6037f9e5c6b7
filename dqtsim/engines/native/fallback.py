"""The fallback: what has no native form, or no proof for it, is computed by the kernels of the engine `numba`."""

from collections.abc import Mapping

from ...graph.model import Array
from ...ops import Outcome
from ...planner import Step


def compute(step: Step, inputs: Mapping[str, Array]) -> Outcome:
    """Return what the kernels of `numba` make of one step's inputs, by role. Most plans never need them imported."""
    from ..numba.table import compute as by_kernel

    return by_kernel(step, inputs)
