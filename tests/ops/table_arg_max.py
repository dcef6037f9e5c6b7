"""ArgMax (B7, B8): the lowest index on a tie."""

from functools import partial

import numpy as np

from dqtsim.graph import Graph
from tests.builders import after_logits, constants, node, plain

from .case import Case

DIAGONAL = [[int(i == j) for j in range(6)] for i in range(6)]


def choice(rows: int = 1, *, axis: int = 1, keepdims: int = 0) -> Graph:
    """Return the argmax of each of `rows` rows of six logits."""
    nodes = [
        node("Reshape", ["scores", "shape"], "table", allowzero=0),
        node("ArgMax", ["table"], "y", axis=axis, keepdims=keepdims, select_last_index=0),
    ]
    return after_logits(DIAGONAL, nodes, (rows, 1) if keepdims else (rows,), arrays=constants(shape=[rows, -1]))


def of_int64(table: list[list[int]]) -> Graph:
    """Return the argmax of constant rows of int64."""
    nodes = [node("ArgMax", ["table"], "y", axis=-1, keepdims=0, select_last_index=0)]
    return plain((1,), nodes, (len(table),), "int64", arrays={"table": np.array(table, np.int64)})


FAR = 1 << 40
OPERATOR = ("", "ArgMax")
CASES = [
    Case("largest", choice, [1, 2, 9, 4, 5, 6], [2]),
    Case("first of a tie", choice, [1, 9, 3, 9, 9, 0], [1]),
    Case("all equal", choice, [128] * 6, [0]),
    Case("last", choice, [0, 0, 0, 0, 0, 1], [5]),
    Case("negative logits", choice, [0, 2, 1, 2, 0, 0], [1]),
    Case("rows", partial(choice, 2), [9, 9, 1, 1, 7, 7], [0, 1]),
    Case("three rows, axis -1", partial(choice, 3, axis=-1), [1, 2, 2, 2, 2, 1], [1, 0, 0]),
    Case("kept dimensions", partial(choice, 2, keepdims=1), [1, 2, 3, 3, 2, 1], [2, 0]),
    Case("int64", partial(of_int64, [[-FAR, FAR, FAR], [-2, -1, -3], [0, -FAR, 0]]), [0], [1, 1, 0]),
]
