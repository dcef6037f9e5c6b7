"""What `prepare` makes of ordinary networks, and what it refuses by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.nn import functional

from dqtsim import load, load_target
from dqtsim.errors import InputError, ModelError
from dqtsim.golden import verify
from dqtsim.train import NestedConfig, NestingRules, calibrate, export, prepare
from dqtsim.train.exact import run_batch, run_graph
from dqtsim.train.folding import fold
from dqtsim.train.modules.base import Mixed, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.network import NestedNetwork

SHAPE = (3, 12, 12)
EVERY = NestingRules(candidates=((2, 2), (4, 4), (8, 8)))


def pictures(count: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def floats(codes: torch.Tensor) -> torch.Tensor:
    return (codes.float() - 128) / 64


class Everything(nn.Module):
    """One of each: groups, depthwise, dilation, even strides, no batch norm, ReLU6, lone ReLU, cat, pools, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.grouped = nn.Conv2d(8, 8, 3, padding=(1, 2), stride=(1, 2), groups=4)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu6 = nn.ReLU6()
        self.plain = nn.Conv2d(8, 4, 1, padding="same")
        self.drop = nn.Dropout(0.5)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.hidden = nn.Linear(12 * 3 * 3, 10)
        self.hidden_norm = nn.BatchNorm1d(10)
        self.last = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        a = functional.relu(self.grouped(x))
        b = self.relu6(self.norm(self.depthwise(functional.max_pool2d(x, (1, 2), stride=(1, 2), padding=0))))
        a = functional.max_pool2d(a, (1, 2), 1)
        y = a + b
        signed = self.plain(y)
        both = torch.cat([y, signed], dim=1)
        both = torch.relu(self.pool(both))
        both = functional.adaptive_avg_pool2d(both, 3)
        z = self.drop(both).view(both.size(0), -1)
        z = torch.relu_(self.hidden_norm(self.hidden(z)))
        return cast(torch.Tensor, self.last(z))


def trained(model: nn.Module) -> nn.Module:
    """Give batch norm statistics and gammas of both signs to a network of random weights."""
    torch.manual_seed(3)
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None
                module.weight.normal_(0, 1)
                module.bias.normal_(0, 0.3)
        for _ in range(3):
            model(floats(pictures()))
    return model.eval()


@pytest.fixture(scope="module")
def everything() -> tuple[nn.Module, NestedNetwork]:
    torch.manual_seed(0)
    model = trained(Everything())
    network = prepare(model, NestedConfig(EVERY, SHAPE))
    return model, calibrate(network, [pictures()])


def test_every_kind_of_step_is_rewritten(everything: tuple[nn.Module, NestedNetwork]) -> None:
    _, network = everything
    assert [(type(step).__name__, step.name) for step in network.steps] == [
        ("Layer", "stem"), ("Layer", "grouped"), ("MaxPool", "pool"), ("Layer", "depthwise"), ("MaxPool", "pool2"),
        ("Add", "add"), ("Layer", "plain"), ("Concat", "cat"), ("AveragePool", "pool3"), ("Rectify", "relu"),
        ("AveragePool", "pool4"), ("Flatten", "flat"), ("Layer", "hidden"), ("Logits", "last"),
    ]  # fmt: skip


def test_at_eight_bits_the_nested_network_is_nearly_the_float_one(
    everything: tuple[nn.Module, NestedNetwork],
) -> None:
    model, _ = everything
    wide = NestingRules(candidates=((6, 6), (8, 8)))
    network = calibrate(prepare(model, NestedConfig(wide, SHAPE)), [pictures()])
    with torch.no_grad():
        expected = model(floats(pictures()))
        errors = [(network(pictures(), Uniform(k)) - expected).square().mean().sqrt() for k in range(2)]
    six, eight = (float(error / expected.std()) for error in errors)
    assert eight < 0.08
    assert six < 0.15


def test_its_integers_are_those_of_the_engine(everything: tuple[nn.Module, NestedNetwork], tmp_path: Path) -> None:
    _, network = everything
    path = tmp_path / "every.onnx"
    graph = export(network, pictures(2), path, class_names=tuple("abcde"))
    verdicts = list(verify(path, load(path), load_target("default"), "jit", [tmp_path / "every-golden"]))
    assert [verdict.first for verdict in verdicts] == [None] * 6
    codes = run_graph(graph, pictures(1).numpy())
    assert codes["depthwise"].max() > codes["depthwise"].min()
    assert not graph.dynamic
    assert graph.pinned == {"stem": (8, 8)}


