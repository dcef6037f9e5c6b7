"""Functions of single values, and sums and products of two tensors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dqtsim.train.onnx.call import Call, Function, Handler, Operation

Number = torch.Tensor | float


def _float(call: Call, name: str, default: float) -> float:
    # The attribute is a float32 in the file.
    return float(np.float32(call.attribute(name, default)))


def _unary(function: Function) -> Handler:
    def handler(call: Call) -> Operation:
        call.x()
        return Operation(function)

    return handler


def _with(function: Function, **parameters: tuple[str, float]) -> Handler:
    """The handler of a function whose keyword arguments are attributes with defaults."""

    def handler(call: Call) -> Operation:
        call.x()
        own = {keyword: _float(call, name, default) for keyword, (name, default) in parameters.items()}
        return Operation(partial(function, **own))

    return handler


def _hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    # PyTorch's own has 1/6 and 1/2, which float32 gives only nearly.
    if (alpha, beta) == (float(np.float32(1 / 6)), 0.5):
        return functional.hardsigmoid(x)
    return (x * alpha + beta).clamp(0.0, 1.0)


def _gelu(call: Call) -> Operation:
    call.x()
    return Operation(partial(functional.gelu, approximate=call.attribute("approximate", "none")))


def _softplus(x: torch.Tensor) -> torch.Tensor:
    return functional.softplus(x)


def _clip(call: Call) -> Operation:
    call.x()
    if call.opset < 11:
        low, high = (call.attribute(name) for name in ("min", "max"))
    else:
        low, high = (call.number(position) if call.has(position) else None for position in (1, 2))
    # Without limits in the file, they are those of float32.
    largest = float(np.finfo(np.float32).max)
    low = None if low is None or low <= -largest else float(low)
    high = None if high is None or high >= largest else float(high)
    if low == 0.0 and high == 6.0:
        return Operation(functional.relu6)
    if low == 0.0 and high is None:
        return Operation(functional.relu)
    if low is None and high is None:
        return Operation(torch.Tensor.clone)
    return Operation(partial(torch.clamp, min=low, max=high))


def _prelu(call: Call) -> Operation:
    x, slope = call.x(), call.tensor(1)
    count = x.shape[1]
    if slope.numel() != 1 and (slope.numel() != count or slope.shape[-1] != (count if x.dim() == 2 else 1)):
        raise call.refuse(f"must have one slope or one per channel, {count}, and has {list(slope.shape)}")
    return Operation(functional.prelu, weight=slope.reshape(-1))


def _binary(function: Callable[[Any, Any], torch.Tensor]) -> Handler:
    def handler(call: Call) -> Operation:
        tensors = [isinstance(value, torch.Tensor) for value in call.inputs]
        if len(tensors) != 2:
            raise call.refuse(f"must have two inputs, and has {len(tensors)}")
        if all(tensors):
            return Operation(function)
        position = tensors.index(False)
        other = call.x(1 - position)
        found = call.tensor(position)
        if np.broadcast_shapes(found.shape, other.shape) != tuple(other.shape):
            raise call.refuse(f"must have a constant that fits {list(other.shape[1:])}, and has {list(found.shape)}")
        if found.numel() == 1:
            # A number is part of the function, so that several of them together are one function of one value.
            number = float(found)
            return Operation(
                partial(_swapped, function, number) if position == 0 else partial(_plain, function, number)
            )
        return Operation(partial(_first if position == 0 else _second, function), constant=found)

    return handler


def _swapped(function: Function, number: float, x: torch.Tensor) -> Any:
    return function(number, x)


def _plain(function: Function, number: float, x: torch.Tensor) -> Any:
    return function(x, number)


def _first(function: Function, x: torch.Tensor, constant: torch.Tensor) -> Any:
    return function(constant, x)


def _second(function: Function, x: torch.Tensor, constant: torch.Tensor) -> Any:
    return function(x, constant)


def _add(a: Number, b: Number) -> Any:
    return a + b


def _sub(a: Number, b: Number) -> Any:
    return a - b


def _mul(a: Number, b: Number) -> Any:
    return a * b


def _div(a: Number, b: Number) -> Any:
    return a / b


def _pow(a: Number, b: Number) -> Any:
    return a**b


def _larger(a: Number, b: Number) -> Any:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.maximum(a, b)
    x, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return torch.clamp(x, min=number)  # type: ignore[arg-type,type-var,unused-ignore]


def _smaller(a: Number, b: Number) -> Any:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.minimum(a, b)
    x, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return torch.clamp(x, max=number)  # type: ignore[arg-type,type-var,unused-ignore]


def _sum(call: Call) -> Operation:
    for position in range(len(call.inputs)):
        call.x(position)

    def added(*tensors: torch.Tensor) -> torch.Tensor:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total

    return Operation(added)


HANDLERS: dict[str, Handler] = {
    "Relu": _unary(functional.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "HardSwish": _unary(functional.hardswish),
    "Mish": _unary(functional.mish),
    "Softplus": _unary(_softplus),
    "Softsign": _unary(functional.softsign),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Reciprocal": _unary(torch.reciprocal),
    "LeakyRelu": _with(functional.leaky_relu, negative_slope=("alpha", 0.01)),
    "Elu": _with(functional.elu, alpha=("alpha", 1.0)),
    "HardSigmoid": _with(_hard_sigmoid, alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "Gelu": _gelu,
    "Clip": _clip,
    "PRelu": _prelu,
    "Add": _binary(_add),
    "Sub": _binary(_sub),
    "Mul": _binary(_mul),
    "Div": _binary(_div),
    "Pow": _binary(_pow),
    "Max": _binary(_larger),
    "Min": _binary(_smaller),
    "Sum": _sum,
}
