"""The steps of a network computed in float, each from its own numbers alone, whatever it was read from."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch.nn import functional

from dqtsim.train import steps
from dqtsim.train.steps import INPUT


def evaluate(network: Sequence[steps.Step], pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs [N, ...] of all steps for float pictures [N, C, H, W], in the pictures' dtype and on their device."""
    values = {INPUT: pictures}
    for step in network:
        _, values[step.name] = evaluate_step(step, [values[source] for source in step.sources])
    del values[INPUT]
    return values


def evaluate_step(step: steps.Step, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of inputs [N, ...]: the value before its activation, and its output.

    The step's tensors must be in the inputs' dtype and on their device. Raises RuntimeError where shapes do not fit.
    """
    y = _KINDS[type(step)](step, *inputs)
    activation = getattr(step, "activation", steps.Activation())
    return y, y.clamp(0, activation.ceiling) if activation.rectified else y


def apply(function: steps.Function, x: torch.Tensor) -> torch.Tensor:
    """A pointwise function of x [N, C, ...]."""
    return cast(torch.Tensor, _applied(function, x))


def at(step: steps.Table, values: torch.Tensor) -> torch.Tensor:
    """A table's function at real `values` [K]: [K], or [C, K] if it is per channel."""
    if not step.per_channel:
        return apply(step.function, values)
    channels, *places = step.shape
    x = values.reshape(-1, 1, *[1] * len(places)).expand(-1, channels, *[1] * len(places))
    return apply(step.function, x).flatten(1).T.contiguous()


def _applied(value: Any, x: torch.Tensor) -> Any:
    if isinstance(value, steps.Argument):
        return x
    if not isinstance(value, steps.Call):
        return value
    packet, overload = value.operator.split(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload)
    return operator(
        *(_applied(argument, x) for argument in value.arguments),
        **{name: _applied(argument, x) for name, argument in value.keywords},
    )


def _layer(step: steps.Layer, x: torch.Tensor) -> torch.Tensor:
    if step.flat:
        y = functional.linear(x, step.weight, step.bias)
    else:
        x = _padded(x, step.pads, step.padding)
        y = functional.conv2d(x, step.weight, step.bias, step.strides, 0, step.dilations, step.groups)
    norm = step.norm
    if norm is None:
        return y
    return functional.batch_norm(y, norm.mean, norm.variance, norm.gamma, norm.beta, training=False, eps=norm.eps)


def _padded(x: torch.Tensor, pads: steps.Sides, value: Sequence[float] | float | None) -> torch.Tensor:
    """Surround x [N, C, H, W] with a border of `value`, one for all channels or one per channel."""
    top, left, bottom, right = pads
    sides = (left, right, top, bottom)
    if not any(sides):
        return x
    if value is None or isinstance(value, float):
        return functional.pad(x, sides, value=value or 0.0)
    border = torch.tensor(value, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
    outside = functional.pad(torch.zeros_like(x[0, :1]), sides, value=1.0)
    return functional.pad(x, sides) + outside * border


def _average(step: steps.AveragePool, x: torch.Tensor) -> torch.Tensor:
    x = _padded(x, step.pads, None)
    if step.divisor is None:
        return functional.avg_pool2d(x, step.kernel, step.stride)
    return functional.avg_pool2d(x, step.kernel, step.stride, divisor_override=1) / step.divisor


def _maximum(step: steps.MaxPool, x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(_padded(x, step.pads, float("-inf")), step.kernel, step.stride, 0, step.dilations)


def _take(step: steps.Take, x: torch.Tensor) -> torch.Tensor:
    indices = torch.tensor(step.indices, device=x.device)
    taken = x.index_select(step.axis + 1, indices.clamp_min(0))
    kept = (indices >= 0).reshape(-1, *[1] * (x.dim() - step.axis - 2))
    return torch.where(kept, taken, torch.zeros_like(taken))


_KINDS: dict[type[steps.Step], Callable[..., torch.Tensor]] = {
    steps.Layer: _layer,
    steps.Logits: lambda step, x: functional.linear(x, step.weight, step.bias),
    steps.Add: lambda _, a, b: a + b,
    steps.Multiply: lambda _, a, b: a * b,
    steps.Concat: lambda step, *parts: torch.cat(parts, step.axis + 1),
    steps.AveragePool: _average,
    steps.MaxPool: _maximum,
    steps.Rectify: lambda _, x: x,
    steps.Table: lambda step, x: apply(step.function, x),
    steps.Take: _take,
    steps.Reshape: lambda step, x: x.reshape(-1, *step.shape),
    steps.Transpose: lambda step, x: x.permute(0, *(axis + 1 for axis in step.order)),
    steps.Flatten: lambda _, x: x.flatten(1),
}
