"""Blocks of ten known structures, and the structures themselves: read, fitted, exported, compared on all engines.

Steps are set by least and greatest values, so what is measured is the nested network, not calibration.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from dqtsim.cli import main
from dqtsim.train import NestedConfig, NestingRules, export, prepare
from dqtsim.train.integer import integer_exact
from dqtsim.train.modules.base import Nested, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.network import NestedNetwork

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RULES = NestingRules(candidates=((8, 8), (4, 6)))


def block(inputs: int, outputs: int, kernel: int = 3, act: nn.Module | None = None, **how: Any) -> nn.Sequential:
    """Convolution, batch norm and activation."""
    how = {"padding": kernel // 2, "bias": False, **how}
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **how), nn.BatchNorm2d(outputs), act or nn.ReLU())


class Residual(nn.Module):
    """x + f(x), and an activation."""

    def __init__(self, body: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after = body, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.after(x + self.body(x)))


class Excite(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, act: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act, gate
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.gate(self.up(self.act(self.down(self.pool(x)))))) * x


class Dense(nn.Module):
    """Two dense layers, batch norm before the convolution, and a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False))
        self.two = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1, bias=False))
        self.transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, self.one(x)], 1)
        return cast(torch.Tensor, self.transition(torch.cat([x, self.two(x)], 1)))


