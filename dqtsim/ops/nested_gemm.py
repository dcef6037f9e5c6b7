"""NestedGemm and NestedLogits: fully connected layers, requantized (B4) or left as int32 logits (B7)."""

from math import prod

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from . import cost
from .nested import (
    DOMAIN,
    Row,
    check_rows,
    spec_activations,
    spec_aligned,
    spec_column,
    spec_dot,
    spec_exponents,
    spec_row,
    spec_weights,
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


def _spec_sums(call: Call, inputs: Arrays, row: Row) -> tuple[list[int], int | None, spec.Flags]:
    """Return P of every output, U of their window if it is asked for, and the flags (B1, B2')."""
    machine, flags = call.machine, spec.Flags()
    taps = spec_activations(call, inputs, row, integers(inputs["x"][0]))
    sums = []
    for o, codes in enumerate(integers(inputs["w"])):
        sums.append(spec_dot(call, spec_weights(codes, row.b_w, machine), taps, flags, (o,)))
    return sums, spec_column(call, row, taps), flags


def _spec_gemm(call: Call, inputs: Arrays) -> Outcome:
    node, machine, row = call.node, call.machine, spec_row(call, inputs)
    sums, u, flags = _spec_sums(call, inputs, row)
    exponents = spec_exponents(call, inputs, row)
    z_y, low, high = int(inputs["y_zero_point"]), node.integer("low"), node.integer("high")
    rows = (integers(inputs[role][row.index]) for role in ("bias", "multiplier", "shift"))
    y = []
    for p, b, m, s in zip(sums, *rows, strict=True):
        total = spec.add_bias(spec_aligned(p, exponents, u), b, machine.bias_width)
        y.append(spec.requantize(total, m, s, z_y, low, high, machine.rounding))
    return Outcome(np.array([y], np.uint8), np.array([sums], np.int64), flags)


def _spec_logits(call: Call, inputs: Arrays) -> Outcome:
    machine, row = call.machine, spec_row(call, inputs)
    sums, u, flags = _spec_sums(call, inputs, row)
    exponents = spec_exponents(call, inputs, row)
    biases = integers(inputs["bias"][row.index])
    y = [spec.add_bias(spec_aligned(p, exponents, u), b, machine.bias_width) for p, b in zip(sums, biases, strict=True)]
    return Outcome(np.array([y], np.int32), np.array([sums], np.int64), flags)


def _macs(_node: Node, inputs: Types, _output: TensorType) -> int:
    return prod(inputs["w"].shape)


OPERATORS = (
    Operator(DOMAIN, "NestedGemm", _infer_gemm, _spec_gemm, cost.nested_layer, _macs),
    Operator(DOMAIN, "NestedLogits", _infer_logits, _spec_logits, cost.nested_logits, _macs),
)
