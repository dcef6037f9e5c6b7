"""Operators that only move data: no arithmetic, hence one function for every engine."""

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ModelError
from ..graph.model import Array, Node
from . import cost
from .operator import Arrays, Call, Operator, Outcome, TensorType, Types

Move = Callable[[Node, Arrays], Array]


def _concat(node: Node, inputs: Arrays) -> Array:
    return np.concatenate(list(inputs.values()), axis=node.integer("axis"))


def _flatten(node: Node, inputs: Arrays) -> Array:
    x = inputs["input"]
    rank, axis = x.ndim, node.integer("axis")
    if not -rank <= axis <= rank:
        raise ValueError("axis")
    axis += rank if axis < 0 else 0
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _gather(node: Node, inputs: Arrays) -> Array:
    return np.take(inputs["data"], inputs["indices"], axis=node.integer("axis"))


def _identity(_node: Node, inputs: Arrays) -> Array:
    return inputs["input"]


def _reshape(node: Node, inputs: Arrays) -> Array:
    data, shape = inputs["data"], [int(size) for size in inputs["shape"]]
    if not node.integer("allowzero"):
        shape = [data.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return data.reshape(shape)


def _slice(_node: Node, inputs: Arrays) -> Array:
    data = inputs["data"]
    index = [slice(None)] * data.ndim
    bounds = (inputs[role].tolist() for role in ("starts", "ends", "axes", "steps"))
    for start, end, axis, step in zip(*bounds, strict=True):
        if step < 1:
            raise ValueError("steps")
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _transpose(node: Node, inputs: Arrays) -> Array:
    return inputs["data"].transpose(node.integers("perm"))


def _operator(name: str, move: Move, moved: Sequence[str] = ()) -> Operator:
    """Return the operator that moves the elements of its inputs `moved`, or of all inputs if none is named."""

    def infer(node: Node, inputs: Types, constants: Arrays) -> TensorType:
        # the move itself, tried on the least and the greatest values, gives the shape and covers every computed index
        try:
            for end in ("low", "high"):
                stand_ins = {
                    role: constants[role] if role in constants else np.full(t.shape, getattr(t, end), t.dtype)
                    for role, t in inputs.items()
                }
                result = move(node, stand_ins)
        except (ValueError, IndexError):
            shapes = ", ".join(str(t.shape) for t in inputs.values())
            raise ModelError(f"{node.title} does not fit its inputs of shapes {shapes}.") from None
        if not result.size:
            raise ModelError(f"{node.title} gives an empty tensor of shape {result.shape}.")
        sources = [inputs[role] for role in moved or inputs]
        return TensorType(result.dtype.name, result.shape, min(t.low for t in sources), max(t.high for t in sources))

    def execute(call: Call, inputs: Arrays) -> Outcome:
        return Outcome(np.asarray(move(call.node, inputs), order="C"))

    return Operator("", name, infer, execute, cost.movement)


OPERATORS = (
    _operator("Concat", _concat),
    _operator("Flatten", _flatten, ["input"]),
    _operator("Gather", _gather, ["data"]),
    _operator("Identity", _identity, ["input"]),
    _operator("Reshape", _reshape, ["data"]),
    _operator("Slice", _slice, ["data"]),
    _operator("Transpose", _transpose, ["data"]),
)
