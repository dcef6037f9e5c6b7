"""Known structures: everything runs natively, and gives the bits of the ordinary kernels."""

import numpy as np
import pytest

from dqtsim.graph import Graph, with_bits
from dqtsim.structures import STRUCTURES, build
from tests import builders
from tests.vectorkernels import kernels

from .same import assert_native

# these are large: one kernel does
LARGE = ("resnet18", "resnet18-imagenet", "resnet50", "mobilenetv2")


def widths(graph: Graph, kind: str) -> Graph:
    if kind == "mixed":
        random = np.random.default_rng(4)
        return with_bits(graph, [tuple(map(int, random.choice([2, 4, 5, 8], 2))) for _ in graph.layers])  # type: ignore[misc]
    return graph


@pytest.mark.parametrize("kind", ["static", "mixed", "dynamic"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str, kind: str) -> None:
    graph = widths(build(name, input_size=32, classes=10, seed=1, dynamic=kind == "dynamic"), kind)
    plan = builders.compiled(graph)
    codes = np.random.default_rng(2).integers(0, 256, graph.input.shape, np.uint8)
    assert_native(plan, codes, names=kernels()[:1] if name in LARGE else kernels(), threads=(1, 2))
