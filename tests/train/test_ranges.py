"""Numbers of any size: integers stay within a stated bound of the float layer, and B never saturates."""

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dqtsim.train import NestingRules
from dqtsim.train.exact import run_graph
from dqtsim.train.floats import evaluate
from dqtsim.train.folding import fold
from dqtsim.train.network import NestedNetwork
from dqtsim.train.steps import INPUT, Activation, Layer, Logits, Norm, Traced, converted

RULES = NestingRules(candidates=((8, 8),))
TAPS, CHANNELS, STEP, SCALE = 12, 3, 0.05, 1 / 32
SIZES = st.integers(-12, 6).map(lambda exponent: 10.0**exponent)
SIGNED = st.builds(lambda size, sign: size * sign, SIZES, st.sampled_from((-1.0, 0.0, 1.0)))


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (8, TAPS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def weights(size: float) -> torch.Tensor:
    """Weights [3, 12] float32, those of channel 1 of another size."""
    found = torch.randn((CHANNELS, TAPS), generator=torch.Generator().manual_seed(1))
    found[1] *= size
    return found


def own(value: float, others: float) -> torch.Tensor:
    return torch.tensor([others, value, others])


def graph_of(step: Layer | Logits) -> tuple[Any, Any]:
    """The exported model of one step, each weight step reaching the largest weight; and its nested module."""
    network = NestedNetwork(Traced((step,), (step.name,)), RULES, (TAPS,), 120, SCALE).eval()
    module: Any = network.layer(step.name)
    weight = step.weight.abs()
    module.weight_step.set((weight.amax(1) if isinstance(step, Layer) else weight.max()) / 127)
    if isinstance(step, Layer):
        module.step.set(torch.tensor(STEP))
    return fold(network), module


def real(step: Layer | Logits) -> Any:
    values = (pictures().double() - 120) * SCALE
    return evaluate(converted((step,), torch.float64), values)[step.name].numpy()


@settings(max_examples=150, deadline=None)
@given(
    size=SIZES, gamma=SIGNED, beta=SIGNED, bias=SIGNED, mean=SIGNED, variance=SIZES, eps=st.sampled_from((1e-5, 1e-3))
)
@example(size=1e-12, gamma=0.0, beta=1e6, bias=0.0, mean=0.0, variance=1e-12, eps=1e-5)
@example(size=1e-12, gamma=1.0, beta=1.0, bias=0.0, mean=0.0, variance=1e-12, eps=1e-5)
@example(size=1e6, gamma=-1e-12, beta=1e6, bias=1e6, mean=-1e6, variance=1e6, eps=1e-3)
def test_a_layer_with_one_channel_of_any_size(
    size: float, gamma: float, beta: float, bias: float, mean: float, variance: float, eps: float
) -> None:
    norm = Norm(own(gamma, 0.5), own(beta, 0.1), own(mean, 0.2), own(variance, 4.0), eps)
    step = Layer(
        "y", (INPUT,), (CHANNELS,), False, weights(size), own(bias, 0.3), (1, 1), (0, 0, 0, 0), (1, 1), 1, norm,
        Activation(), None, True,
    )  # fmt: skip
    graph, module = graph_of(step)
    slope = (norm.gamma.double().abs() / (norm.variance.double() + eps).sqrt()).numpy()
    unit = np.array(graph.quantization["y.weight"].scale) * SCALE
    # A unit of the accumulator in codes; what the layer is built from is float32, as the network's own numbers are.
    codes = unit * slope / STEP
    sizes = (own(bias, 0.3).abs() + norm.mean.abs()).numpy() * slope + norm.beta.abs().numpy()
    bound = codes * (TAPS * 255 / 2 + 1) + sizes / STEP * 2.0**-21 + 255 * 2.0**-16 + 0.501
    expected = np.clip(real(step) / STEP + module.zero_point, 0, 255)
    found = np.stack([run_graph(graph, picture[None].numpy())["y"][0] for picture in pictures()])
    assert bool((np.abs(found - expected) <= bound).all()), (found - expected, bound)
    assert int(np.abs(graph.initializers["y.bias"]).max()) < 2**31 - 1


@settings(max_examples=60, deadline=None)
@given(size=SIZES, bias=SIGNED)
@example(size=1.0, bias=1e6)
@example(size=1e-12, bias=-1.0)
def test_logits_with_a_bias_of_any_size(size: float, bias: float) -> None:
    step = Logits("y", (INPUT,), (CHANNELS,), False, weights(1.0) * size, own(bias, 0.3 * size))
    graph, _ = graph_of(step)
    unit = graph.quantization["y.weight"].scale[0] * SCALE
    found = np.stack([run_graph(graph, picture[None].numpy())["y"][0] for picture in pictures()])
    bound = unit * (TAPS * 255 / 2 + 1) + abs(bias) * 2.0**-22
    assert bool((np.abs(found * unit - real(step)) <= bound).all())
    assert int(np.abs(graph.initializers["y.bias"]).max()) < 2**31 - TAPS * 2**15


def test_a_raised_weight_step_costs_little_of_the_constant() -> None:
    # The constant needs 38 bits at the learned step; at the raised one a tap's rounding is 2^-24 of it.
    norm = Norm(torch.ones(3), own(1e4, 0.0), torch.zeros(3), torch.ones(3), 0.0)
    step = Layer(
        "y", (INPUT,), (CHANNELS,), False, weights(1e-3), None, (1, 1), (0, 0, 0, 0), (1, 1), 1, norm, Activation(),
        None, True,
    )  # fmt: skip
    graph, module = graph_of(step)
    learned = module.weight_step().detach().numpy()
    raised = np.array(graph.quantization["y.weight"].scale)
    assert raised[1] / learned[1] > 1
    assert (raised[[0, 2]] == learned[[0, 2]]).all()
    assert math.isclose(graph.initializers["y.bias"][0, 1], 2**31, rel_tol=1e-5)


def test_a_dead_batch_norm_keeps_its_own_eps() -> None:
    norm = Norm(torch.ones(3), torch.zeros(3), torch.zeros(3), own(0.0, 1.0), 1e-2)
    step = Layer(
        "y", (INPUT,), (CHANNELS,), False, weights(1.0), None, (1, 1), (0, 0, 0, 0), (1, 1), 1, norm, Activation(),
        None, True,
    )  # fmt: skip
    graph, _ = graph_of(step)
    multiplier = graph.initializers["y.multiplier"][0, 1] * 2.0 ** -graph.initializers["y.shift"][0, 1]
    unit = graph.quantization["y.weight"].scale[1] * SCALE
    assert math.isclose(multiplier, unit / 0.1 / STEP, rel_tol=1e-4)
