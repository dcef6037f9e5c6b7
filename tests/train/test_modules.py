"""Each kind of step as a nested module: its integers are those of the exported model, and nearly the float values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.engines.registry import traced
from dqtsim.errors import ModelError
from dqtsim.graph import Graph, with_bits
from dqtsim.graph.results import meaning
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.train import NestingRules
from dqtsim.train.exact import run_graph
from dqtsim.train.folding import fold
from dqtsim.train.integer import integer_exact
from dqtsim.train.modules.base import Codes, Nested, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.network import NestedNetwork
from dqtsim.train.steps import (
    INPUT,
    Activation,
    Add,
    Argument,
    AveragePool,
    Call,
    Concat,
    Flatten,
    Layer,
    Logits,
    MaxPool,
    Multiply,
    Norm,
    Rectify,
    Reshape,
    Step,
    Table,
    Take,
    Traced,
    Transpose,
)

RULES = NestingRules(candidates=((3, 3), (8, 8), (8, 5), (4, 8)))
SHAPE = (4, 7, 6)
SILU = Call("silu.default", (Argument(),))
SIGNED_ZERO = 96


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(shape: tuple[int, ...] = SHAPE, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def conv(name: str, source: str, shape: tuple[int, ...], weight: torch.Tensor, **changes: Any) -> Layer:
    """A convolution with a bias and a batch norm, stride 1, without pads or activation."""
    outputs = len(weight)
    norm = Norm(
        random(outputs, seed=2), random(outputs, seed=3), random(outputs, seed=4), random(outputs, seed=5).exp(), 1e-3
    )
    given: dict[str, Any] = {
        "bias": random(outputs, seed=1), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1,
        "norm": norm, "activation": Activation(), "padding": None, "pinned": source == INPUT,
    }  # fmt: skip
    given |= changes
    return Layer(name, (source,), shape, given["activation"].rectified, weight, **given)


def stem(shape: tuple[int, ...] = SHAPE) -> Layer:
    """A layer that reads the picture and gives signed codes of its shape."""
    return conv("stem", INPUT, shape, random(shape[0], shape[0], 1, 1))


def nested(
    *steps: Step, outputs: tuple[str, ...] | None = None, shape: tuple[int, ...] = SHAPE, rules: NestingRules = RULES
) -> NestedNetwork:
    """The network of these steps, fitted."""
    return fitted(NestedNetwork(Traced(steps, outputs or (steps[-1].name,)), rules, shape, 120, 1 / 32))


def fitted(network: NestedNetwork) -> NestedNetwork:
    """The network with steps that clip nothing on these pictures, and an odd zero point."""
    modules = network.by_name()
    for name, value in network.activations(pictures(network.shape)).items():
        module = modules.get(name)
        if isinstance(module, Nested):
            module.zero_point = 0 if module.positive else SIGNED_ZERO
            below = -value.min() / max(module.zero_point, 1)
            module.step.set(torch.maximum(value.max() / (255 - module.zero_point), below))
        if isinstance(module, NestedLayer | NestedLogits):
            weight = module.weight.detach().abs()
            module.weight_step.set((weight.flatten(1).amax(1) if isinstance(module, Nested) else weight.max()) / 127)
    return network.eval()


def check(network: NestedNetwork, pair: int = 1) -> tuple[Graph, dict[str, np.ndarray[Any, Any]]]:
    """Assert that every code and logit is that of the exported model, run by two engines; return it and its tensors."""
    graph = fold(network)
    wide = network.rules.candidates[pair]
    static = with_bits(graph, [graph.pinned.get(layer, wide) for layer in graph.layers])
    kept = tuple(step.name for step in network.steps)
    with torch.no_grad(), integer_exact(network):
        found = network.values(pictures(network.shape), Uniform(pair), kept)
    first: dict[str, np.ndarray[Any, Any]] = {}
    for index, picture in enumerate(pictures(network.shape)):
        codes = picture.reshape(graph.input.shape).numpy()
        tensors = run_graph(static, codes)
        _, native = traced(plan(static, load_target("default")), codes, "native")
        first = first or tensors
        for name in kept:
            value = found[name]
            assert np.array_equal(native[name], tensors[name]), name
            if isinstance(value, Codes):
                assert np.array_equal(value.values[index].to(torch.uint8).numpy(), tensors[name][0]), (name, index)
    return graph, first


def nearly(network: NestedNetwork, bound: float = 0.03) -> None:
    """Assert that at eight bits every output is within `bound` root mean squares of the float network's."""
    eight = network.rules.pairs.index((8, 8))
    expected = network.activations(pictures(network.shape))
    with torch.no_grad(), integer_exact(network):
        values = network.values(pictures(network.shape), Uniform(eight), network.outputs)
    for name in network.outputs:
        value = values[name]
        real = value.real() if isinstance(value, Codes) else value
        error = (real - expected[name]).square().mean().sqrt() / expected[name].square().mean().sqrt()
        assert float(error) < bound, (name, float(error))


