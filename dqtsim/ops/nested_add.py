"""NestedAdd: residual addition of two master codes (B5)."""

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from . import cost
from .nested import DOMAIN
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers, scalars


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    a, b = inputs["a"].shape, inputs["b"].shape
    if a != b:
        raise ModelError(f"{node.title} adds tensors of one shape; found {a} and {b}.")
    return TensorType("uint8", a, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    a, b = (integers(inputs[role].reshape(-1)) for role in "ab")
    z_a, z_b, z_y = scalars(inputs, "a_zero_point", "b_zero_point", "y_zero_point")
    m_a, m_b, s = scalars(inputs, "a_multiplier", "b_multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    rounding = call.machine.rounding
    y = [spec.add(q_a, z_a, m_a, q_b, z_b, m_b, s, z_y, low, high, rounding) for q_a, q_b in zip(a, b, strict=True)]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


OPERATORS = (Operator(DOMAIN, "NestedAdd", _infer, _spec, cost.nested_add),)
