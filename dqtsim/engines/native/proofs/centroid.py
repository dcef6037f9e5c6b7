"""Weights that stand for the mean of their codes: what is taken off a sum, and that 32 and 64 bits hold it (B2')."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ....graph.model import Array, Widths
from ....ops import Bound
from ....planner import Step
from . import tables
from .activations import activations_of


@dataclass(frozen=True)
class Halved:
    """The sums of a layer at a pair of widths at which half a master step of every product is taken off.

    A = P * 2^exponent - ((U * 2^exponent_of_codes + 1) >> 1), where U is the sum of the codes of a window less `zeros`.
    bound: the extremes of A.
    """

    exponent: int
    exponent_of_codes: int
    zeros: int
    bound: Bound


def halved(step: Step, pair: Widths, bound: Bound, constants: Mapping[str, Array]) -> Halved | None:
    """Return what is taken off the sums of a layer at a pair of widths, or None if 32 bits might not hold U or H.

    bound: of the register values of P. constants: the layer's constant inputs by role. Every product of a window has a
    code u from 0 to the greatest byte of its input, so U, H and A have extremes. That 32 bits hold A is proven with the
    epilogue; of logits the whole is known to fit.
    """
    machine, activations = step.call.machine, activations_of(step, constants)
    count = prod(constants["w"].shape[1:])
    of_codes = activations.exponent(pair[1])
    exponent = of_codes + tables.dropped(pair[0], machine.n, machine.weight_rule)
    zeta, most = activations.zeta(pair[1]), activations.greatest(pair[1])
    ends = [(count * u << of_codes) + 1 for u in (-zeta, most - zeta)]
    if max(map(abs, [*ends, count * most])) > tables.I32_MOST:
        return None
    least, greatest = (end >> 1 for end in ends)
    found = Bound((bound.lowest << exponent) - greatest, (bound.highest << exponent) - least)
    return Halved(exponent, of_codes, count * zeta, found)
