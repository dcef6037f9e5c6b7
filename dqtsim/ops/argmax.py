"""ArgMax along the last axis, the lowest index on a tie (B7, B8)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import spec
from ..errors import ModelError
from ..graph.model import Node
from . import cost
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types, integers
from .primitives import COMPARE, Primitive


def _infer(node: Node, inputs: Types, _constants: Arrays) -> TensorType:
    shape = inputs["data"].shape
    if not shape or node.integer("axis") not in (-1, len(shape) - 1) or node.integer("select_last_index"):
        raise ModelError(f"{node.title} takes the last axis and the lowest index on a tie.")
    return TensorType("int64", shape[:-1] + ((1,) if node.integer("keepdims") else ()), 0, shape[-1] - 1)


def _spec(call: Call, inputs: Arrays) -> Outcome:
    x = inputs["data"]
    best = [spec.argmax(row) for row in integers(x.reshape(-1, x.shape[-1]))]
    return Outcome(np.array(best, np.int64).reshape(call.type.shape))


def _watch(arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    return {COMPARE: len(arguments["values"]) - 1}


OPERATORS = (Operator("", "ArgMax", _infer, _spec, cost.argmax, watched=((spec.argmax, _watch),)),)
