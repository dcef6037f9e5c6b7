"""NestedConv: convolution of nested codes, requantized to master codes (B1-B4)."""

from itertools import product
from typing import assert_never

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Array, Node
from ..spec.rules import TapOrder
from ..spec.window import Window
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


def _window(node: Node, weight_shape: tuple[int, ...]) -> Window:
    top, left, bottom, right = node.integers("pads")
    return Window(
        (weight_shape[2], weight_shape[3]), node.pair("strides"), node.pair("dilations"), (top, left, bottom, right)
    )


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    x, w = inputs["x"], inputs["w"]
    group = node.integer("group")
    if len(x.shape) != 4 or x.shape[0] != 1:
        raise ModelError(f"{node.title} takes an input of shape (1, C, H, W); found {x.shape}.")
    if group < 1 or w.shape[0] % group:
        raise ModelError(f"{node.title} has group {group}, which does not divide its {w.shape[0]} output channels.")
    if min(*node.integers("strides"), *node.integers("dilations")) < 1 or min(node.integers("pads")) < 0:
        raise ModelError(f"{node.title} needs strides and dilations of at least 1 and pads of at least 0.")
    check_rows(node, inputs, group)
    if "padding" in node.form and inputs["padding"].shape != (x.shape[1],):
        raise ModelError(
            f"{node.title} takes 'padding' with one code a channel of its input, {x.shape[1]}; found "
            f"{inputs['padding'].shape[0]}."
        )
    rows, columns = _window(node, w.shape).output_size(x.shape[2], x.shape[3])
    if min(rows, columns) < 1:
        raise ModelError(f"{node.title} has a window larger than its padded input of shape {x.shape}.")
    return TensorType("uint8", (1, w.shape[0], rows, columns), node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    x, w = inputs["x"], inputs["w"]
    node, machine, row = call.node, call.machine, spec_row(call, inputs)
    window = _window(node, w.shape)
    _, outputs, rows, columns = call.type.shape
    channels, height, width = x.shape[1:]
    flat = spec_activations(call, inputs, row, integers(x.reshape(-1)))
    padding = spec_activations(call, inputs, row, integers(inputs["padding"])) if "padding" in node.form else []
    area = height * width
    planes = [[flat[c * area + y * width : c * area + (y + 1) * width] for y in range(height)] for c in range(channels)]
    weights = _spec_weights(call, w, row)
    exponents = spec_exponents(call, inputs, row)
    b, m, s = (integers(inputs[role][row.index]) for role in ("bias", "multiplier", "shift"))
    low, high, zero = node.integer("low"), node.integer("high"), int(inputs["y_zero_point"])
    flags = spec.Flags()
    p = np.empty((1, outputs, rows, columns), np.int64)
    y = np.empty((1, outputs, rows, columns), np.uint8)
    per_group_in, per_group_out = w.shape[1], outputs // node.integer("group")
    for oy, ox in product(range(rows), range(columns)):
        for first in range(0, outputs, per_group_out):
            start = first // per_group_out * per_group_in
            group = slice(start, start + per_group_in)
            taps = spec.gather(planes[group], window, oy, ox, machine.tap_order, padding[group])
            u = spec_column(call, row, taps)
            for o in range(first, first + per_group_out):
                total = spec_dot(call, weights[o], taps, flags, (o, oy, ox))
                p[0, o, oy, ox] = total
                total = spec.add_bias(spec_aligned(total, exponents, u), b[o], machine.bias_width)
                y[0, o, oy, ox] = spec.requantize(total, m[o], s[o], zero, low, high, machine.rounding)
    return Outcome(y, p, flags)


def _spec_weights(call: Call, w: Array, row: Row) -> list[list[int]]:
    """Return the operands of each output channel in the target's tap order."""
    machine = call.machine
    match machine.tap_order:
        case TapOrder.CHANNEL_ROW_COLUMN:
            ordered = w
        case TapOrder.ROW_COLUMN_CHANNEL:
            ordered = w.transpose(0, 2, 3, 1)
        case _:
            assert_never(machine.tap_order)
    return [spec_weights(channel, row.b_w, machine) for channel in integers(ordered.reshape(w.shape[0], -1))]


def _macs(_node: Node, inputs: Types, output: TensorType) -> int:
    _, channels, rows, columns = inputs["w"].shape
    return output.shape[1] * output.shape[2] * output.shape[3] * channels * rows * columns


OPERATORS = (Operator(DOMAIN, "NestedConv", _infer, _spec, cost.nested_layer, _macs),)
