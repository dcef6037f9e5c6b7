"""NestedTable: any function of one code, as a table of all its results (B9, B9')."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..errors import ModelError
from ..graph.model import Node, Widths
from ..graph.schema import DOMAIN
from ..spec.table import look_up
from .operator import Arrays, Call, Machine, Operator, Outcome, TensorType, Types, integers
from .primitives import Cost, Operation, Primitive, Size

LOOK_UP = Primitive("table_look_ups", "memory", Operation.READ, (Size.CODE,))


def _infer(node: Node, inputs: Types, constants: Arrays) -> TensorType:
    x, table = inputs["x"], constants["table"]
    if "channels" in node.form and (len(x.shape) < 2 or x.shape[:2] != (1, len(table))):
        raise ModelError(
            f"{node.title} has a table for each of {len(table)} channels, so it takes an input of shape "
            f"(1, {len(table)}, …); found {x.shape}."
        )
    # only the table entries that a code in the input's range can reach
    reached = table[..., x.low : x.high + 1]
    return TensorType("uint8", x.shape, int(reached.min()), int(reached.max()))


def _spec(call: Call, inputs: Arrays) -> Outcome:
    x, table = inputs["x"], integers(inputs["table"])
    if "channels" in call.node.form:
        y = [look_up(own, q) for own, codes in zip(table, x[0], strict=True) for q in integers(codes.reshape(-1))]
    else:
        y = [look_up(table, q) for q in integers(x.reshape(-1))]
    return Outcome(np.array(y, np.uint8).reshape(call.type.shape))


def _cost(
    _node: Node, _inputs: Types, _constants: Arrays, output: TensorType, _machine: Machine, _widths: Widths
) -> Cost:
    cost = Cost()
    cost.primitives[LOOK_UP] = prod(output.shape)
    return cost


def _watch(_arguments: Mapping[str, Any]) -> Mapping[Primitive, int]:
    return {LOOK_UP: 1}


OPERATORS = (Operator(DOMAIN, "NestedTable", _infer, _spec, _cost, watched=((look_up, _watch),)),)