def pooled(**how: Any) -> Step:
    return AveragePool("y", ("stem",), (4, 3, 3), False, (3, 2), (2, 2), (0, 0, 0, 0), **how)


def moved(kind: Callable[..., Step], shape: tuple[int, ...], *arguments: Any) -> Step:
    return kind("y", ("stem",), shape, False, *arguments)


# What a kind of step is tried with: its own step or steps, all of which read 'stem' [4, 7, 6].
KINDS: dict[str, tuple[Step, ...]] = {
    "four pads": (conv("y", "stem", (5, 4, 4), random(5, 4, 3, 3), pads=(0, 2, 3, 1), strides=(2, 2)),),
    "same pads": (conv("y", "stem", (5, 7, 6), random(5, 4, 3, 3), pads=(1, 1, 1, 1)),),
    "groups, dilated": (
        conv("y", "stem", (6, 5, 6), random(6, 2, 3, 2), pads=(2, 0, 0, 1), dilations=(2, 1), groups=2),
    ),
    "depthwise, pinned": (conv("y", "stem", SHAPE, torch.ones(4, 1, 1, 1), groups=4, pinned=True),),
    "no norm, ReLU6": (conv("y", "stem", (3, 7, 6), random(3, 4, 1, 1), norm=None, activation=Activation(True, 6.0)),),
    "no bias": (conv("y", "stem", (3, 7, 6), random(3, 4, 1, 1), bias=None, norm=None),),
    "flat": (
        Flatten("flat", ("stem",), (168,), False),
        conv("y", "flat", (12,), random(12, 168)),
    ),
    "add": (
        conv("other", "stem", SHAPE, random(4, 4, 1, 1), activation=Activation(True)),
        Add("y", ("stem", "other"), SHAPE, False, Activation()),
    ),
    "product": (
        conv("other", "stem", SHAPE, random(4, 4, 1, 1)),
        Multiply("y", ("stem", "other"), SHAPE, False, Activation()),
    ),
    "squeeze and excite": (
        AveragePool("pool", ("stem",), (4, 1, 1), False, (7, 6), (7, 6), (0, 0, 0, 0)),
        conv("gate", "pool", (4, 1, 1), random(4, 4, 1, 1)),
        Table("sigmoid", ("gate",), (4, 1, 1), True, Call("sigmoid.default", (Argument(),)), False),
        Multiply("y", ("stem", "sigmoid"), SHAPE, False, Activation()),
    ),
    "product, ReLU": (Multiply("y", ("stem", "stem"), SHAPE, True, Activation(True)),),
    "rectify": (Rectify("y", ("stem",), SHAPE, True, Activation(True)),),
    "average": (pooled(),),
    "average, pads": (AveragePool("y", ("stem",), (4, 4, 3), False, (3, 3), (2, 2), (2, 0, 0, 1)),),
    "average, a divisor per position": (
        AveragePool(
            "y", ("stem",), (4, 4, 3), False, (3, 3), (2, 2), (2, 0, 0, 1), torch.arange(4.0, 10.0, 0.5).reshape(4, 3)
        ),
    ),
    "maximum": (MaxPool("y", ("stem",), (4, 3, 3), False, (3, 2), (2, 2), (0, 0, 0, 0)),),
    "maximum, pads, dilated": (MaxPool("y", ("stem",), (4, 6, 5), False, (3, 2), (1, 1), (1, 0, 2, 1), (2, 2)),),
    "table": (Table("y", ("stem",), SHAPE, False, SILU, False),),
    "table per channel": (
        Table(
            "y",
            ("stem",),
            SHAPE,
            False,
            Call("_prelu_kernel.default", (Argument(), random(4, seed=9).reshape(4, 1, 1))),
            True,
        ),
    ),
    "table of a table": (
        Table(
            "y", ("stem",), SHAPE, True, Call("mul.Tensor", (Argument(), Call("relu.default", (Argument(),)))), False
        ),
    ),
    "take rows": (moved(Take, (4, 3, 6), 1, (5, 1, 2)),),
    "take a slice": (moved(Take, (4, 7, 3), 2, (0, 2, 4)),),
    "take with zeros": (moved(Take, (4, 7, 9), 2, (-1, -1, *range(6), -1)),),
    "take here and there": (moved(Take, (4, 9, 6), 1, (6, -1, 3, 3, -1, 0, 5, 2, 1)),),
    "repeat": (moved(Take, (4, 14, 6), 1, tuple(i // 2 for i in range(14))),),
    "reshape": (moved(Reshape, (2, 2, 42)),),
    "transpose": (moved(Transpose, (6, 4, 7), (2, 0, 1)),),
    "concat": (
        conv("other", "stem", (3, 7, 6), random(3, 4, 1, 1), activation=Activation(True)),
        Concat("y", ("stem", "other"), (7, 7, 6), False, 0),
    ),
    "concat of rows": (
        Take("other", ("stem",), (4, 2, 6), False, 1, (1, 2)),
        Concat("y", ("stem", "other", "stem"), (4, 16, 6), False, 1),
    ),
}


@pytest.mark.parametrize("pair", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_its_integers_are_those_of_the_exported_model(kind: str, pair: int) -> None:
    network = nested(stem(), *KINDS[kind])
    graph, tensors = check(network, pair)
    assert graph.outputs[0].shape[1:] == network.steps[-1].shape
    assert len(np.unique(tensors["y"])) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_nearly_the_float_step(kind: str) -> None:
    nearly(nested(stem(), *KINDS[kind]))


def test_several_outputs_of_several_kinds() -> None:
    maps = conv("maps", "stem", (2, 7, 6), random(2, 4, 1, 1))
    flat = Flatten("flat", ("stem",), (168,), False)
    logits = Logits("logits", ("flat",), (3,), False, random(3, 168), random(3))
    boxes = Logits("boxes", ("flat",), (4,), False, random(4, 168), None)
    network = nested(stem(), maps, flat, boxes, logits, outputs=("maps", "boxes", "logits", "stem"))
    graph, _ = check(network)
    assert [(value.name, value.dtype) for value in graph.outputs] == [
        ("maps", "uint8"), ("boxes", "int32"), ("logits", "int32"), ("stem", "uint8")
    ]  # fmt: skip
    with torch.no_grad():
        found = network(pictures(), Uniform(1))
    assert [tuple(value.shape[1:]) for value in found] == [(2, 7, 6), (4,), (3,), SHAPE]
    nearly(network)


def test_integer_exact_outputs_are_the_codes_times_their_step() -> None:
    network = nested(stem(), KINDS["average"][0])
    graph, _ = check(network)
    with torch.no_grad(), integer_exact(network):
        real = network(pictures(), Uniform(1))[0]
    codes = run_graph(graph, pictures()[:1].numpy())["y"][0].astype(np.int64)
    annotation = graph.quantization["y"]
    assert annotation.zero_point == 96
    assert torch.allclose(real, torch.from_numpy(annotation.scale[0] * (codes - 96)).float(), rtol=1e-6, atol=0)


def test_several_layers_may_read_the_picture() -> None:
    one, other = (conv(name, INPUT, SHAPE, random(4, 4, 1, 1, seed=i)) for i, name in enumerate("ab"))
    network = nested(one, other, Add("y", ("a", "b"), SHAPE, False, Activation()))
    graph, _ = check(network)
    assert graph.pinned == {"a": (8, 8), "b": (8, 8)}
    with pytest.raises(ModelError) as raised:
        network.new_controller()
    assert str(raised.value) == "a controller reads the one convolution that reads the picture, but a, b read it."


@pytest.mark.parametrize("shape", [(9,), (4, 9)])
def test_flat_pictures_and_lines_of_pixels(shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        taken: tuple[Step, ...] = (conv("y", INPUT, (5,), random(5, 9)),)
    else:
        line = Reshape("line", (INPUT,), (4, 1, 9), False)
        taken = line, conv("y", "line", (5, 1, 5), random(5, 4, 1, 3), pads=(0, 1, 0, 1), strides=(1, 2), pinned=True)
    network = nested(*taken, shape=shape)
    check(network)
    nearly(network)


def test_a_layer_that_gives_its_pairs_rows_of_their_own() -> None:
    network = nested(stem(), KINDS["same pads"][0])
    layer: Any = network.layer("y")
    before = fold(network)
    layer.separate_rows()
    with torch.no_grad():
        layer.beta[2] += 1.0
    graph, tensors = check(network, 2)
    assert graph.node("y").form == ("row_pairs",)
    assert graph.initializers["y.row_pairs"].tolist() == [list(pair) for pair in RULES.candidates]
    plain = run_graph(with_bits(before, [(8, 8), (8, 5)]), pictures()[:1].numpy())["y"]
    assert bool((tensors["y"] >= plain).all())
    assert not np.array_equal(tensors["y"], plain)
    check(network, 0)


@pytest.mark.parametrize("pair", range(4))
@pytest.mark.parametrize("kind", ["same pads", "groups, dilated", "flat"])
def test_weights_as_the_mean_of_their_codes(kind: str, pair: int) -> None:
    rules = NestingRules("CENTROID", candidates=RULES.candidates)
    network = nested(stem(), *KINDS[kind], rules=rules)
    check(network, pair)


@pytest.mark.parametrize("pair", range(4))
def test_logits_of_weights_as_the_mean_of_their_codes(pair: int) -> None:
    flat = Flatten("flat", ("stem",), (168,), False)
    logits = Logits("y", ("flat",), (3,), False, random(3, 168), random(3))
    network = nested(stem(), flat, logits, rules=NestingRules("CENTROID", candidates=RULES.candidates))
    graph, tensors = check(network, pair)
    with torch.no_grad(), integer_exact(network):
        found = network(pictures()[:1], Uniform(pair))
    meant = meaning(graph, "y")
    assert meant is not None
    assert np.array_equal((found / meant.scale[0]).round().to(torch.int64).numpy(), tensors["y"])


@pytest.mark.parametrize("pair", [0, 2])
def test_windows_of_activations(pair: int) -> None:
    network = nested(stem(), KINDS["same pads"][0])
    layer: Any = network.layer("y")
    without = check(network, pair)[1]["y"]
    layer.windows = (0, 0, 0, 2, 1, 1, 0, 0, 0)
    graph, tensors = check(network, pair)
    assert graph.node("y").form == ("windows",)
    assert not np.array_equal(tensors["y"], without)


def test_gradients_reach_every_parameter() -> None:
    steps = stem(), *KINDS["table"], conv("z", "y", (3, 8, 7), random(3, 4, 3, 3), pads=(2, 1, 1, 2))
    network = nested(*steps).train()
    loss = network(pictures(), Uniform(0)).square().sum()
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
