"""The half of CENTROID (B2'): by hand, where the taps' sum is odd and its half is no integer."""

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.spec import add_bias, add_up, align, exponent, operand, requantize, take_half
from dqtsim.spec.rules import Nesting, Rounding
from dqtsim.train import NestingRules
from dqtsim.train.integer import exact_dtype, integer_exact
from dqtsim.train.modules.base import Codes, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.nested import weight_codes
from dqtsim.train.steps import Activation, Layer, Logits

RULES = NestingRules("CENTROID", candidates=((4, 8), (8, 8)))
# Taps above a zero point of 8, whose sum is 1, -1, 3, 2, 0, -5; 4 bits of a weight are read 7.5 steps above its code's.
TAPS, ZERO_POINT = [[9, 8, 8], [8, 7, 8], [9, 9, 9], [10, 9, 7], [8, 8, 8], [5, 7, 7]], 8
WEIGHT = [[3.0, -20.0, 11.0], [-1.0, 5.0, 0.0]]
ONE = torch.tensor(1.0)


def sums(steps: torch.Tensor) -> list[list[int]]:
    """A + B of B3 by the law, for B = 0: a list of the outputs for each row of TAPS."""
    rule = Nesting.CENTROID
    codes = weight_codes(torch.tensor(WEIGHT), steps).to(torch.int64).tolist()
    weights = [[operand(code, 128, 4, 8, rule) for code in row] for row in codes]
    found = []
    for taps in TAPS:
        s_a = [operand(tap, ZERO_POINT, 8, 8, rule) for tap in taps]
        aligned = [align(sum(w * a for w, a in zip(row, s_a, strict=True)), exponent(4, 8, rule), 0) for row in weights]
        found.append([add_bias(take_half(a, add_up(s_a), 0), 0, 32) for a in aligned])
    assert exponent(8, 8, rule) == 0
    return found


def codes() -> Codes:
    return Codes(torch.tensor(TAPS, dtype=torch.float32), ONE, ZERO_POINT)


def test_codes_are_those_of_the_law_where_the_half_is_no_integer() -> None:
    source = Layer(
        "y", ("x",), (2,), False, torch.tensor(WEIGHT), None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1),
        groups=1, norm=None, activation=Activation(), padding=None, pinned=False,
    )  # fmt: skip
    layer = NestedLayer(source, RULES, 0)
    layer.weight_step.set(torch.ones(2))
    with torch.no_grad(), integer_exact(layer):
        found = layer(codes(), Uniform(RULES.pairs.index((4, 8)))).values.tolist()
    expected = [[requantize(s, 1, 0, 128, 0, 255, Rounding.TIES_UP) for s in row] for row in sums(torch.ones(2))]
    assert found == expected


def test_logits_are_those_of_the_law_where_the_half_is_no_integer() -> None:
    layer = NestedLogits(Logits("y", ("x",), (2,), False, torch.tensor(WEIGHT), None), RULES, 0)
    layer.weight_step.set(ONE)
    with torch.no_grad(), integer_exact(layer):
        found = layer(codes(), Uniform(RULES.pairs.index((4, 8)))).tolist()
    assert found == sums(ONE)


def test_the_sums_by_hand() -> None:
    # 3 -> 7.5, -20 -> -24.5, 11 -> 7.5; -1 -> -8.5, 5 and 0 -> 7.5; the floor of each sum of products
    assert sums(ONE) == [[7, -9], [24, -8], [-10, 6], [-17, -17], [0, 0], [-6, 10]]


@pytest.mark.parametrize(("weight", "fits"), [(1.0, 2**24 - 1), (0.5, 2**24 - 2), (1.5, (2**24 - 4) // 3)])
def test_sums_with_halves_leave_float32_a_bit_earlier(weight: float, fits: int) -> None:
    def chosen(operand: int) -> torch.dtype:
        return exact_dtype(torch.tensor([[float(operand)]]), torch.tensor([[weight]]))

    assert [chosen(fits), chosen(fits + 2)] == [torch.float32, torch.float64]
