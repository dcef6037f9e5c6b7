"""Widths that are added to a model of 8 bits, beside those for which the trainer's `calibrate` made a model."""

import numpy as np
import torch

from dqtsim.calibration import calibrate as add_widths
from dqtsim.engines.registry import run
from dqtsim.fidelity import Fidelity, real
from dqtsim.graph import Graph
from dqtsim.graph.model import Array, Widths
from dqtsim.graph.results import meaning
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.train import NestedConfig, NestingRules, calibrate, prepare
from dqtsim.train.folding import fold
from dqtsim.widths import apply_bits

from .test_calibration import Small, shown
from .test_prepare import SHAPE, trained

PAIRS: tuple[Widths, ...] = ((4, 4), (6, 6), (8, 6))
# what rows and windows alone may lose, in decibels: steps, zero points and master codes were chosen for 8 bits
REACH = 2


def outputs(graph: Graph, pair: Widths, codes: Array, expected: list[list[Array]]) -> Fidelity:
    """The results at a pair of widths beside `expected`, which gets those of the first call."""
    found = Fidelity(pair, graph)
    (name,) = (value.name for value in graph.outputs)
    means = meaning(graph, name)
    assert means is not None
    results = run(plan(apply_bits(graph, f"w{pair[0]}a{pair[1]}")[0], load_target("default")), codes)
    for index, result in enumerate(results):
        if len(expected) == index:
            expected.append([real(result.outputs[name], means)])
        found.add(result, expected[index])
    return found


def test_rows_alone_come_within_reach_of_a_model_made_for_the_widths() -> None:
    torch.manual_seed(0)
    model, pictures = trained(Small()), shown(24)
    own = {}
    for candidates in (((8, 8),), (*PAIRS, (8, 8))):
        rules = NestingRules("CENTROID", candidates=candidates)
        own[candidates] = fold(calibrate(prepare(model, NestedConfig(rules, SHAPE)), pictures))
    eight, whole = own.values()
    made = add_widths(eight, PAIRS, pictures.numpy())
    by_rows: list[list[Array]] = []
    by_all: list[list[Array]] = []
    # nothing at 8 bits differs from the model that was given
    assert outputs(eight, (8, 8), pictures.numpy(), by_rows).decibel == np.inf
    assert outputs(made, (8, 8), pictures.numpy(), by_rows).decibel == np.inf
    outputs(whole, (8, 8), pictures.numpy(), by_all)
    for pair in PAIRS:
        found, best = (
            outputs(graph, pair, pictures.numpy(), expected).decibel
            for graph, expected in ((made, by_rows), (whole, by_all))
        )
        assert found is not None
        assert best is not None
        assert found > best - REACH
