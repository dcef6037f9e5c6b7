"""The exact path of PyTorch on a batch: each sample as it is alone, whatever moves its codes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from dqtsim.errors import ModelError
from dqtsim.graph import Graph, GraphBuilder, with_bits
from dqtsim.train.exact import run_batch, run_graph
from tests.builders import constants, node, plain
from tests.products import products


def moved() -> Graph:
    """Return every move of codes on the way to a table per channel and an average by positions."""
    b = GraphBuilder("moved", candidates=((2, 2),))
    top: dict[str, Any] = {"zero_point": 7, "scale": 1.0, "clip": (0, 255), "strides": (2, 2), "shift": 4}
    x = b.input("x", (1, 4, 3, 2), zero_point=7, scale=1.0)
    x = b.take("shuffled", x, 1, [2, 0, 3, 1])
    x = b.concat("joined", [b.take("half", x, 1, [0, 2]), b.take("rest", x, 1, [1, 3])])
    x = b.take("border", b.take("twice", x, 2, [0, 0, 1, 1, 2, 2]), 3, [-1, 0, 1, -1])
    x = b.table("slopes", x, np.arange(4 * 256).reshape(4, 256) % 253, zero_point=7, scale=1.0)
    x = b.average_pool("mean", x, kernel=(2, 2), multiplier=np.arange(1, 7).reshape(3, 2), **top)
    x = b.reshape("apart", x, (1, 2, 2, 3, 2))
    x = b.reshape("deep", b.transpose("turned", x, (0, 1, 4, 2, 5, 3)), (1, 6, 4))
    b.output(b.flatten("flat", x))
    return b.build()


def with_reshapes(first: int) -> Graph:
    """Return reshapes whose first entry is `first`."""
    arrays = constants(a=[first, 2, 12], b=[first, 4, 3, 2])
    nodes = [node("Reshape", ["x", "a"], "line", allowzero=0), node("Reshape", ["line", "b"], "y", allowzero=0)]
    return plain((4, 3, 2), nodes, (1, 4, 3, 2), arrays=arrays)


@pytest.mark.parametrize(
    "make", [moved, products, lambda: with_reshapes(0), lambda: with_reshapes(1), lambda: with_reshapes(-1)]
)
def test_a_batch_is_its_samples(make: Callable[[], Graph]) -> None:
    graph = make()
    codes = np.random.default_rng(0).integers(0, 256, (3, *graph.input.shape[1:]), np.uint8)
    together, _ = run_batch(graph, torch.from_numpy(codes), torch.full((len(graph.layers), 2), 8))
    # products() also has outputs on the way; run_batch gives its logits
    name = "result" if graph.layers else graph.outputs[0].name
    static = with_bits(graph, [(8, 8)] * len(graph.layers)) if graph.layers else graph
    alone = [run_graph(static, codes[i : i + 1])[name] for i in range(3)]
    assert np.array_equal(together.numpy(), np.concatenate(alone))


@pytest.mark.parametrize(
    ("operator", "arrays", "attributes", "shape"),
    [
        ("Transpose", {}, {"perm": (1, 0, 2, 3)}, (4, 1, 3, 2)),
        ("Reshape", {"s": [4, 6]}, {"allowzero": 0}, (4, 6)),
        ("Reshape", {"s": [-1, 6]}, {"allowzero": 0}, (4, 6)),
        ("Flatten", {}, {"axis": 2}, (4, 6)),
        ("Gather", {"i": [0, 0]}, {"axis": 0}, (2, 4, 3, 2)),
        ("Slice", {"starts": [0], "ends": [1], "axes": [-4], "steps": [1]}, {}, (1, 4, 3, 2)),
        ("Concat", {}, {"axis": -4}, (1, 4, 3, 2)),
    ],
)
def test_a_move_of_the_samples_is_refused(
    operator: str, arrays: dict[str, Sequence[int]], attributes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    inputs = ["x", *arrays]
    graph = plain((4, 3, 2), [node(operator, inputs, "y", **attributes)], shape, arrays=constants(**arrays))
    with pytest.raises(ModelError) as caught:
        run_batch(graph, torch.zeros((2, 4, 3, 2), dtype=torch.uint8), torch.zeros((0, 2), dtype=torch.int64))
    assert str(caught.value) == (
        f"the PyTorch path runs one sample at a time if node 'y' ({operator}) moves the axis of the samples."
    )
