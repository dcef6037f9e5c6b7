"""A layer alone gives the accumulators and codes that it gives in its network; rows come from the right place."""

import numpy as np
import pytest

from dqtsim.calibration.layer import Layer, LayerRun
from dqtsim.calibration.walk import row_of
from dqtsim.engines.registry import run
from dqtsim.graph import Graph
from dqtsim.planner import plan
from dqtsim.spec import Nesting
from dqtsim.target import load_target
from dqtsim.widths import apply_bits
from tests.builders import Widths, conv, dense

TARGET = load_target("default")
PAIRS = [(8, 8), (7, 8), (7, 7), (4, 8), (8, 3), (2, 2)]


def alone(graph: Graph, pair: Widths) -> LayerRun:
    """The layer 'y' of a graph."""
    compiled = plan(graph, TARGET)
    step = next(step for step in compiled.steps if step.node.name == "y")
    layer = Layer(step.node, graph.constants(step.node), step.input_types["x"].shape, step.call.type.shape)
    return LayerRun(layer, pair, graph.arithmetic, TARGET)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("rule", Nesting)
def test_accumulators_are_what_logits_without_a_bias_are(rule: Nesting, pair: Widths) -> None:
    random = np.random.default_rng(5)
    graph = dense(
        random.integers(-128, 128, (3, 9)), logits=True, windows=[0, 1, 2, 3, 0, 0, 0, 1, 0], z_x=77,
        rules={"weight_rule": rule},
    )  # fmt: skip
    codes = random.integers(0, 256, (4, 9), np.uint8)
    for index, result in enumerate(run(plan(apply_bits(graph, f"w{pair[0]}a{pair[1]}")[0], TARGET), codes, "spec")):
        aligned, output = alone(graph, pair).aligned(codes[index : index + 1])
        assert aligned[:, 0].tolist() == result.outputs["y"][0].tolist() == output[0].tolist()


@pytest.mark.parametrize("pair", [(7, 8), (7, 7), (8, 7)])
def test_accumulators_of_groups_are_what_a_factor_of_one_gives(pair: Widths) -> None:
    random = np.random.default_rng(5)
    # sums of at most 9 taps of 2 * 5, and the border's, stay inside the codes
    graph = conv(
        (4, 5, 4), random.integers(-2, 3, (4, 2, 2, 2)), group=2, pads=(1, 0, 1, 1), padding=[9, 10, 11, 12], z_x=10,
        rules={"weight_rule": "CENTROID"},
    )  # fmt: skip
    codes = random.integers(8, 16, (2, 4, 5, 4), np.uint8)
    outputs = [
        result.outputs["y"][0].astype(int)
        for result in run(plan(apply_bits(graph, f"w{pair[0]}a{pair[1]}")[0], TARGET), codes, "spec")
    ]
    assert 0 < np.min(outputs) < np.max(outputs) < 255
    found = [alone(graph, pair).aligned(codes[index : index + 1])[0] for index in range(2)]
    assert np.array_equal(np.reshape(outputs, (2, 4, -1)) - 128, found)
    assert np.array_equal(alone(graph, pair).codes(codes, 1), outputs)


def test_the_row_of_a_pair_is_the_one_that_the_law_selects() -> None:
    by_width = dense([[1]], row_widths=(2, 4), bias=[[10], [20]])
    by_pair = dense([[1]], row_pairs=[(8, 8), (2, 8)], bias=[[10], [20]])
    for pair, biases in {(3, 8): [20, 10], (2, 7): [10, 10], (2, 8): [10, 20], (8, 8): [20, 10]}.items():
        found = [row_of(alone(graph, (8, 8)).layer, pair).bias[0] for graph in (by_width, by_pair)]
        assert found == biases


def test_logits_have_no_factor_to_fit() -> None:
    row = row_of(alone(dense([[1]], logits=True, bias=7), (8, 8)).layer, (8, 8))
    assert (row.bias.tolist(), row.multiplier, row.shift) == ([7], None, None)
    assert row.factor.tolist() == [1.0]
