"""GraphBuilder.operator: any operator that gives codes, its inputs by role."""

from typing import Any

import pytest

from dqtsim.errors import ModelError
from dqtsim.graph import Graph, GraphBuilder, to_onnx

HOW: dict[str, Any] = {"multiplier": 40000, "shift": 16}


def rescaled(*, by_role: bool, **constants: Any) -> Graph:
    b = GraphBuilder("one")
    x = b.input("x", (1, 3), zero_point=7, scale=0.5)
    out: dict[str, Any] = {"zero_point": 9, "scale": 0.25}
    if by_role:
        clip = {"low": 1, "high": 200}
        y = b.operator("NestedRequantize", "y", (1, 3), {"x": x}, {**HOW, **constants}, clip, **out)
    else:
        y = b.requantize("y", x, **HOW, clip=(1, 200), **out)
    b.output(y)
    return b.build()


def test_an_operator_by_role_is_the_one_by_its_method() -> None:
    files = [to_onnx(rescaled(by_role=by_role)).SerializeToString(deterministic=True) for by_role in (True, False)]
    assert files[0] == files[1]


def test_zero_points_follow_from_the_tensors() -> None:
    graph = rescaled(by_role=True)
    (node,) = graph.nodes
    assert {role: int(array) for role, array in graph.constants(node).items()} == {
        **{"x_zero_point": 7, "y_zero_point": 9},
        **HOW,
    }


def test_a_number_that_the_role_does_not_hold_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        rescaled(by_role=True, shift=0.5)
    assert str(caught.value) == "'shift' of 'y' holds numbers that are no int64."
