"""MaxPool on codes (B6): padded taps do not take part."""

from functools import partial

from dqtsim.graph import Graph
from tests.builders import node, plain, pooled

from .case import Case

largest = partial(pooled, kind="max_pool", strides=(1, 1))


def dilated() -> Graph:
    """Return a window of columns 0 and 2 with one padded column on the left."""
    attributes = {"kernel_shape": (1, 2), "strides": (1, 1), "pads": (0, 1, 0, 0), "dilations": (1, 2)}
    rest = {"ceil_mode": 0, "storage_order": 0, "auto_pad": "NOTSET"}
    return plain((1, 1, 4), [node("MaxPool", ["x"], "y", **attributes, **rest)], (1, 1, 1, 3), arrays={})


NINE = [[[1, 2, 3], [4, 9, 6], [7, 8, 5]]]
OPERATOR = ("", "MaxPool")
CASES = [
    Case("window", partial(largest, (1, 3, 3), kernel=(2, 2)), NINE, [9, 9, 9, 9]),
    Case("row window", partial(largest, (1, 3, 3), kernel=(1, 2)), NINE, [2, 3, 9, 9, 8, 8]),
    Case("column window", partial(largest, (1, 3, 3), kernel=(2, 1)), NINE, [4, 9, 6, 7, 9, 6]),
    Case("stride 2", partial(largest, (1, 3, 3), kernel=(1, 1), strides=(2, 2)), NINE, [1, 3, 7, 5]),
    Case("stride (1, 2)", partial(largest, (1, 3, 3), kernel=(1, 1), strides=(1, 2)), NINE, [1, 3, 4, 6, 7, 5]),
    Case(
        "pads top 1 left 1",
        partial(largest, (1, 2, 2), kernel=(2, 2), pads=(1, 1, 0, 0)),
        [[[1, 2], [4, 3]]],
        [1, 2, 4, 4],
    ),
    Case(
        "pads bottom 1 right 1",
        partial(largest, (1, 2, 2), kernel=(2, 2), pads=(0, 0, 1, 1)),
        [[[1, 2], [4, 3]]],
        [4, 3, 4, 3],
    ),
    Case("zeros", partial(largest, (1, 2, 2), kernel=(2, 2), pads=(1, 1, 1, 1), z_x=200), [[[0, 0], [0, 0]]], [0] * 9),
    Case("limits and ties", partial(largest, (1, 1, 4), kernel=(1, 2)), [[[255, 0, 0, 255]]], [255, 0, 255]),
    Case("channels apart", partial(largest, (2, 1, 2), kernel=(1, 2)), [[[1, 2]], [[40, 30]]], [2, 40]),
    Case("dilation 2, left pad 1", dilated, [[[5, 4, 3, 9]]], [4, 5, 9]),
]
