"""Layers in forms that the circuit does not have are refused by name; rows are chosen outside it."""

from typing import Any

import numpy as np
import pytest

from dqtsim.errors import TargetError
from dqtsim.rtl.vectors import record
from tests.builders import compiled, conv

ONES = [[[[1]]]]


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"windows": [0] * 9}, "no windows"),
        ({"padding": [3]}, "no padding"),
        ({"windows": [0] * 9, "padding": [3]}, "no windows and no padding"),
    ],
)
def test_a_form_that_the_circuit_lacks_is_refused(options: dict[str, Any], lacking: str) -> None:
    with pytest.raises(TargetError) as caught:
        record(compiled(conv((1, 2, 2), ONES, **options)), np.zeros((1, 1, 2, 2), np.uint8))
    assert str(caught.value) == f"the circuit has {lacking}; node 'y' (dqtsim.NestedConv) has them."


def test_a_rule_that_the_circuit_lacks_is_refused() -> None:
    plan = compiled(conv((1, 2, 2), ONES, rules={"weight_rule": "CENTROID"}))
    with pytest.raises(TargetError) as caught:
        record(plan, np.zeros((1, 1, 2, 2), np.uint8))
    assert str(caught.value) == "the circuit has no CENTROID weights; node 'y' (dqtsim.NestedConv) has them."


@pytest.mark.parametrize(("bits", "bias"), [((2, 8), 10), ((8, 2), 30), ((4, 4), 20), ((8, 8), 30)])
def test_vectors_hold_the_row_of_the_pair(bits: tuple[int, int], bias: int) -> None:
    plan = compiled(conv((1, 2, 2), ONES, row_pairs=((2, 8), (4, 4), (8, 2)), bias=[[10], [20], [30]], bits=bits))
    (vector,) = record(plan, np.zeros((1, 1, 2, 2), np.uint8))
    assert vector.arrays["bias"].tolist() == [bias]
