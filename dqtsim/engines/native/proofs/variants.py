"""The constants of a layer at each of its pairs of widths, and whether it may run natively at all (B1-B4, C2)."""

from collections.abc import Iterable, Mapping
from typing import assert_never

import numpy as np

from ....graph.model import Array, Widths
from ....graph.rows import Rows, rows_of
from ....ops import Bound, Machine
from ....planner import Step
from ....spec.rules import Overflow
from ..emit.choice import ELSEWHERE, NONE, WIDTHS
from . import tables
from .activations import activations_of

Variants = Mapping[Widths, "tables.Scaling | int"]


def choices(planned: Iterable[Widths], variants: Iterable[Widths]) -> Array:
    """Return uint8 (9, 9): the number of the variant for each pair of widths, the table of the kernels.

    planned: all pairs of the layer; another operation of the layer serves those that `variants` lacks.
    """
    table = np.full((WIDTHS, WIDTHS), NONE, np.uint8)
    for b_w, b_a in planned:
        table[b_w, b_a] = ELSEWHERE
    for number, (b_w, b_a) in enumerate(variants):
        table[b_w, b_a] = number
    return table


def can_overflow(step: Step) -> bool:
    """Return whether some sum of a layer could leave its register, at any of its widths."""
    width = step.call.machine.accumulator_width
    return any(bound.unproven(width).size for bound in step.call.bounds.values())


def is_native(step: Step) -> bool:
    """Return whether 32 bits hold all exact sums of a layer, and operations know its rule."""
    machine = step.call.machine
    if any(tables.is_below_middle(b_w, machine.n, machine.weight_rule) for b_w, _ in step.call.bounds):
        return False
    return all(bound.bits <= 32 for bound in step.call.bounds.values())


def variants_of(step: Step, constants: Mapping[str, Array]) -> Variants | None:
    """Return for each pair of widths its epilogue (for logits the exponent), or None if a proof is missing.

    constants: by role, those among the step's inputs.
    """
    node, machine = step.node, step.call.machine
    if not is_native(step):
        return None
    activations = activations_of(step, constants)
    found: dict[Widths, tables.Scaling | int] = {}
    for pair, bound in step.call.bounds.items():
        exponent = tables.dropped(pair[0], machine.n, machine.weight_rule)
        exponent += activations.exponent(pair[1])
        if "multiplier" not in node.operands:
            found[pair] = exponent
            continue
        row = row_index(rows_of(node, constants), pair)
        bias, m, s, zero = (constants[role] for role in ("bias", "multiplier", "shift", "y_zero_point"))
        limited = bias_register(bias[row], machine.bias_width)
        reach = registered(bound, machine)
        scale = tables.scaling(reach, limited, m[row], s[row], exponent, int(zero), machine.rounding)
        if scale is None:
            return None
        found[pair] = scale
    return found


def registered(bound: Bound, machine: Machine) -> Bound:
    """Return the extremes of the register value for exact sums within `bound`.

    A sum that wraps can give any register value. After an ERROR the result is discarded, so any value in range will do,
    and a limit is used. A register that clamps after each product (SATURATE_EACH) has, since it was last at a limit,
    added only products that `bound` includes.
    """
    lost = bound.unproven(machine.accumulator_width)
    half = 1 << (machine.accumulator_width - 1)
    lowest, highest = np.maximum(bound.lowest, -half), np.minimum(bound.highest, half - 1)
    match machine.overflow:
        case Overflow.ERROR | Overflow.SATURATE | Overflow.SATURATE_EACH:
            pass
        case Overflow.WRAP:
            lowest[lost], highest[lost] = -half, half - 1
        case _:
            assert_never(machine.overflow)
    return Bound(lowest, highest)


def clamps_products(step: Step) -> bool:
    """Return whether some register of a layer has to be clamped product by product (SATURATE_EACH)."""
    overflow = step.call.machine.overflow
    match overflow:
        case Overflow.ERROR | Overflow.WRAP | Overflow.SATURATE:
            return False
        case Overflow.SATURATE_EACH:
            return can_overflow(step)
        case _:
            assert_never(overflow)


def row_index(rows: Rows, pair: Widths) -> int:
    """Return the row of (B, M, S) that serves a pair of widths.

    The first that is wide enough, else the last (B3'); where rows belong to pairs, before these its own (B3'').
    """
    if not rows.pairs:
        return min(int(np.searchsorted(rows.widths, min(pair))), len(rows.widths) - 1)
    missing = np.array(pair) - np.array(rows.pairs)
    for found in ((missing == 0).all(1), (missing <= 0).all(1)):
        if found.any():
            return int(found.argmax())
    return len(rows.pairs) - 1


def bias_register(bias: Array, width: int) -> Array:
    """Return biases as a register of `width` bits holds them (B3)."""
    most = (1 << (width - 1)) - 1
    return np.minimum(np.maximum(bias, -most - 1), most)
