"""Structures as people have them, from torchvision and a package: each is read whole, and agrees at every step."""

from collections import Counter
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn

from dqtsim.train import NestedConfig
from dqtsim.train.rewrite import read

SHAPE = (3, 64, 64)
KINDS = {
    "resnet18": "Layer 20, MaxPool 1, Add 8, AveragePool 1, Flatten 1, Logits 1",
    "resnet50": "Layer 53, MaxPool 1, Add 16, AveragePool 1, Flatten 1, Logits 1",
    "mobilenet_v2": "Layer 52, Add 10, AveragePool 1, Flatten 1, Logits 1",
    "mobilenet_v3_small": "Layer 53, Table 28, AveragePool 10, Multiply 9, Add 6, Flatten 1, Logits 1",
    "efficientnet_b0": "Layer 81, Table 65, AveragePool 17, Multiply 16, Add 9, Flatten 1, Logits 1",
    # Pictures of 64 leave 2x2 positions, which its adaptive pool spreads to 7x7.
    "vgg11_bn": "Layer 10, MaxPool 5, Take 2, AveragePool 1, Flatten 1, Logits 1",
    # Each norm before a convolution is a layer of one weight per channel.
    "densenet121": "Layer 182, MaxPool 1, Concat 62, AveragePool 4, Flatten 1, Logits 1",
    "shufflenet_v2_x1_0": (
        "Layer 56, MaxPool 1, Concat 16, Reshape 32, Transpose 16, Take 26, AveragePool 1, Flatten 1, Logits 1"
    ),
    "googlenet": "Layer 57, MaxPool 13, Concat 9, AveragePool 1, Flatten 1, Logits 1",
    "squeezenet1_1": "Layer 26, MaxPool 3, Concat 8, AveragePool 1, Flatten 1",
}


def kinds(model: nn.Module) -> str:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.5)
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
    traced = read(model, NestedConfig(input_shape=SHAPE))
    return ", ".join(f"{name} {count}" for name, count in Counter(type(s).__name__ for s in traced.steps).items())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_structure_of_torchvision_is_read_whole(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    options: dict[str, Any] = {"init_weights": False} if name == "googlenet" else {}
    assert kinds(getattr(models, name)(weights=None, **options)) == KINDS[name]


@pytest.mark.slow
def test_efficientnet_lite_with_its_padding_in_forward_is_read_whole() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    found = kinds(package.EfficientNet.from_name("efficientnet-lite0"))
    assert found == "Layer 49, Add 9, AveragePool 1, Flatten 1, Logits 1"
