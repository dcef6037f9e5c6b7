"""What the nested layers share: widths, rows, the law of their sums, and the bounds of these sums (A1-A5, B1-B4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import assert_never

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Array, Node
from ..graph.rows import rows_of, window_of
from ..graph.schema import DOMAIN
from ..spec.rules import Nesting, Overflow
from .operator import Arrays, Bound, Call, Machine, Types, overflow_error, refuse_widths


@dataclass(frozen=True)
class Row:
    """The widths of one execution and the row of (B, M, S) that they select; the tables are Python ints or arrays."""

    b_w: int
    b_a: int
    index: int


def planned(call: Call, widths: Array) -> tuple[int, int]:
    """Return the two widths. Raises ModelError for a pair that the plan has not proven."""
    pair = int(widths[0]), int(widths[1])
    if pair not in call.bounds:
        refuse_widths(call.node, pair)
    return pair


def spec_row(call: Call, inputs: Arrays) -> Row:
    """Return the widths and the row that they select, by the law (B3', B3'')."""
    b_w, b_a = planned(call, inputs["widths"])
    rows = rows_of(call.node, inputs)
    if rows.pairs:
        return Row(b_w, b_a, spec.select_pair_row(b_w, b_a, rows.pairs))
    return Row(b_w, b_a, spec.select_row(b_w, b_a, rows.widths))


def spec_exponents(call: Call, inputs: Arrays, row: Row) -> tuple[int, int]:
    """Return (e_w, e_a), by the law (A5, A6)."""
    machine = call.machine
    lower = window_of(call.node, inputs, row.b_a)
    return (
        spec.exponent(row.b_w, machine.n, machine.weight_rule),
        spec.exponent(row.b_a + lower, machine.n, machine.activation_rule),
    )


def spec_weights(codes: Sequence[int], b: int, machine: Machine) -> list[int]:
    """Return the operands of flat master codes of weights, by the law (A5)."""
    z = spec.master_zero_point_of_weights(machine.n)
    return [spec.operand(q, z, b, machine.n, machine.weight_rule) for q in codes]


def spec_activations(call: Call, inputs: Arrays, row: Row, codes: Sequence[int]) -> list[int]:
    """Return the operands of flat master codes that a layer reads, or of its padding codes, by the law (A5, A6)."""
    machine, z = call.machine, int(inputs["x_zero_point"])
    if "windows" not in call.node.form:
        return [spec.operand(q, z, row.b_a, machine.n, machine.activation_rule) for q in codes]
    lower = window_of(call.node, inputs, row.b_a)
    return [spec.window_operand(q, z, row.b_a, lower, machine.n, machine.activation_rule) for q in codes]


def spec_dot(call: Call, weights: Sequence[int], taps: Sequence[int], flags: spec.Flags, at: tuple[int, ...]) -> int:
    """Return P of one output (B1); `at` is (output channel, position...) for the sentence of an overflow."""
    machine = call.machine
    try:
        return spec.dot(weights, taps, machine.accumulator_width, machine.overflow, flags)
    except spec.AccumulatorOverflow as error:
        raise overflow_error(call, error.value, at[0], at[1:]) from None


def spec_aligned(p: int, exponents: tuple[int, int], u: int | None) -> int:
    """Return A of one output from P and, where the half is taken off, from U of its window, by the law (B2, B2')."""
    aligned = spec.align(p, *exponents)
    return aligned if u is None else spec.take_half(aligned, u, exponents[1])


def spec_column(call: Call, row: Row, taps: Sequence[int]) -> int | None:
    """Return U of one window of a group, by the law; None where its half is not taken off (B2')."""
    return spec.add_up(taps) if spec.takes_half(row.b_w, call.machine.n, call.machine.weight_rule) else None


def clamps_each_product(machine: Machine) -> bool:
    """Return whether the register is narrowed after every product, not at the end of a window (B1)."""
    match machine.overflow:
        case Overflow.ERROR | Overflow.WRAP | Overflow.SATURATE:
            return False
        case Overflow.SATURATE_EACH:
            return True
        case _:
            assert_never(machine.overflow)


def check_rows(node: Node, inputs: Types, channels: int) -> None:
    """Raise ModelError unless the input has the number of channels that the weights expect."""
    x, w = inputs["x"].shape, inputs["w"].shape
    expected = w[1] * channels
    if x[1] != expected:
        raise ModelError(
            f"{node.title} reads {expected} input channels by its weights of shape {w}; its input has shape {x}."
        )


def layer_bound(node: Node, constants: Arrays, low: int, high: int, machine: Machine, pair: tuple[int, int]) -> Bound:
    """Return the extremes that sums of a layer can reach at the widths `pair`.

    `constants`: its inputs by role, among them `w` uint8 (O, ...): master codes; `low`, `high`: range of the input's
    master codes. For the upper bound every product is replaced by its greatest value or by 0, whichever is larger; for
    the lower bound by its least value or by 0. This also covers padded taps, with their codes if they have any (B1'),
    and every prefix of a sum in any order. The proof uses the operands of the law, which rise with the code.
    """
    n, (b_w, b_a) = machine.n, pair
    z_x, lower = int(constants["x_zero_point"]), window_of(node, constants, b_a)
    padding = constants["padding"].tolist() if "padding" in node.form else [low]
    operands = np.array(_weight_operands(b_w, n, machine.weight_rule), np.int64)
    codes = constants["w"].reshape(constants["w"].shape[0], -1)
    # one look-up a weight: the extremes of its products depend on its code, and on its channel where that has padding
    kinds, kind = np.unique(padding, return_inverse=True)
    ends = [
        [*(spec.window_operand(q, z_x, b_a, lower, n, machine.activation_rule) for q in (low, high, p)), 0]
        for p in kinds.tolist()
    ]
    products = np.array(ends)[:, :, None] * operands
    which = _kind_of_each_weight(node, constants["w"], kind) if "padding" in node.form else 0
    return Bound(*(extreme[which, codes].sum(1, dtype=np.int64) for extreme in (products.min(1), products.max(1))))


def _kind_of_each_weight(node: Node, w: Array, kind: Array) -> Array:
    """Return for each weight of a convolution, int64 (O, taps), the entry of `kind` (C) of its input channel."""
    group = node.integer("group")
    by_group = np.repeat(kind.reshape(group, 1, -1), np.prod(w.shape[2:]), axis=2)
    return np.repeat(by_group, w.shape[0] // group, axis=1).reshape(w.shape[0], -1)


@cache
def _weight_operands(b: int, n: int, rule: Nesting) -> tuple[int, ...]:
    """Return the operand of every master code of weights, by the law."""
    z = spec.master_zero_point_of_weights(n)
    return tuple(spec.operand(q, z, b, n, rule) for q in range(1 << n))


__all__ = [
    "DOMAIN",
    "Row",
    "check_rows",
    "clamps_each_product",
    "layer_bound",
    "planned",
    "spec_activations",
    "spec_aligned",
    "spec_column",
    "spec_dot",
    "spec_exponents",
    "spec_row",
    "spec_weights",
]
