"""Multiplications by constants and additions of constants, one per channel or one for all."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.reader import Reader
from dqtsim.train.steps import Norm


@dataclass(frozen=True)
class Affine:
    """Scale * x + shift, each a tensor [C] or []."""

    scale: torch.Tensor
    shift: torch.Tensor

    @property
    def uniform(self) -> bool:
        """Whether it is the same for all channels."""
        return self.scale.numel() == 1 and self.shift.numel() == 1


def is_norm(node: fx.Node) -> bool:
    """Whether a node is a batch norm, in whatever mode."""
    return "batch_norm" in called(node)


def norm_of(reader: Reader, node: fx.Node) -> Norm:
    """A batch norm's numbers; refused where it takes the statistics of the batch."""
    given = arguments(node)
    if given.get("training") or "functional" in called(node) or given.get("running_mean") is None:
        raise reader.refuse(
            node, "must normalise with its running statistics, but takes those of the batch; call eval() on it, and "
            "track_running_stats must be True"
        )  # fmt: skip
    mean, variance = (reader.constant(node, given[name], "statistics") for name in ("running_mean", "running_var"))
    gamma = torch.ones_like(mean) if given["weight"] is None else reader.constant(node, given["weight"], "weights")
    beta = torch.zeros_like(mean) if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    return Norm(gamma, beta, mean, variance, float(given["eps"]))


def affine_of(reader: Reader, node: fx.Node) -> Affine | None:
    """What a node does to its only tensor, if it is a batch norm or arithmetic with constants."""
    if is_norm(node):
        norm = norm_of(reader, node)
        scale = norm.gamma / (norm.variance + norm.eps).sqrt()
        return Affine(scale, norm.beta - norm.mean * scale)
    given, one, none = arguments(node), torch.tensor(1.0).double(), torch.tensor(0.0).double()
    name = called(node)
    if name == "neg":
        return Affine(-one, none)
    if name not in ("add", "sub", "rsub", "mul", "div") or given.get("rounding_mode") is not None:
        return None
    x, other = given["self"], given["other"]
    first = reader.is_constant(x)
    if first == reader.is_constant(other):
        return None
    constant = per_channel(reader, node, x if first else other)
    if constant is None:
        return None
    if name == "mul":
        return Affine(constant, none)
    if name == "div":
        return None if first else Affine(1 / constant, none)
    # x + alpha * other, x - alpha * other, other - alpha * x
    alpha = float(given.get("alpha", 1))
    scales = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    of_constant, of_tensor = scales if first else scales[::-1]
    return Affine(one * of_tensor, constant * of_constant)


def per_channel(reader: Reader, node: fx.Node, operand: Any) -> torch.Tensor | None:
    """A constant operand of a node as a tensor [C] or [], or None if it differs from position to position."""
    value = reader.values.get(operand, operand) if isinstance(operand, fx.Node) else operand
    value = torch.as_tensor(value)
    value = value.double() if value.dtype != torch.bool else value
    axes = len(reader.shape(node)) + 1
    if value.dim() > axes:
        return None
    value = value.reshape((1,) * (axes - value.dim()) + tuple(value.shape))
    for axis in (axis for axis in range(axes) if axis != 1):
        first = value.narrow(axis, 0, 1)
        if not bool((value == first).all()):
            return None
        value = first
    value = value.flatten()
    return value[0] if bool((value == value[0]).all()) else value


def channels(value: torch.Tensor, count: int) -> torch.Tensor:
    """One value per channel, [C]."""
    return value.expand(count).clone() if value.dim() == 0 else value
