"""NestedMultiply: the product of two master codes (B10)."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..errors import ModelError
from ..graph.model import Node, Widths
from ..graph.schema import DOMAIN
from ..spec.multiply import multiply
from . import cost
from .operator import Arrays, Call, Machine, Operator, Outcome, TensorType, Types, integers, scalars
from .primitives import Cost, Operation, Primitive, Size

CODE_MULTIPLY = Primitive("code_multiplies", "requantize", Operation.MULTIPLY, (Size.CODE, Size.CODE))


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    a, b = inputs["a"].shape, inputs["b"].shape
    per_channel = len(a) == 4 and b == (1, a[1], 1, 1)
    if a != b and not per_channel:
        raise ModelError(
            f"{node.title} multiplies tensors of one shape, or codes (1, C, H, W) by one code per channel, "
            f"(1, C, 1, 1); found {a} and {b}."
        )
    return TensorType("uint8", a, node.integer("low"), node.integer("high"))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    a = integers(inputs["a"].reshape(-1))
    # a code per channel stands at every pixel of its channel
    b = integers(np.broadcast_to(inputs["b"], call.type.shape).reshape(-1))
    z_a, z_b, z_y, m, s = scalars(inputs, "a_zero_point", "b_zero_point", "y_zero_point", "multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    rounding = call.machine.rounding
    y = [multiply(q_a, z_a, q_b, z_b, m, s, z_y, low, high, rounding) for q_a, q_b in zip(a, b, strict=True)]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


def _cost(node: Node, inputs: Types, constants: Arrays, output: TensorType, machine: Machine, widths: Widths) -> Cost:
    found = cost.nested_requantize(node, inputs, constants, output, machine, widths)
    found.primitives[CODE_MULTIPLY] = prod(output.shape)
    return found


def _watch(_arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    # the law multiplies by M and rounds in functions that are counted themselves
    return {CODE_MULTIPLY: 1}


OPERATORS = (Operator(DOMAIN, "NestedMultiply", _infer, _spec, _cost, watched=((multiply, _watch),)),)
