"""NestedAveragePool: window sums of master codes, requantized by a multiplier that carries 1/area (B6, B6')."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from ..spec.window import Window
from . import cost
from .nested import DOMAIN
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers, scalars
from .primitives import POOL_ADD, Primitive


def pool_window(node: Node, dilations: tuple[int, int] = (1, 1)) -> Window:
    """Return the geometry of a pool."""
    top, left, bottom, right = node.integers("pads")
    return Window(node.pair("kernel_shape"), node.pair("strides"), dilations, (top, left, bottom, right))


def pooled_shape(node: Node, x: TensorType, window: Window) -> tuple[int, ...]:
    """Return the output shape of a pool. Raises ModelError if the window does not fit its input."""
    if len(x.shape) != 4 or x.shape[0] != 1:
        raise ModelError(f"{node.title} takes an input of shape (1, C, H, W); found {x.shape}.")
    if min(*window.kernel, *window.strides, *window.dilations) < 1 or min(window.pads) < 0:
        raise ModelError(f"{node.title} needs kernel, strides and dilations of at least 1 and pads of at least 0.")
    if any(pad >= window.kernel[i % 2] for i, pad in enumerate(window.pads)):
        raise ModelError(f"{node.title} has pads {window.pads}, which must be smaller than its kernel {window.kernel}.")
    rows, columns = window.output_size(x.shape[2], x.shape[3])
    if min(rows, columns) < 1:
        raise ModelError(f"{node.title} has a window larger than its padded input of shape {x.shape}.")
    if not (_sees(window, 0, rows, x.shape[2]) and _sees(window, 1, columns, x.shape[3])):
        raise ModelError(f"{node.title} has a window that sees nothing but padding of its input of shape {x.shape}.")
    return (*x.shape[:2], rows, columns)


def _sees(window: Window, axis: int, outputs: int, size: int) -> bool:
    """Return whether every output has a tap inside the picture along `axis`; dilation can step over it."""
    stride, pad = window.strides[axis], window.pads[axis]
    steps = [k * window.dilations[axis] for k in range(window.kernel[axis])]
    return all(any(0 <= o * stride - pad + step < size for step in steps) for o in range(outputs))


def inside(planes: Sequence[Sequence[int]], window: Window, oy: int, ox: int) -> list[int]:
    """Return the codes of one plane under a window, without padded taps."""
    height, width = len(planes), len(planes[0])
    return [planes[y][x] for y, x in window.positions(oy, ox) if 0 <= y < height and 0 <= x < width]


def _infer(node: Node, inputs: Types, constants: Arrays) -> TensorType:
    if len(node.integers("kernel_shape")) != 2:
        raise ModelError(f"{node.title} takes 'kernel_shape' with 2 entries; found {node.integers('kernel_shape')}.")
    shape = pooled_shape(node, inputs["x"], pool_window(node))
    found = constants["multiplier"].shape
    if "positions" in node.form and found != shape[2:]:
        raise ModelError(
            f"{node.title} takes 'multiplier' with one entry per position of its output, shape {shape[2:]}; "
            f"found {found}."
        )
    return TensorType("uint8", shape, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    z_x, z_y, s = scalars(inputs, "x_zero_point", "y_zero_point", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    window = pool_window(call.node)
    _, _, rows, columns = call.type.shape
    # one for all positions stands at each of them
    multipliers = integers(np.broadcast_to(inputs["multiplier"], (rows, columns)))
    y = np.empty(call.type.shape, np.uint8)
    for c, plane in enumerate(integers(inputs["x"][0])):
        for oy in range(rows):
            for ox in range(columns):
                codes, m = inside(plane, window, oy, ox), multipliers[oy][ox]
                y[0, c, oy, ox] = spec.average_pool(codes, z_x, m, s, z_y, low, high, call.machine.rounding)
    return Outcome(y)


def _watch(arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    return {POOL_ADD: len(arguments["window"])}


OPERATORS = (
    Operator(DOMAIN, "NestedAveragePool", _infer, _spec, cost.average_pool, watched=((spec.average_pool, _watch),)),
)
