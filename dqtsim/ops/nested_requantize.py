"""NestedRequantize: the same values on another grid (B4)."""

import numpy as np

from .. import spec
from ..graph.model import Node
from . import cost
from .nested import DOMAIN
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers, scalars


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    return TensorType("uint8", inputs["x"].shape, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    z_x, z_y, m, s = scalars(inputs, "x_zero_point", "y_zero_point", "multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    codes = integers(inputs["x"].reshape(-1))
    y = [spec.requantize(q - z_x, m, s, z_y, low, high, call.machine.rounding) for q in codes]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


OPERATORS = (Operator(DOMAIN, "NestedRequantize", _infer, _spec, cost.nested_requantize),)
