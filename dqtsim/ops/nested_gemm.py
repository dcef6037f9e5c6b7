"""NestedGemm and NestedLogits: fully connected layers, requantized (B4) or left as int32 logits (B7)."""

from math import prod

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Array, Node
from ..numbers import CHANNEL_ROW_COLUMN, of_rounding
from . import cost
from .nested import (
    DOMAIN,
    Row,
    accumulator_dtype,
    check_rows,
    clamps_each_product,
    kernel_alignment,
    kernel_register,
    kernel_row,
    kernel_weights,
    saturated,
    spec_dot,
    spec_exponents,
    spec_operands,
    spec_row,
)
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers


def _check(node: Node, inputs: Types) -> None:
    x = inputs["x"].shape
    if len(x) != 2 or x[0] != 1:
        raise ModelError(f"{node.title} takes an input of shape (1, K); found {x}.")
    check_rows(node, inputs, 1)


def _infer_gemm(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    _check(node, inputs)
    return TensorType("uint8", (1, inputs["w"].shape[0]), node.integer("low"), node.integer("high"))


def _infer_logits(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    _check(node, inputs)
    return TensorType("int32", (1, inputs["w"].shape[0]), -(1 << 31), (1 << 31) - 1)


def _spec_sums(call: Call, inputs: Arrays, row: Row) -> tuple[list[int], spec.Flags]:
    """Return P of every output and the flags (B1)."""
    machine, flags = call.machine, spec.Flags()
    taps = spec_operands(integers(inputs["x"][0]), int(inputs["x_zero_point"]), row.b_a, machine, weights=False)
    z_w = spec.master_zero_point_of_weights(machine.n)
    sums = []
    for o, codes in enumerate(integers(inputs["w"])):
        weights = spec_operands(codes, z_w, row.b_w, machine, weights=True)
        sums.append(spec_dot(call, weights, taps, flags, (o,)))
    return sums, flags


def _kernel_sums(call: Call, inputs: Arrays, row: Row) -> tuple[Array, spec.Flags]:
    """Return P (O, 1) and the flags (B1)."""
    from ..engines.numba import mac, nest

    machine, x, w = call.machine, inputs["x"], inputs["w"]
    operands = np.empty(x.size, np.int32)
    table = nest.operand_table(int(inputs["x_zero_point"]), row.b_a, machine.n, machine.activation_rule)
    nest.nest_flat(x.reshape(-1), table, operands)
    weights = kernel_weights(w, row, machine)
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
    sums, flags = kernel_register(call, p, row, ())
    flags.saturations += int(saturations)
    return sums, flags


def _spec_gemm(call: Call, inputs: Arrays) -> Outcome:
    node, machine, row = call.node, call.machine, spec_row(call, inputs["widths"])
    sums, flags = _spec_sums(call, inputs, row)
    e_w, e_a = spec_exponents(machine, row)
    z_y, low, high = int(inputs["y_zero_point"]), node.integer("low"), node.integer("high")
    rows = (integers(inputs[role][row.index]) for role in ("bias", "multiplier", "shift"))
    y = []
    for p, b, m, s in zip(sums, *rows, strict=True):
        total = spec.add_bias(spec.align(p, e_w, e_a), b, machine.bias_width)
        y.append(spec.requantize(total, m, s, z_y, low, high, machine.rounding))
    return Outcome(np.array([y], np.uint8), np.array([sums], np.int64), flags)


def _kernel_gemm(call: Call, inputs: Arrays) -> Outcome:
    from ..engines.numba import requantize

    node, machine, row = call.node, call.machine, kernel_row(call, inputs["widths"])
    sums, flags = _kernel_sums(call, inputs, row)
    y = np.empty(sums.shape, np.uint8)
    requantize.requantize(
        sums,
        kernel_alignment(machine, row),
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


def _spec_logits(call: Call, inputs: Arrays) -> Outcome:
    machine, row = call.machine, spec_row(call, inputs["widths"])
    sums, flags = _spec_sums(call, inputs, row)
    e_w, e_a = spec_exponents(machine, row)
    biases = integers(inputs["bias"][row.index])
    y = [spec.add_bias(spec.align(p, e_w, e_a), b, machine.bias_width) for p, b in zip(sums, biases, strict=True)]
    return Outcome(np.array([y], np.int32), np.array([sums], np.int64), flags)


def _kernel_logits(call: Call, inputs: Arrays) -> Outcome:
    from ..engines.numba import requantize

    machine, row = call.machine, kernel_row(call, inputs["widths"])
    sums, flags = _kernel_sums(call, inputs, row)
    y = np.empty(sums.shape, np.int32)
    requantize.add_bias(sums, kernel_alignment(machine, row), saturated(inputs["bias"][row.index], machine), y)
    return Outcome(y.reshape(1, -1), sums.reshape(1, -1), flags)


def _macs(_node: Node, inputs: Types, _output: TensorType) -> int:
    return prod(inputs["w"].shape)


OPERATORS = (
    Operator(DOMAIN, "NestedGemm", _infer_gemm, _spec_gemm, _kernel_gemm, cost.nested_layer, _macs),
    Operator(DOMAIN, "NestedLogits", _infer_logits, _spec_logits, _kernel_logits, cost.nested_logits, _macs),
)
