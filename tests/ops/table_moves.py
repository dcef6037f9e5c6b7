"""The operators that only move data, with the attributes that ONNX gives them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dqtsim.graph import Graph
from tests.builders import constants, node, plain

from .case import Case

SIX = [[[1, 2, 3], [4, 5, 6]]]
BOX = [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]]


def move(
    operator: str,
    shape: Sequence[int],
    result: Sequence[int],
    *,
    inputs: Sequence[str] = ("x",),
    arrays: dict[str, Any] | None = None,
    **attributes: Any,
) -> Graph:
    """Return a graph of one operator on codes of `shape`; `arrays` are its int64 constants, in order."""
    arrays = arrays or {}
    return plain(shape, [node(operator, [*inputs, *arrays], "y", **attributes)], result, arrays=constants(**arrays))


def sliced(
    starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int], result: Sequence[int]
) -> Graph:
    return move("Slice", (1, 2, 3), result, arrays={"starts": starts, "ends": ends, "axes": axes, "steps": steps})


def one_code() -> Graph:
    """Return the graph that picks one code as a tensor without axes."""
    nodes = [node("Reshape", ["x", "to"], "line", allowzero=0), node("Gather", ["line", "i"], "y", axis=0)]
    return plain((1, 2, 3), nodes, (), arrays=constants(to=[-1], i=4))


def bordered(shape: Sequence[int], axis: int, size: int) -> Graph:
    """Return a graph that joins 'x' (2, 1, 3), its upper half cut off, and a constant of code 9, `size` wide."""
    plane = np.full([size if number == axis else n for number, n in enumerate((1, 1, 1, 3))], 9, np.uint8)
    cut = constants(starts=[1], ends=[2], axes=[1], steps=[1])
    nodes = [node("Slice", ["x", *cut], "half"), node("Concat", ["plane", "half", "plane"], "y", axis=axis)]
    return plain((2, 1, 3), nodes, shape, arrays={**cut, "plane": plane})


def reordered(shape: Sequence[int], apart: Sequence[int], perm: Sequence[int], result: Sequence[int]) -> Graph:
    """Return the graph that takes axes apart, exchanges them and joins them."""
    nodes = [
        node("Reshape", ["x", "apart"], "apart.x", allowzero=0),
        node("Transpose", ["apart.x"], "turned", perm=tuple(perm)),
        node("Reshape", ["turned", "joined"], "y", allowzero=0),
    ]
    return plain(shape, nodes, result, arrays=constants(apart=apart, joined=[0, *result[1:]]))


FOUR = [[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]]
# 4 channels of 1 x 2 pixels become one of 2 x 4, and 4 channels change places in two groups
deeper = partial(reordered, (4, 1, 2), (0, 1, 2, 2, 1, 2), (0, 1, 4, 2, 5, 3), (1, 1, 2, 4))
shuffled = partial(reordered, (4, 1, 2), (1, 2, 2, 1, 2), (0, 2, 1, 3, 4), (1, 4, 1, 2))
flat = partial(move, "Flatten", (2, 3, 2))
gather = partial(move, "Gather", (1, 2, 3))
reshape = partial(move, "Reshape", (1, 2, 3))
transpose = partial(move, "Transpose", (1, 2, 3))
concat = partial(move, "Concat", (1, 2, 3), inputs=("x", "x"))
FAR = (1 << 62) + 1
TWELVE = [*range(1, 13)]
TABLES: dict[str, list[Case]] = {
    "Concat": [
        Case("channels", partial(concat, (1, 2, 2, 3), axis=1), SIX, [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]),
        Case("rows", partial(concat, (1, 1, 4, 3), axis=2), SIX, [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]),
        Case("columns", partial(concat, (1, 1, 2, 6), axis=-1), SIX, [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]),
        Case("a constant above and below", partial(bordered, (1, 1, 3, 3), 2, 1), [[[1, 2, 3]], [[4, 5, 6]]],
             [9, 9, 9, 4, 5, 6, 9, 9, 9]),
        Case("a constant on both sides", partial(bordered, (1, 1, 1, 5), 3, 1), [[[1, 2, 3]], [[4, 5, 6]]],
             [9, 4, 5, 6, 9]),
        Case("constant channels", partial(bordered, (1, 5, 1, 3), 1, 2), [[[1, 2, 3]], [[4, 5, 6]]],
             [9] * 6 + [4, 5, 6] + [9] * 6),
        Case("one part", partial(concat, (1, 1, 2, 3), axis=3, inputs=("x",)), SIX, [1, 2, 3, 4, 5, 6]),
    ],
    "Flatten": [
        *(
            Case(f"axis {axis}", partial(flat, shape, axis=axis), BOX, TWELVE)
            for axis, shape in (
                (1, (1, 12)),
                (0, (1, 12)),
                (2, (2, 6)),
                (3, (6, 2)),
                (4, (12, 1)),
                (-1, (6, 2)),
                (-2, (2, 6)),
                (-4, (1, 12)),
            )
        )
    ],
    "Gather": [
        Case("columns", partial(gather, (1, 1, 2, 2), arrays={"i": [2, 0]}, axis=3), SIX, [3, 1, 6, 4]),
        Case("from the end", partial(gather, (1, 1, 2, 2), arrays={"i": [-1, -3]}, axis=-1), SIX, [3, 1, 6, 4]),
        Case("a scalar drops the axis", partial(gather, (1, 1, 3), arrays={"i": 1}, axis=2), SIX, [4, 5, 6]),
        Case(
            "a table of indices", partial(gather, (1, 1, 2, 2, 1), arrays={"i": [[2], [0]]}, axis=3), SIX, [3, 1, 6, 4]
        ),
        Case("channels exchanged", partial(move, "Gather", (4, 1, 2), (1, 4, 1, 2), arrays={"i": [2, 0, 3, 1]}, axis=1),
             FOUR, [5, 6, 1, 2, 7, 8, 3, 4]),
        Case("rows twice", partial(gather, (1, 1, 4, 3), arrays={"i": [0, 0, 1, 1]}, axis=2), SIX,
             [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]),
        Case("no axis left", one_code, SIX, [5]),
        Case("batch", partial(gather, (2, 1, 2, 3), arrays={"i": [0, 0]}, axis=0), SIX, [1, 2, 3, 4, 5, 6] * 2),
    ],
    "Identity": [Case("the same", partial(move, "Identity", (1, 2, 3), (1, 1, 2, 3)), SIX, [1, 2, 3, 4, 5, 6])],
    "Reshape": [
        Case("flat", partial(reshape, (1, 6), arrays={"s": [1, 6]}, allowzero=0), SIX, [1, 2, 3, 4, 5, 6]),
        Case("the rest", partial(reshape, (3, 2), arrays={"s": [3, -1]}, allowzero=0), SIX, [1, 2, 3, 4, 5, 6]),
        Case(
            "0 keeps an axis",
            partial(reshape, (1, 1, 6), arrays={"s": [0, 0, 6]}, allowzero=0),
            SIX,
            [1, 2, 3, 4, 5, 6],
        ),
        Case("six axes", partial(move, "Reshape", (4, 1, 2), (1, 1, 2, 2, 1, 2), arrays={"s": [0, 1, 2, 2, 1, 2]},
             allowzero=0), FOUR, [1, 2, 3, 4, 5, 6, 7, 8]),
        Case("one axis", partial(reshape, (6,), arrays={"s": [-1]}, allowzero=1), SIX, [1, 2, 3, 4, 5, 6]),
    ],
    "Slice": [
        Case("columns", partial(sliced, [1], [3], [3], [1], (1, 1, 2, 2)), SIX, [2, 3, 5, 6]),
        Case("to the end", partial(sliced, [1], [FAR], [3], [1], (1, 1, 2, 2)), SIX, [2, 3, 5, 6]),
        Case("from the end", partial(sliced, [-2], [-1], [-1], [1], (1, 1, 2, 1)), SIX, [2, 5]),
        Case("before the start", partial(sliced, [-9], [1], [3], [1], (1, 1, 2, 1)), SIX, [1, 4]),
        Case("step 2", partial(sliced, [0], [3], [3], [2], (1, 1, 2, 2)), SIX, [1, 3, 4, 6]),
        Case("channels", partial(move, "Slice", (4, 1, 2), (1, 2, 1, 2),
             arrays={"starts": [1], "ends": [4], "axes": [1], "steps": [2]}), FOUR, [3, 4, 7, 8]),
        Case("two axes", partial(sliced, [1, 0], [2, 2], [2, 3], [1, 1], (1, 1, 1, 2)), SIX, [4, 5]),
    ],
    "Transpose": [
        Case(
            "NHWC",
            partial(move, "Transpose", (2, 3, 2), (1, 3, 2, 2), perm=(0, 2, 3, 1)),
            BOX,
            [1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12],
        ),
        Case("columns first", partial(transpose, (1, 1, 3, 2), perm=(0, 1, 3, 2)), SIX, [1, 4, 2, 5, 3, 6]),
        Case("depth to space", deeper, FOUR, [1, 3, 2, 4, 5, 7, 6, 8]),
        Case("channels shuffled", shuffled, FOUR, [1, 2, 5, 6, 3, 4, 7, 8]),
        Case("unchanged", partial(transpose, (1, 1, 2, 3), perm=(0, 1, 2, 3)), SIX, [1, 2, 3, 4, 5, 6]),
    ],
}  # fmt: skip
