"""Operators that only move data: no arithmetic, hence one function for every engine."""

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ModelError
from ..graph.model import Array, Node
from . import cost
from .operator import Call, Operator, Outcome, TensorType

Move = Callable[[Node, Sequence[Array]], Array]


def _concat(node: Node, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis=node.integer("axis"))


def _flatten(node: Node, inputs: Sequence[Array]) -> Array:
    rank, axis = inputs[0].ndim, node.integer("axis")
    if not -rank <= axis <= rank:
        raise ValueError("axis")
    axis += rank if axis < 0 else 0
    return inputs[0].reshape(int(np.prod(inputs[0].shape[:axis])), -1)


def _gather(node: Node, inputs: Sequence[Array]) -> Array:
    return np.take(inputs[0], inputs[1], axis=node.integer("axis"))


def _identity(_node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0]


def _reshape(node: Node, inputs: Sequence[Array]) -> Array:
    shape = [int(size) for size in inputs[1]]
    if not node.integer("allowzero"):
        shape = [inputs[0].shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return inputs[0].reshape(shape)


def _slice(_node: Node, inputs: Sequence[Array]) -> Array:
    index = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(*(x.tolist() for x in inputs[1:]), strict=True):
        if step < 1:
            raise ValueError("steps")
        index[axis] = slice(start, end, step)
    return inputs[0][tuple(index)]


def _transpose(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].transpose(node.integers("perm"))


def _operator(name: str, move: Move) -> Operator:
    def infer(node: Node, inputs: Sequence[TensorType], constants: Sequence[Array | None]) -> TensorType:
        # the move itself, tried on the least and the greatest values, gives the shape and covers every computed index
        try:
            for end in ("low", "high"):
                stand_ins = [
                    constant if constant is not None else np.full(t.shape, getattr(t, end), t.dtype)
                    for t, constant in zip(inputs, constants, strict=True)
                ]
                moved = move(node, stand_ins)
        except (ValueError, IndexError):
            shapes = ", ".join(str(t.shape) for t in inputs)
            raise ModelError(f"{node.title} does not fit its inputs of shapes {shapes}.") from None
        if not moved.size:
            raise ModelError(f"{node.title} gives an empty tensor of shape {moved.shape}.")
        sources = inputs if name == "Concat" else inputs[:1]
        return TensorType(inputs[0].dtype, moved.shape, min(t.low for t in sources), max(t.high for t in sources))

    def execute(call: Call, inputs: Sequence[Array]) -> Outcome:
        return Outcome(np.asarray(move(call.node, inputs), order="C"))

    return Operator("", name, infer, execute, execute, cost.movement)


OPERATORS = tuple(
    _operator(name, move)
    for name, move in (
        ("Concat", _concat),
        ("Flatten", _flatten),
        ("Gather", _gather),
        ("Identity", _identity),
        ("Reshape", _reshape),
        ("Slice", _slice),
        ("Transpose", _transpose),
    )
)
