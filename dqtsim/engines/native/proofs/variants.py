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
from .centroid import Halved, halved

Variants = Mapping[Widths, "tables.Scaling | int"]
Halves = Mapping[Widths, "tuple[Halved, tables.Scaling | int]"]


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
    """Return whether 32 bits hold all exact sums of a layer."""
    return all(bound.bits <= 32 for bound in step.call.bounds.values())


def variants_of(step: Step, constants: Mapping[str, Array]) -> Variants | None:
    """Return for each pair of widths its epilogue (for logits the exponent), or None if a proof is missing.

    constants: by role, those among the step's inputs. Where half a master step is taken off every product, the codes
    of this epilogue are overwritten; see `halves_of`.
    """
    machine = step.call.machine
    if not is_native(step):
        return None
    activations = activations_of(step, constants)
    found: dict[Widths, tables.Scaling | int] = {}
    for pair, bound in step.call.bounds.items():
        exponent = tables.dropped(pair[0], machine.n, machine.weight_rule) + activations.exponent(pair[1])
        made = _epilogue(step, pair, registered(bound, machine), exponent, constants)
        if tables.is_below_middle(pair[0], machine.n, machine.weight_rule):
            made = _overwritten(step)
        if made is None:
            return None
        found[pair] = made
    return None if halves_of(step, constants) is None else found


def has_halves(step: Step) -> bool:
    """Return whether half a master step is taken off the products of a layer, at any of its widths."""
    machine = step.call.machine
    return any(tables.is_below_middle(b_w, machine.n, machine.weight_rule) for b_w, _ in step.call.bounds)


def halves_of(step: Step, constants: Mapping[str, Array]) -> Halves | None:
    """Return what is taken off the sums, and the epilogue of what is left, or None if a proof is missing (B2').

    Only for the pairs of widths at which weights stand for the mean of their codes.
    """
    machine = step.call.machine
    found = {}
    for pair, bound in step.call.bounds.items():
        if tables.is_below_middle(pair[0], machine.n, machine.weight_rule):
            taken = halved(step, pair, registered(bound, machine), constants)
            made = None if taken is None else _epilogue(step, pair, taken.bound, 0, constants)
            if taken is None or made is None:
                return None
            found[pair] = (taken, made)
    return found


def _epilogue(
    step: Step, pair: Widths, bound: Bound, exponent: int, constants: Mapping[str, Array]
) -> "tables.Scaling | int | None":
    """Return the epilogue of sums within `bound`, for logits the exponent, or None if a proof is missing."""
    if "multiplier" not in step.node.operands:
        return exponent
    machine = step.call.machine
    row = row_index(rows_of(step.node, constants), pair)
    bias, m, s, zero = (constants[role] for role in ("bias", "multiplier", "shift", "y_zero_point"))
    limited = bias_register(bias[row], machine.bias_width)
    return tables.scaling(bound, limited, m[row], s[row], exponent, int(zero), machine.rounding)


def _overwritten(step: Step) -> "tables.Scaling | int":
    """Return an epilogue that gives one code for all sums."""
    if "multiplier" not in step.node.operands:
        return 0
    nothing = np.zeros(step.call.type.shape[1], np.int64)
    return tables.Scaling(nothing.astype(np.int32), nothing, nothing)


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
