"""Every built-in architecture: a short real training, export, and the engine bit for bit against the exact path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim import load, load_target
from dqtsim.errors import InputError
from dqtsim.golden import verify
from dqtsim.structures import STRUCTURES, build
from dqtsim.train import NestedConfig, export, networks, prepare
from dqtsim.train.controller import sample
from dqtsim.train.evaluate import float_pictures
from dqtsim.train.loss import task_loss
from dqtsim.train.modules.base import Codes, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.rules import NETWORK_NAMES

WIDTHS = {"resnet8": 1.0, "resnet20": 0.5}


def float_steps(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Six steps are too few for the usual average of statistics.
            module.momentum = 0.7
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = task_loss(network(float_pictures(images)), labels, 0.0)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def layers_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]


def weight_shapes(modules: Sequence[Any]) -> list[tuple[int, ...]]:
    return sorted((tuple(module.weight.shape) for module in modules), key=str)


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_it_trains_and_exports_and_runs_bit_for_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(16) % 4
    source = networks.build(name, 4, WIDTHS.get(name, 0.125))
    losses = float_steps(source, images, labels)
    assert min(losses[1:]) < losses[0]

    network = prepare(source, NestedConfig())
    modules = [module for module in network.by_name().values() if isinstance(module, NestedLayer | NestedLogits)]
    assert weight_shapes(modules) == weight_shapes(layers_of(source))
    network.set_steps(images)
    controller = network.new_controller()
    with torch.no_grad():
        controller.calibrate(network.features(images))
    # Adam, because a step's gradient is large where a thousand codes share it and its logarithm is what moves.
    optimizer = torch.optim.Adam([*network.parameters(), *controller.parameters()], 1e-3)
    network.train()
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    stem = network.features(images, torch.float32)
    leaf = Codes(stem.values.detach().requires_grad_(), stem.step.detach().requires_grad_(), stem.zero_point)
    mixed = sample(controller(leaf), 1.0, torch.Generator().manual_seed(0))
    for policy in (Uniform(0), Uniform(2), mixed):
        torch.autograd.backward(task_loss(network.head(leaf, policy), labels, 0.0))
    torch.autograd.backward([stem.values, stem.step], [leaf.values.grad, leaf.step.grad])
    optimizer.step()
    changed = [key for key, value in network.named_parameters() if not torch.equal(value, before[key])]
    # Every layer's weights have moved; a parameter may have no gradient where all its codes are clipped.
    assert {key for key in before if key.endswith(".weight")} <= set(changed)

    graph = export(network, images[:1], tmp_path / "net.onnx", controller=controller)
    verdicts = list(verify(tmp_path / "net.onnx", load(tmp_path / "net.onnx"), load_target("default"), "jit",
                           [tmp_path / "net-golden"]))  # fmt: skip
    assert [verdict.first for verdict in verdicts] == [None] * 4
    assert graph.dynamic
    assert graph.pinned == {"stem": (8, 8)}


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_it_has_the_published_shapes(name: str) -> None:
    """As the structures of `dqtsim new` have, checked against the papers; nesting keeps them, see above."""
    assert NETWORK_NAMES == STRUCTURES
    published = build(name, input_size=32, classes=10)
    shapes = [published.initializers[f"{layer}.weight"].shape for layer in published.layers]
    assert weight_shapes(layers_of(networks.build(name, 10))) == sorted(shapes, key=str)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(InputError) as raised:
        networks.build("vgg", 10)
    assert str(raised.value) == f"A network must be one of {', '.join(NETWORK_NAMES)}, but is 'vgg'."
