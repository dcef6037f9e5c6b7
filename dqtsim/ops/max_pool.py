"""MaxPool on codes (B6)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from ..spec.window import Window
from . import cost
from .nested_average_pool import inside, pool_window, pooled_shape
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers
from .primitives import COMPARE, Primitive


def max_pool_window(node: Node) -> Window:
    """Return the geometry of a maximum pool."""
    return pool_window(node, node.pair("dilations"))


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    for name, only in (("ceil_mode", 0), ("storage_order", 0), ("auto_pad", "NOTSET")):
        if node.attributes[name] != only:
            raise ModelError(f"{node.title} supports only {name} {only}; found {node.attributes[name]}.")
    if len(node.integers("kernel_shape")) != 2:
        raise ModelError(f"{node.title} takes 'kernel_shape' with 2 entries; found {node.integers('kernel_shape')}.")
    x = inputs["x"]
    return TensorType("uint8", pooled_shape(node, x, max_pool_window(node)), x.low, x.high)


def _spec(call: Call, inputs: Arrays) -> Outcome:
    window = max_pool_window(call.node)
    _, _, rows, columns = call.type.shape
    y = np.empty(call.type.shape, np.uint8)
    for c, plane in enumerate(integers(inputs["x"][0])):
        for oy in range(rows):
            for ox in range(columns):
                y[0, c, oy, ox] = spec.max_pool(inside(plane, window, oy, ox))
    return Outcome(y)


def _watch(arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    return {COMPARE: len(arguments["window"]) - 1}


OPERATORS = (Operator("", "MaxPool", _infer, _spec, cost.max_pool, watched=((spec.max_pool, _watch),)),)
