"""NestedRequantize: the same values on another grid (B4)."""

from collections.abc import Sequence

import numpy as np

from .. import spec
from ..graph.model import Array, Node
from ..numbers import of_rounding
from . import cost
from .nested import DOMAIN
from .operator import Call, Operator, Outcome, TensorType, integers


def _infer(node: Node, inputs: Sequence[TensorType], _constants: Sequence[Array | None]) -> TensorType:
    return TensorType("uint8", inputs[0].shape, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Sequence[Array]) -> Outcome:
    z_x, z_y, m, s = (int(x) for x in inputs[1:])
    low, high = call.node.integer("low"), call.node.integer("high")
    codes = integers(inputs[0].reshape(-1))
    y = [spec.requantize(q - z_x, m, s, z_y, low, high, call.machine.rounding) for q in codes]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


def _kernel(call: Call, inputs: Sequence[Array]) -> Outcome:
    from ..engines.numba import requantize

    z_x, z_y, m, s = (int(x) for x in inputs[1:])
    low, high = call.node.integer("low"), call.node.integer("high")
    y = np.empty(inputs[0].size, np.uint8)
    rounding = of_rounding(call.machine.rounding)
    requantize.requantize_codes(inputs[0].reshape(-1), z_x, m, s, z_y, low, high, rounding, y)
    return Outcome(y.reshape(call.type.shape))


OPERATORS = (Operator(DOMAIN, "NestedRequantize", _infer, _spec, _kernel, cost.nested_requantize),)
