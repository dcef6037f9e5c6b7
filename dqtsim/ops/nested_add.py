"""NestedAdd: residual addition of two master codes (B5)."""

from collections.abc import Sequence

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Array, Node
from ..numbers import of_rounding
from . import cost
from .nested import DOMAIN
from .operator import Call, Operator, Outcome, TensorType, integers


def _infer(node: Node, inputs: Sequence[TensorType], _constants: Sequence[Array | None]) -> TensorType:
    if inputs[0].shape != inputs[1].shape:
        raise ModelError(f"{node.title} adds tensors of one shape; found {inputs[0].shape} and {inputs[1].shape}.")
    return TensorType("uint8", inputs[0].shape, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Sequence[Array]) -> Outcome:
    a, b = (integers(x.reshape(-1)) for x in inputs[:2])
    z_a, z_b, z_y, m_a, m_b, s = (int(x) for x in inputs[2:])
    low, high = call.node.integer("low"), call.node.integer("high")
    rounding = call.machine.rounding
    y = [spec.add(q_a, z_a, m_a, q_b, z_b, m_b, s, z_y, low, high, rounding) for q_a, q_b in zip(a, b, strict=True)]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


def _kernel(call: Call, inputs: Sequence[Array]) -> Outcome:
    from ..engines.numba import add

    a, b = (x.reshape(-1) for x in inputs[:2])
    z_a, z_b, z_y, m_a, m_b, s = (int(x) for x in inputs[2:])
    low, high = call.node.integer("low"), call.node.integer("high")
    y = np.empty(a.size, np.uint8)
    add.add(a, b, (z_a, z_b, z_y), (m_a, m_b), s, low, high, of_rounding(call.machine.rounding), y)
    return Outcome(y.reshape(call.type.shape))


OPERATORS = (Operator(DOMAIN, "NestedAdd", _infer, _spec, _kernel, cost.nested_add),)