@pytest.mark.parametrize("pair", range(3))
def test_its_integers_are_nearly_the_fake_quantized_codes(
    everything: tuple[nn.Module, NestedNetwork], pair: int
) -> None:
    _, network = everything
    graph = fold(network)
    widths = torch.tensor([graph.pinned.get(layer, EVERY.pairs[pair]) for layer in graph.layers])
    logits, _ = run_batch(graph, pictures(), widths)
    last = cast(NestedLogits, network.layer("last"))
    with torch.no_grad():
        fake = network(pictures(), Uniform(pair))
        real = logits * (last.weight_step() * cast(NestedLayer, network.layer("hidden")).step())
    # A code on the edge between two may fall either way, and a narrow width makes that a large difference.
    assert float((real - fake).abs().median() / fake.std()) < 0.01


def test_a_negative_gamma_turns_its_weights_and_a_bias_goes_into_the_mean() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
    model = trained(nn.Sequential(conv, norm, nn.Flatten(), nn.Linear(600, 2)))
    assert bool((norm.weight < 0).any())
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.add_(0.5)
    network = prepare(model, NestedConfig(EVERY, SHAPE)).eval()
    network.set_steps(pictures())
    layer = cast(NestedLayer, network.layer(network.steps[0].name))
    layer.weight_step.set(layer.weight.detach().flatten(1).abs().amax(1) / 127)
    assert bool((layer.positive_gamma() > 0).all())
    with torch.no_grad():
        found = network.features(pictures()).real()
        expected = norm(conv(floats(pictures())))
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std())


def test_the_ceiling_of_relu6_is_the_largest_code() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(600, 2))
    network = prepare(model, NestedConfig(EVERY, SHAPE))
    layer = cast(NestedLayer, network.layer(network.steps[0].name))
    layer.step.set(torch.tensor(6 / 200))
    assert layer.high() == 200
    with torch.no_grad():
        layer.beta.add_(4)
        assert float(network.features(pictures()).values.max()) == 200
    graph = fold(network)
    assert graph.node(network.steps[0].name).integer("high") == 200


@pytest.mark.parametrize("soft", [False, True])
def test_gradients_reach_every_parameter(everything: tuple[nn.Module, NestedNetwork], soft: bool) -> None:
    model, _ = everything
    network = prepare(model, NestedConfig(EVERY, SHAPE))
    network.set_steps(pictures())
    network.train()
    layers = len(network.layer_names)
    logits = torch.randn((16, layers, 3), generator=torch.Generator().manual_seed(0)).requires_grad_()
    probabilities = functional.softmax(logits, -1)
    choice = probabilities.argmax(-1)
    if not soft:
        hard = functional.one_hot(choice, 3).float()
        probabilities = hard + probabilities - probabilities.detach()
    torch.autograd.backward(network(pictures(), Mixed(probabilities, choice, not soft, soft)).square().sum())
    assert logits.grad is not None
    assert bool((logits.grad.abs().sum((0, 2)) > 0).all())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


class Odd(nn.Module):
    """A stem, something odd, and a classifier."""

    def __init__(self, odd: Callable[[torch.Tensor], torch.Tensor] | nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.odd: Any = odd
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(self.odd(self.stem(x)).mean((2, 3))))


def test_what_cannot_be_rewritten_is_named() -> None:
    with pytest.raises(ModelError) as raised:
        prepare(Odd(nn.LayerNorm(12)), NestedConfig(EVERY, SHAPE))
    assert str(raised.value).endswith("; module 'odd' (LayerNorm) is none of them.")


def test_ends_and_control_flow_are_refused() -> None:
    class Branches(Odd):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    def refusal(model: nn.Module) -> str:
        with pytest.raises(ModelError) as raised:
            prepare(model, NestedConfig(EVERY, SHAPE))
        return str(raised.value)

    assert refusal(Branches(nn.Identity())) == (
        "a network must compute the same operations for all pictures, but 'return super().forward(x if x.sum() > 0 "
        "else -x)' decides by the values of a tensor; torch.where computes both sides."
    )
    shared = nn.Conv2d(4, 4, 1)
    twice = prepare(Odd(nn.Sequential(shared, shared)), NestedConfig(EVERY, SHAPE))
    assert [step.name for step in twice.steps][:3] == ["stem", "odd", "odd.1"]


def test_pictures_of_another_shape_are_refused(everything: tuple[nn.Module, NestedNetwork], tmp_path: Path) -> None:
    _, network = everything
    with pytest.raises(InputError) as raised:
        export(network, torch.zeros((1, 3, 8, 8), dtype=torch.uint8), tmp_path / "no.onnx")
    assert str(raised.value) == "pictures must be [N, 3, 12, 12], but these are [1, 3, 8, 8]."
    assert not (tmp_path / "no.onnx").exists()
    with pytest.raises(InputError) as raised:
        calibrate(network, [])
    assert str(raised.value) == "calibration needs at least one picture, but there is none."


def test_the_float_network_is_left_as_it_was(everything: tuple[nn.Module, NestedNetwork]) -> None:
    model, _ = everything
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(prepare(model, NestedConfig(EVERY, SHAPE)), [pictures()])
    assert not model.training
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), before[name].numpy()), name
