"""NestedConv, NestedGemm and NestedLogits by the kernels: exact sums, the register, the epilogue (A1-B4, B7)."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from ...graph.model import Array
from ...graph.rows import rows_of, window_of
from ...graph.schema import DOMAIN
from ...numbers import CHANNEL_ROW_COLUMN, of_overflow, of_rounding, of_tap_order
from ...ops import Arrays, Bound, Call, Execute, Machine, Outcome, overflow_error
from ...ops.nested import Row, clamps_each_product, planned
from ...spec.mac import Flags
from ...spec.rules import Overflow
from . import mac, nest, requantize


def row_of(call: Call, inputs: Arrays) -> Row:
    """Return the widths and the row that they select, as the kernels do."""
    b_w, b_a = planned(call, inputs["widths"])
    rows = rows_of(call.node, inputs)
    if rows.pairs:
        return Row(b_w, b_a, requantize.select_pair_row(b_w, b_a, rows.pairs))
    return Row(b_w, b_a, requantize.select_row(b_w, b_a, rows.widths))


def alignment(call: Call, inputs: Arrays, row: Row) -> int:
    """Return e_w + e_a as the kernels do (A5, A6, B2)."""
    machine, lower = call.machine, window_of(call.node, inputs, row.b_a)
    e_w = nest.exponent(row.b_w, machine.n, machine.weight_rule)
    return e_w + nest.exponent(row.b_a, machine.n, machine.activation_rule) - lower


def aligned(call: Call, inputs: Arrays, row: Row, sums: Array, u: Array | None) -> tuple[Array, int]:
    """Return sums (O, M) and the exponent that makes them A; with U (groups, M) they are A already (B2, B2')."""
    exponent = alignment(call, inputs, row)
    if u is None:
        return sums, exponent
    e_a = exponent - nest.exponent(row.b_w, call.machine.n, call.machine.weight_rule)
    return requantize.less_half(sums, exponent, u, e_a), 0


def activation_table(call: Call, inputs: Arrays, row: Row) -> Array:
    """Return the operand int32 [2^n] of every master code that the layer reads (A5, A6)."""
    machine, z, lower = call.machine, int(inputs["x_zero_point"]), window_of(call.node, inputs, row.b_a)
    if lower:
        return nest.window_table(z, row.b_a, lower, machine.n, machine.activation_rule)
    return nest.operand_table(z, row.b_a, machine.n, machine.activation_rule)


def register(call: Call, p: Array, row: Row, shape: tuple[int, ...]) -> tuple[Array, Flags]:
    """Narrow the exact sums `p` (O, M) as the register does at the end of a window (ERROR, WRAP, SATURATE).

    If the plan has proven that no channel can leave the register, only the extremes are computed.
    """
    machine = call.machine
    lowest, highest = mac.extremes(p)
    flags = Flags(0, 0, int(lowest), int(highest))
    if clamps_each_product(machine) or not call.bounds[row.b_w, row.b_a].unproven(machine.accumulator_width).size:
        return p, flags
    if p.dtype != np.int64:
        p = p.astype(np.int64)
    # `narrow` stops at the first sum that ERROR refuses, and does not change it
    overflows, where = mac.narrow(p, machine.accumulator_width, of_overflow(machine.overflow))
    if where >= 0:
        position, channel = divmod(int(where), p.shape[0])
        at = tuple(int(i) for i in np.unravel_index(position, shape)) if shape else ()
        raise overflow_error(call, int(p[channel, position]), channel, at)
    match machine.overflow:
        case Overflow.ERROR:
            pass
        case Overflow.WRAP:
            flags.wraps = int(overflows)
        case Overflow.SATURATE | Overflow.SATURATE_EACH:
            flags.saturations = int(overflows)
        case _:
            assert_never(machine.overflow)
    return p, flags


def accumulator_dtype(bound: Bound) -> type[np.int32] | type[np.int64]:
    """Return the dtype that holds every prefix of the exact sums."""
    return np.int32 if bound.bits <= 32 else np.int64


def weight_operands(w: Array, row: Row, machine: Machine) -> Array:
    """Return the operands of the master codes `w` as int32 of the same shape."""
    table = nest.operand_table(1 << (machine.n - 1), row.b_w, machine.n, machine.weight_rule)
    out = np.empty(w.shape, np.int32)
    nest.nest_flat(w.reshape(-1), table, out.reshape(-1))
    return out


def saturated(table: Array, machine: Machine) -> Array:
    """Return a row of biases as the bias register holds it (B3)."""
    half = 1 << (machine.bias_width - 1)
    return np.clip(table, -half, half - 1)


def conv(call: Call, inputs: Arrays) -> Outcome:
    """Return NestedConv: sums, the register, codes (B1-B4)."""
    x, w = inputs["x"], inputs["w"]
    node, machine, row = call.node, call.machine, row_of(call, inputs)
    _, outputs, rows, columns = call.type.shape
    top, left, bottom, right = node.integers("pads")
    channels, height, width = x.shape[1:]
    operands = np.zeros((channels, height + top + bottom, width + left + right), np.int32)
    table = activation_table(call, inputs, row)
    if "padding" in node.form:
        operands[:] = table[inputs["padding"]].reshape(-1, 1, 1)
    nest.nest_planes(x[0], table, top, left, operands)
    weights = weight_operands(w, row, machine)
    bound = call.bounds[row.b_w, row.b_a]
    geometry = (node.pair("strides"), node.pair("dilations"), node.integer("group"))
    p = np.zeros((outputs, rows, columns), accumulator_dtype(bound))
    mac.conv(operands, weights, *geometry, p)
    saturations = 0
    unproven = bound.unproven(machine.accumulator_width)
    if clamps_each_product(machine) and unproven.size:
        p = p.astype(np.int64)
        saturations = mac.conv_saturate_each(
            operands, weights, *geometry, of_tap_order(machine.tap_order), machine.accumulator_width, unproven, p
        )
    sums, flags = register(call, p.reshape(outputs, -1), row, (rows, columns))
    flags.saturations += int(saturations)
    u: Array | None = None
    if nest.is_below_middle(row.b_w, machine.n, machine.weight_rule):
        u = np.zeros((node.integer("group"), rows, columns), np.int64)
        mac.column(operands, weights, *geometry, u)
        u = u.reshape(len(u), -1)
    y = np.empty((1, outputs, rows, columns), np.uint8)
    requantize.requantize(
        *aligned(call, inputs, row, sums, u),
        saturated(inputs["bias"][row.index], machine),
        inputs["multiplier"][row.index],
        inputs["shift"][row.index],
        int(inputs["y_zero_point"]),
        node.integer("low"),
        node.integer("high"),
        of_rounding(machine.rounding),
        y.reshape(outputs, -1),
    )
    return Outcome(y, sums.reshape(1, outputs, rows, columns), flags)


def _sums(call: Call, inputs: Arrays, row: Row) -> tuple[Array, Array | None, Flags]:
    """Return P (O, 1), U (1, 1) if it is asked for, and the flags (B1, B2')."""
    machine, x, w = call.machine, inputs["x"], inputs["w"]
    operands = np.empty(x.size, np.int32)
    table = activation_table(call, inputs, row)
    nest.nest_flat(x.reshape(-1), table, operands)
    weights = weight_operands(w, row, machine)
    bound = call.bounds[row.b_w, row.b_a]
    p = np.zeros((w.shape[0], 1), accumulator_dtype(bound))
    mac.gemm(operands, weights, p)
    saturations = 0
    unproven = bound.unproven(machine.accumulator_width)
    if clamps_each_product(machine) and unproven.size:
        # a fully connected layer is the convolution of a 1 x 1 picture; both tap orders are the same
        wide = p.astype(np.int64).reshape(-1, 1, 1)
        saturations = mac.conv_saturate_each(
            operands.reshape(-1, 1, 1),
            weights.reshape(*w.shape, 1, 1),
            (1, 1),
            (1, 1),
            1,
            CHANNEL_ROW_COLUMN,
            machine.accumulator_width,
            unproven,
            wide,
        )
        p = wide.reshape(-1, 1)
    sums, flags = register(call, p, row, ())
    flags.saturations += int(saturations)
    below = nest.is_below_middle(row.b_w, machine.n, machine.weight_rule)
    return sums, operands.sum(dtype=np.int64).reshape(1, 1) if below else None, flags


def gemm(call: Call, inputs: Arrays) -> Outcome:
    """Return NestedGemm: sums, the register, codes (B1-B4)."""
    node, machine, row = call.node, call.machine, row_of(call, inputs)
    sums, u, flags = _sums(call, inputs, row)
    y = np.empty(sums.shape, np.uint8)
    requantize.requantize(
        *aligned(call, inputs, row, sums, u),
        saturated(inputs["bias"][row.index], machine),
        inputs["multiplier"][row.index],
        inputs["shift"][row.index],
        int(inputs["y_zero_point"]),
        node.integer("low"),
        node.integer("high"),
        of_rounding(machine.rounding),
        y,
    )
    return Outcome(y.reshape(1, -1), sums.reshape(1, -1), flags)


def logits(call: Call, inputs: Arrays) -> Outcome:
    """Return NestedLogits: sums, the register, int32 A + B (B7)."""
    machine, row = call.machine, row_of(call, inputs)
    sums, u, flags = _sums(call, inputs, row)
    y = np.empty(sums.shape, np.int32)
    requantize.add_bias(*aligned(call, inputs, row, sums, u), saturated(inputs["bias"][row.index], machine), y)
    return Outcome(y.reshape(1, -1), sums.reshape(1, -1), flags)


KERNELS: Mapping[tuple[str, str], Execute] = {
    (DOMAIN, "NestedConv"): conv,
    (DOMAIN, "NestedGemm"): gemm,
    (DOMAIN, "NestedLogits"): logits,
}
