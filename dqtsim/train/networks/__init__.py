"""Architectures that `dqtsim train` knows by name: plain PyTorch modules without any nesting."""

from collections.abc import Callable

from torch import nn

from dqtsim.errors import InputError
from dqtsim.train.networks.mobilenet import mobilenetv2
from dqtsim.train.networks.resnet import resnet8, resnet18, resnet18_imagenet, resnet20, resnet50
from dqtsim.train.rules import NETWORK_NAMES

__all__ = ["NETWORKS", "build"]

# (classes, factor on all channel counts) -> network
NETWORKS: dict[str, Callable[[int, float], nn.Module]] = dict(
    zip(NETWORK_NAMES, (resnet8, resnet20, resnet18, resnet18_imagenet, resnet50, mobilenetv2), strict=True)
)


def build(name: str, classes: int, width: float = 1.0) -> nn.Module:
    """The network called `name`, randomly initialised; `width` multiplies its channel counts."""
    if name not in NETWORKS:
        raise InputError(f"A network must be one of {', '.join(NETWORKS)}, but is '{name}'.")
    return NETWORKS[name](classes, width)
