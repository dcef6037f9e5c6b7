"""The steps of a network as it was read: one frozen class per kind of step, its numbers as tensors.

A step's name is also the name of its output tensor, of its module and of its node in the model file. Shapes are without
N. Steps hold no modules: they can be copied, pickled, and evaluated anywhere (`floats.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, cast

import torch

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]  # top, left, bottom, right
Read = TypeVar("Read")

INPUT = "input"


@dataclass(frozen=True)
class Activation:
    """The clamp after a sum: `rectified` at 0, and at `ceiling` if there is one (ReLU6)."""

    rectified: bool = False
    ceiling: float | None = None


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch norm as in inference, tensors [O]: gamma * (x - mean) / sqrt(variance + eps) + beta."""

    gamma: torch.Tensor
    beta: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    eps: float


@dataclass(frozen=True)
class Argument:
    """The tensor that a function is of."""


@dataclass(frozen=True, eq=False)
class Call:
    """A pointwise ATen operator, as "relu.default", of arguments in its schema's order; keyword arguments by name.

    An argument is the function's own argument, another call, a number, or a constant tensor, [] or [C, 1, ...].
    """

    operator: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()


Function = Argument | Call


@dataclass(frozen=True, eq=False)
class Step:
    """A step's name, its inputs by name, its output's shape without N, and whether it is never negative."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    positive: bool


@dataclass(frozen=True, eq=False)
class Layer(Step):
    """Convolution, or fully connected layer, the batch norm after it and the activation after that.

    `weight` is [O, I/groups, kh, kw], or [O, I] of a fully connected layer, whose strides and pads say nothing. Padded
    taps are 0, or `padding`, a real value per channel of the input. A `pinned` layer is always at (8, 8): each that
    reads the picture, and what is a layer here only because its numbers are per channel.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    strides: Pair
    pads: Sides
    dilations: Pair
    groups: int
    norm: Norm | None
    activation: Activation
    padding: tuple[float, ...] | None
    pinned: bool

    @property
    def flat(self) -> bool:
        """Whether it is fully connected."""
        return self.weight.dim() == 2


@dataclass(frozen=True, eq=False)
class Logits(Step):
    """A fully connected layer whose sums are an output: `weight` [O, I], `bias` [O]."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Add(Step):
    """Sum of two tensors of one shape, and its activation."""

    activation: Activation


@dataclass(frozen=True, eq=False)
class Multiply(Step):
    """Product of two tensors and its activation; the second is of the first's shape, or [C, 1, 1]."""

    activation: Activation


@dataclass(frozen=True, eq=False)
class Concat(Step):
    """Concatenation along an axis; axis 0 of a shape is the channels'."""

    axis: int = 0


@dataclass(frozen=True, eq=False)
class AveragePool(Step):
    """Sum over windows, padded taps being 0, by the number of taps or by `divisor` [H', W']."""

    kernel: Pair
    stride: Pair
    pads: Sides
    divisor: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """Maximum over windows; padded taps do not count."""

    kernel: Pair
    stride: Pair
    pads: Sides
    dilations: Pair = (1, 1)


@dataclass(frozen=True, eq=False)
class Rectify(Step):
    """A separate activation."""

    activation: Activation


@dataclass(frozen=True, eq=False)
class Table(Step):
    """A pointwise function of one tensor; `per_channel` if its constants differ from channel to channel."""

    function: Function
    per_channel: bool


@dataclass(frozen=True, eq=False)
class Take(Step):
    """Positions `indices` along `axis` of the shape; -1 is real 0."""

    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reshape(Step):
    """The same numbers in the same order in the step's shape."""


@dataclass(frozen=True, eq=False)
class Transpose(Step):
    """Axes in another order: axis i of the output is axis `order[i]` of the input, as shapes count them."""

    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Flatten(Step):
    """[C, H, W] to [C*H*W]."""


@dataclass(frozen=True)
class Traced:
    """A network as it was read: its steps in order, the names of those that are outputs, and what was left out."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()


def converted(value: Read, to: torch.dtype | torch.device) -> Read:
    """A copy of a step, or of anything made of dataclasses, tuples and tensors, with its float tensors as `to` says."""
    if isinstance(value, torch.Tensor):
        return cast(Read, value.to(to) if value.is_floating_point() else value)
    if isinstance(value, tuple):
        return cast(Read, tuple(converted(part, to) for part in value))
    if is_dataclass(value) and not isinstance(value, type):
        return cast(Read, type(value)(**{f.name: converted(getattr(value, f.name), to) for f in fields(value)}))
    return value


def readers(steps: Sequence[Step], name: str) -> list[Step]:
    """The steps that read the tensor called `name`."""
    return [step for step in steps if name in step.sources]
