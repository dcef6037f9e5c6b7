"""NestedAdd: residual addition of two master codes (B5)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from . import cost
from .nested import DOMAIN
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers, scalars
from .primitives import REQUANTIZE_ADD, RESIDUAL_ADD, RESIDUAL_MULTIPLY, Primitive


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


def _watch(_arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    # the third is the addition of the zero point
    return {RESIDUAL_MULTIPLY: 2, RESIDUAL_ADD: 1, REQUANTIZE_ADD: 1}


OPERATORS = (Operator(DOMAIN, "NestedAdd", _infer, _spec, cost.nested_add, watched=((spec.add, _watch),)),)
