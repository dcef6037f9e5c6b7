"""What the nested layers share: widths, rows, the register and the way out (A1-A5, B1-B4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import assert_never

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Array, Node
from ..graph.schema import DOMAIN
from ..numbers import of_overflow
from ..spec.rules import Nesting, Overflow
from .operator import Bound, Call, Machine, Types, overflow_error, refuse_widths


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


def spec_row(call: Call, widths: Array) -> Row:
    """Return the widths and the row that they select, by the law (B3')."""
    b_w, b_a = planned(call, widths)
    return Row(b_w, b_a, spec.select_row(b_w, b_a, call.node.integers("row_widths")))


def kernel_row(call: Call, widths: Array) -> Row:
    """Return the widths and the row that they select, as the kernels do."""
    from ..engines.numba import requantize

    b_w, b_a = planned(call, widths)
    return Row(b_w, b_a, requantize.select_row(b_w, b_a, call.node.integers("row_widths")))


def kernel_alignment(machine: Machine, row: Row) -> int:
    """Return e_w + e_a as the kernels do (A5, B2)."""
    from ..engines.numba import nest

    rules = machine.weight_rule, machine.activation_rule
    return sum(nest.exponent(b, machine.n, rule) for b, rule in zip((row.b_w, row.b_a), rules, strict=True))


def spec_exponents(machine: Machine, row: Row) -> tuple[int, int]:
    """Return (e_w, e_a), by the law (A5)."""
    return (
        spec.exponent(row.b_w, machine.n, machine.weight_rule),
        spec.exponent(row.b_a, machine.n, machine.activation_rule),
    )


def spec_operands(codes: Sequence[int], z: int, b: int, machine: Machine, *, weights: bool) -> list[int]:
    """Return the operands of flat master codes, by the law."""
    rule = machine.weight_rule if weights else machine.activation_rule
    return [spec.operand(q, z, b, machine.n, rule) for q in codes]


def spec_dot(call: Call, weights: Sequence[int], taps: Sequence[int], flags: spec.Flags, at: tuple[int, ...]) -> int:
    """Return P of one output (B1); `at` is (output channel, position...) for the sentence of an overflow."""
    machine = call.machine
    try:
        return spec.dot(weights, taps, machine.accumulator_width, machine.overflow, flags)
    except spec.AccumulatorOverflow as error:
        raise overflow_error(call, error.value, at[0], at[1:]) from None


def kernel_register(call: Call, p: Array, row: Row, shape: tuple[int, ...]) -> tuple[Array, spec.Flags]:
    """Narrow the exact sums `p` (O, M) as the register does at the end of a window (ERROR, WRAP, SATURATE).

    Where the plan has proven that no channel can leave the register, nothing is looked at but the extremes.
    """
    from ..engines.numba import mac

    machine = call.machine
    lowest, highest = mac.extremes(p)
    flags = spec.Flags(0, 0, int(lowest), int(highest))
    if clamps_each_product(machine) or not call.bounds[row.b_w, row.b_a].unproven(machine.accumulator_width).size:
        return p, flags
    if p.dtype != np.int64:
        p = p.astype(np.int64)
    # `narrow` stops at the first sum that ERROR refuses, and leaves it as it is
    events, where = mac.narrow(p, machine.accumulator_width, of_overflow(machine.overflow))
    if where >= 0:
        position, channel = divmod(int(where), p.shape[0])
        at = tuple(int(i) for i in np.unravel_index(position, shape)) if shape else ()
        raise overflow_error(call, int(p[channel, position]), channel, at)
    match machine.overflow:
        case Overflow.ERROR:
            pass
        case Overflow.WRAP:
            flags.wraps = int(events)
        case Overflow.SATURATE | Overflow.SATURATE_EACH:
            flags.saturations = int(events)
        case _:
            assert_never(machine.overflow)
    return p, flags


def clamps_each_product(machine: Machine) -> bool:
    """Return whether the register is narrowed after every product, not at the end of a window (B1)."""
    match machine.overflow:
        case Overflow.ERROR | Overflow.WRAP | Overflow.SATURATE:
            return False
        case Overflow.SATURATE_EACH:
            return True
        case _:
            assert_never(machine.overflow)


def accumulator_dtype(bound: Bound) -> type[np.int32] | type[np.int64]:
    """Return the dtype that holds every prefix of the exact sums."""
    return np.int32 if bound.bits <= 32 else np.int64


def kernel_weights(w: Array, row: Row, machine: Machine) -> Array:
    """Return the operands of the master codes `w` as int32 of the same shape."""
    from ..engines.numba import nest

    table = nest.operand_table(1 << (machine.n - 1), row.b_w, machine.n, machine.weight_rule)
    out = np.empty(w.shape, np.int32)
    nest.nest_flat(w.reshape(-1), table, out.reshape(-1))
    return out


def saturated(table: Array, machine: Machine) -> Array:
    """Return a row of biases as the bias register holds it (B3)."""
    half = 1 << (machine.bias_width - 1)
    return np.clip(table, -half, half - 1)


def check_rows(node: Node, inputs: Types, channels: int) -> None:
    """Raise ModelError unless the input has as many channels as the weights read."""
    x, w = inputs["x"].shape, inputs["w"].shape
    expected = w[1] * channels
    if x[1] != expected:
        raise ModelError(
            f"{node.title} reads {expected} input channels by its weights of shape {w}; its input has shape {x}."
        )


def layer_bound(w: Array, z_x: int, low: int, high: int, pair: tuple[int, int], machine: Machine) -> Bound:
    """Return the extremes that sums of a layer can reach at the widths `pair`.

    `w` uint8 (O, ...): master codes; `low`, `high`: range of the input's master codes. Every product is replaced by its
    greatest (or least) value and by 0 where that is further out, which also covers padded taps and every prefix of a
    sum, in any order. The proof uses the operands of the law.
    """
    n = machine.n
    b_w, b_a = pair
    operands = np.array(_weight_operands(b_w, n, machine.weight_rule), np.int64)
    ends = [spec.operand(q, z_x, b_a, n, machine.activation_rule) for q in (low, high)]
    products = np.outer([*ends, 0], operands)
    # one look-up a weight: the extremes of its products depend on its code alone
    codes = w.reshape(w.shape[0], -1)
    return Bound(*(extreme[codes].sum(1, dtype=np.int64) for extreme in (products.min(0), products.max(0))))


@cache
def _weight_operands(b: int, n: int, rule: Nesting) -> tuple[int, ...]:
    """Return the operand of every master code of weights, by the law."""
    z = spec.master_zero_point_of_weights(n)
    return tuple(spec.operand(q, z, b, n, rule) for q in range(1 << n))


__all__ = [
    "DOMAIN",
    "Row",
    "accumulator_dtype",
    "check_rows",
    "clamps_each_product",
    "kernel_alignment",
    "kernel_register",
    "kernel_row",
    "kernel_weights",
    "layer_bound",
    "saturated",
    "spec_dot",
    "spec_exponents",
    "spec_operands",
    "spec_row",
]
