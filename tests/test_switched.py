"""One plan for many settings: each engine gives what the setting's own plan gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqtsim.engines.registry import engine, run
from dqtsim.errors import InputError
from dqtsim.graph import with_bits
from dqtsim.graph.model import Graph, Widths
from dqtsim.planner import plan
from dqtsim.switched import Switched, free_layers, rows
from dqtsim.target import load_target
from tests.builders import dense, network, picture, pooled, target
from tests.networks import Sample, samples

PAIRS: tuple[Widths, ...] = ((8, 8), (2, 8), (4, 4), (3, 5))


def sameness(graph: Graph, samples: np.ndarray, choice: list[int], name: str) -> None:
    """Assert that an engine gives the same outputs and widths by the switch as at static widths."""
    runs = Switched(graph, target(), PAIRS)
    setting = rows(graph, PAIRS, choice)
    static = plan(with_bits(graph, setting), target())
    switch = runs._codes(samples, choice)
    for result, expected in zip(run(runs.plan, switch, name), run(static, samples, name), strict=True):
        assert result.bits == expected.bits == setting
        assert result.class_index == expected.class_index
        for output, array in expected.outputs.items():
            assert (result.outputs[output] == array).all()


@pytest.mark.parametrize("name", ["spec", "numba", "native"])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("choice", [[0, 0, 0], [1, 3, 2], [2, 0, 1]])
def test_a_switch_gives_what_static_widths_give(choice: list[int], dynamic: bool, name: str) -> None:
    sameness(network(dynamic=dynamic), picture(count=2), choice, name)


@pytest.mark.parametrize("choice", [[0], [1], [2], [3]])
def test_a_network_without_pictures(choice: list[int]) -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (3, 5))
    samples = np.random.default_rng(1).integers(0, 256, (2, 5), np.uint8)
    sameness(dense(weight, logits=True, row_widths=(2, 8), bias=[[5, 6, 7], [0, 0, 0]]), samples, choice, "native")


@pytest.mark.parametrize("rule", ["TIES_UP", "FLOOR", "MIDPOINT", "CENTROID"])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_every_width_rule_and_master_width(rule: str, n: int) -> None:
    weight = np.random.default_rng(0).integers(-(1 << (n - 1)), 1 << (n - 1), (3, 5))
    graph = dense(weight, logits=True, z_x=1, rules={"master_width": n, "weight_rule": rule})
    pairs: list[Widths] = [(1, 1), (n, 1), (n, n)]
    samples = np.random.default_rng(1).integers(0, 1 << n, (2, 5), np.uint8)
    runs = Switched(graph, target(), pairs)
    for k, pair in enumerate(pairs):
        static = run(plan(with_bits(graph, [pair]), target()), samples)
        for result, expected in zip(runs.run(samples, [k]), static, strict=True):
            assert (result.outputs["y"] == expected.outputs["y"]).all()


def test_observers_see_the_steps_of_the_setting() -> None:
    runs, seen = Switched(network(), target(), PAIRS), {}
    choice = runs.alone("right", (4, 4), (8, 8))
    runs.observe(picture(), choice, lambda step, outcome: seen.update({step.node.outputs[0]: outcome.output}))
    static = plan(with_bits(network(), [(8, 8), (8, 8), (4, 4), (8, 8)]), target())
    expected = {}
    engine(static)(picture(), [lambda step, outcome: expected.update({step.node.outputs[0]: outcome.output})])
    for name in ("stem", "left", "total", "right", "widest", "result"):
        assert (seen[name] == expected[name]).all()


@given(samples(), st.data())
@settings(max_examples=20)
def test_random_networks_are_switched(sample: Sample, data: st.DataObject) -> None:
    graph, n = sample.graph, sample.graph.arithmetic.master_width
    wide = replace(load_target("default"), multiplier_width=31)
    pairs = data.draw(st.lists(st.tuples(st.integers(1, n), st.integers(1, n)), min_size=1, max_size=3, unique=True))
    choice = [data.draw(st.integers(0, len(pairs) - 1)) for _ in free_layers(graph)]
    runs, static = Switched(graph, wide, pairs), plan(with_bits(graph, rows(graph, pairs, choice)), wide)
    (result,), (expected,) = runs.run(sample.codes, choice), run(static, sample.codes, "numba")
    for output, array in expected.outputs.items():
        assert (result.outputs[output] == array).all()
    assert {layer: result.flags[layer] for layer in graph.layers} == {k: expected.flags[k] for k in graph.layers}


def test_refusals() -> None:
    with pytest.raises(InputError) as raised:
        Switched(pooled((3, 4, 4), "max_pool", kernel=(2, 2), strides=(1, 1)), target(), PAIRS)
    assert str(raised.value) == "widths are those of layers that are not pinned; model 'one' has none."
    with pytest.raises(InputError) as raised:
        list(Switched(network(), target(), PAIRS).run(np.zeros((2, 3, 7, 6), np.uint8), [0, 0, 0]))
    assert str(raised.value) == (
        "the model takes codes of dtype uint8 and shape (N, 3, 6, 6); found uint8 (2, 3, 7, 6)."
    )