class Shuffle(nn.Module):
    """Halves, one of them through a branch, and the channels of both in turn."""

    def __init__(self) -> None:
        super().__init__()
        depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4))
        self.branch = nn.Sequential(block(4, 4, 1), depthwise, block(4, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, taken = x.chunk(2, dim=1)
        x = torch.cat((kept, self.branch(taken)), dim=1)
        count, channels, rows, columns = x.shape
        return x.view(count, 2, channels // 2, rows, columns).transpose(1, 2).contiguous().view(x.shape)


class Branches(nn.Module):
    """Branches of several kernels side by side, one of them behind a pool."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Classifier(nn.Module):
    """A stem, a body of 8 channels, the mean of rows and columns, and a Linear."""

    def __init__(self, body: nn.Module, channels: int = 8, act: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.body, self.fc = block(3, 8, stride=2, act=act), body, nn.Linear(channels, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(functional.adaptive_avg_pool2d(self.body(self.stem(x)), 1).flatten(1)))


def linear(inputs: int, outputs: int, kernel: int = 1, **how: Any) -> nn.Sequential:
    return block(inputs, outputs, kernel, nn.Identity(), **how)


def mobile(act: nn.Module, excite: nn.Module) -> nn.Module:
    """An inverted residual."""
    body = nn.Sequential(block(8, 16, 1, act), block(16, 16, 3, act, groups=16), excite, linear(16, 8))
    return Residual(body, nn.Identity())


BLOCKS: dict[str, nn.Module] = {
    "resnet18": Classifier(Residual(nn.Sequential(block(8, 8), linear(8, 8, 3)), nn.ReLU(inplace=True))),
    "resnet50": Classifier(Residual(nn.Sequential(block(8, 4, 1), block(4, 4), linear(4, 8)), nn.ReLU(inplace=True))),
    "mobilenet_v2": Classifier(mobile(nn.ReLU6(), nn.Identity()), act=nn.ReLU6()),
    "mobilenet_v3_small": Classifier(
        mobile(nn.Hardswish(), Excite(16, nn.ReLU(), nn.Hardsigmoid())), act=nn.Hardswish()
    ),
    "efficientnet_b0": Classifier(mobile(nn.SiLU(), Excite(16, nn.SiLU(), nn.Sigmoid())), act=nn.SiLU()),
    "vgg11_bn": nn.Sequential(
        block(3, 8, bias=True), nn.MaxPool2d(2), block(8, 8, bias=True), nn.AdaptiveAvgPool2d((3, 5)), nn.Flatten(),
        nn.Linear(120, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 6),
    ),
    "densenet121": Classifier(Dense()),
    "shufflenet_v2": Classifier(nn.Sequential(Shuffle(), Shuffle())),
    "googlenet": Classifier(
        nn.Sequential(
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Branches(
                block(8, 4, 1),
                nn.Sequential(block(8, 4, 1), block(4, 4)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), block(8, 4, 1)),
            ),
        ),
        12,
    ),
    "squeezenet": nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 4, 1), nn.ReLU(),
        Branches(nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())),
        nn.Conv2d(12, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
}  # fmt: skip


def pictures(size: int, count: int = 6) -> torch.Tensor:
    """Smooth pictures, as photographs are, uint8 [N, 3, size, size]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn((count, 3, 5, 5), generator=generator)
    fine = torch.randn((count, 3, size, size), generator=generator)
    smooth = functional.interpolate(coarse, (size, size), mode="bicubic") + 0.2 * fine
    return (smooth * 50 + 120).clamp(0, 255).round().to(torch.uint8)


def floats(codes: torch.Tensor) -> torch.Tensor:
    return (codes.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def with_statistics(model: nn.Module, codes: torch.Tensor) -> nn.Module:
    """Batch norm statistics from pictures; dropouts stay out of it."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        model(floats(codes))
    return model.eval()


def fitted(network: NestedNetwork, codes: torch.Tensor) -> NestedNetwork:
    """Steps and zero points from the least and the greatest values on pictures, weights from the largest."""
    modules = network.by_name()
    for name, value in network.activations(codes).items():
        module = modules.get(name)
        if isinstance(module, Nested):
            low, high = min(float(value.min()), 0.0), float(value.max())
            module.zero_point = 0 if module.positive else round(-low / (high - low) * 255)
            above, below = high / (255 - module.zero_point), -low / max(module.zero_point, 1)
            module.step.set(torch.tensor(max(above, below)))
        if isinstance(module, NestedLayer | NestedLogits):
            weight = module.weight.detach().abs()
            module.weight_step.set((weight.flatten(1).amax(1) if isinstance(module, Nested) else weight.max()) / 127)
    network.calibrated = True
    return network.eval()


def signal_to_noise(model: nn.Module, network: NestedNetwork, codes: torch.Tensor) -> float:
    """Decibels of the float outputs, less their mean, over the integers' difference from them."""
    with torch.no_grad(), integer_exact(network):
        expected, found = model(floats(codes)).double(), network(codes, Uniform(0)).double()
    noise = (found - expected).square().sum()
    return float(10 * ((expected - expected.mean()).square().sum() / noise).log10())


def nested(model: nn.Module, size: int, count: int = 6) -> NestedNetwork:
    config = NestedConfig(RULES, (3, size, size), 0, 1 / 255, MEAN, STD)
    return fitted(prepare(model, config), pictures(size, count))


def compare(network: NestedNetwork, codes: torch.Tensor, folder: Path, engines: str) -> None:
    """Assert that `dqtsim compare` finds the same bits by all engines, at eight bits and at w4a6."""
    path = folder / "model.onnx"
    classes = network.steps[-1].shape[0]
    export(network, codes[:1], path, class_names=tuple(map(str, range(classes))))
    np.save(folder / "x.npy", codes[:1].numpy())
    for bits in ("8", "w4a6"):
        words = ["compare", str(path), "--input", str(folder / "x.npy"), "--engines", engines, "--bits", bits]
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        assert (result.exit_code, result.stdout.count(": 0 different")) == (0, engines.count(",")), result.output


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_each_structure(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    codes = pictures(18)
    model = with_statistics(BLOCKS[name], codes)
    network = nested(model, 18)
    assert signal_to_noise(model, network, codes) > 25
    compare(network, codes, tmp_path, "spec,native,numba,onnxruntime,torch")


# The structures themselves, with random weights. Where batch norms follow each other through tens of
# layers, random weights amplify noise by 1 to 2 dB a layer, so what is left of 35 dB a layer depends on depth.
STRUCTURES = {
    "resnet18": 18, "resnet50": 5, "mobilenet_v2": 4, "mobilenet_v3_small": 5, "efficientnet_b0": 0, "vgg11_bn": 18,
    "densenet121": 6, "shufflenet_v2_x1_0": 5, "googlenet": 6, "squeezenet1_0": 25,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_of_torchvision(name: str, tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="the structures are torchvision's")
    torch.manual_seed(0)
    more = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    size = 32 if name == "vgg11_bn" else 64
    codes = pictures(size, 16)
    model = with_statistics(getattr(models, name)(weights=None, **more), codes)
    network = nested(model, size, 16)
    assert signal_to_noise(model, network, codes) > STRUCTURES[name]
    compare(network, codes, tmp_path, "native,numba,onnxruntime,torch")
