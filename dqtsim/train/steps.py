"""The steps of a traced network: one frozen class per kind of step.

A step's name is also the name of its output tensor, of its module and of its node in the model file.
"""

from dataclasses import dataclass

from torch import nn

Pair = tuple[int, int]


@dataclass(frozen=True)
class Activation:
    """The clamp after a sum: `rectified` at 0, and at `ceiling` if there is one (ReLU6)."""

    rectified: bool = False
    ceiling: float | None = None


@dataclass(frozen=True)
class Step:
    """A step's name, its inputs by name, its output's shape without N, and whether it is never negative."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    positive: bool


@dataclass(frozen=True)
class Layer(Step):
    """Convolution or fully connected layer, the batch norm after it and the activation after that."""

    module: nn.Conv2d | nn.Linear
    padding: Pair
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None
    activation: Activation


@dataclass(frozen=True)
class Logits(Step):
    """The classifier."""

    module: nn.Linear


@dataclass(frozen=True)
class Add(Step):
    """Residual addition and its activation."""

    activation: Activation


@dataclass(frozen=True)
class AveragePool(Step):
    """Average over windows, padded taps included."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True)
class MaxPool(Step):
    """Maximum over windows."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True)
class Rectify(Step):
    """A separate activation."""

    activation: Activation


@dataclass(frozen=True)
class Flatten(Step):
    """[C, H, W] to [C*H*W]."""


@dataclass(frozen=True)
class Concat(Step):
    """Concatenation of channels."""
