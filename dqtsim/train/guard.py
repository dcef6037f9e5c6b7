"""The guard of `prepare`: the steps as read are evaluated and compared with the network itself, on a few pictures.

A tracer sees names and calls. It may miss that a result was changed in place, that a module has its own `forward`, or
that an argument was given in an unexpected way. So every step is computed in float from its parameters, without any
module's `forward`, and compared with the network's value.

Both are computed in float64. There they differ only by rounding, 5e-16 of the largest value in ResNet-20. So the bound
leaves nine decades for deep networks and is still tight: an eps read as 1e-5 instead of 1e-4 exceeds it. In float32,
rounding alone might exceed it.
"""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.train import steps
from dqtsim.train.rules import TOP_CODE
from dqtsim.train.tracing import INPUT, Traced, reason

Value = TypeVar("Value")

# The largest allowed difference between a step and the network, relative to the network's largest value there.
BOUND = 1e-6
# Fewer pictures are used if they have more pixels than this, to save time.
_LARGE = 128 * 128
_GIVEN = "prepare must export the network that it is given, but"
_UNREAD = "there or before it is what was not read: a change in place, a module's own forward, a hook or an argument"


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode; changes to it do not affect the original."""
    if next(model.parameters(), None) is None:
        raise ModelError("a network must have parameters, but this one has none.")
    return _copied(model, model).eval()


def _copied(value: Value, model: nn.Module) -> Value:
    """A deep copy of `value`, in which `model` occurs."""
    # Weights that hooks compute (weight_norm, pruning) are not leaves of autograd, so deepcopy refuses them.
    memo = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in (*vars(module).values(), *module.buffers(recurse=False))
        if isinstance(tensor, torch.Tensor) and not tensor.is_leaf
    }
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        raise ModelError(f"a network must be copyable by copy.deepcopy, but: {reason(error)}.") from error


def check(model: nn.Module, traced: Traced, shape: tuple[int, int, int], zero_point: int, scale: float) -> None:
    """Raise ModelError with the first step of `traced` that differs from the value in `model`, and the difference.

    `model` is in eval mode. A code q of pictures of `shape` (C, H, W) stands for scale * (q - zero_point).
    """
    # Both are copied together, so that the steps' modules are the model's own, and one conversion reaches all.
    model, traced = _copied((model, traced), model)
    model.cpu().double()
    traced.module.cpu().double()
    pictures = (_codes(shape, zero_point).double() - zero_point) * scale
    with torch.no_grad():
        given, beside = _observed(model, traced, pictures)
        try:
            _compare(traced, pictures, given, beside)
        except ModelError:
            again, _ = _observed(model, traced, pictures)
            if given.isfinite().all() and not _agree(again, given):
                raise ModelError(
                    f"a network in eval mode must always give the same for the same pictures, but this one differs "
                    f"from itself by up to {_distance(again, given):.3g}; a dropout that is always on, or a state that "
                    f"it changes, would do that."
                ) from None
            raise


def _observed(model: nn.Module, traced: Traced, pictures: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The network's output, and its values at the fx nodes of the steps, by their names.

    The output of a module is taken from a call of the network itself; other values are taken from the trace, which may
    differ from the network: torch.fx takes `out += x` for `out = out + x`.
    """
    nodes = {*traced.tensors.values(), *traced.clamped.values()}
    waiting: dict[nn.Module, list[str]] = {}
    for node in traced.module.graph.nodes:
        if node.op == "call_module":
            waiting.setdefault(traced.module.get_submodule(str(node.target)), []).append(node.name)
    found: dict[str, torch.Tensor] = {}

    def observe(module: nn.Module, _: object, result: object) -> None:
        name = waiting[module].pop(0) if waiting[module] else ""
        if name in nodes and isinstance(result, torch.Tensor):
            found[name] = result.clone()

    hooks = [module.register_forward_hook(observe) for module in waiting]
    try:
        # A copy, because the network may change its input.
        given = model(pictures.clone())
        found = traced.values(pictures.clone(), nodes) | found
    except Exception as error:
        raise ModelError(
            f"a network must be evaluated in float64 on {len(pictures)} pictures of shape {tuple(pictures.shape[1:])} "
            f"to be compared with what prepare reads of it, but: {reason(error)}."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(given, torch.Tensor):
        raise ModelError(f"a network must give one tensor, the logits, but gives a {type(given).__name__}.")
    return given, found


def _codes(shape: tuple[int, int, int], zero_point: int) -> torch.Tensor:
    """Pictures of codes uint8 [N, C, H, W]: one of zeros; the others of squares from one pixel to most of a side.

    In one half of them the codes of a square are random, in the other 0 or 255, the extremes for most filters.
    """
    generator = torch.Generator().manual_seed(0)
    channels, rows, columns = shape
    large = rows * columns > _LARGE
    found = [torch.full(shape, zero_point)]
    for number, part in enumerate((0.0, 0.25, 0.5, 0.75)):
        side = int(max(rows, columns) ** part)
        for extreme in (bool(number % 2),) if large else (False, True):
            size = channels, -(-rows // side), -(-columns // side)
            squares = torch.randint(0, TOP_CODE + 1, size, generator=generator)
            squares = (squares > TOP_CODE // 2) * TOP_CODE if extreme else squares
            found.append(squares.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :rows, :columns])
    return torch.stack(found).to(torch.uint8)


def _compare(traced: Traced, pictures: torch.Tensor, given: torch.Tensor, beside: dict[str, torch.Tensor]) -> None:
    own = {INPUT: pictures}
    for step in traced.steps:
        try:
            sums, result = _evaluated(step, [own[source] for source in step.sources])
        except RuntimeError as error:
            raise ModelError(
                f"{_GIVEN} {_named(step)} cannot be computed from what was read: {reason(error)}."
            ) from error
        if step.name in traced.clamped:
            # Also before the clamp, which may hide a difference.
            _same(step, sums, beside[traced.clamped[step.name]])
        _same(step, result, beside[traced.tensors[step.name]])
        own[step.name] = result
    last = traced.steps[-1]
    if not _agree(own[last.name], given):
        raise ModelError(
            f"{_GIVEN} {_differing(last, own[last.name], given)} in the end, though all its steps agree; a hook of the "
            f"whole network would do that."
        )


def _evaluated(step: steps.Step, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The step as it was read, computed, [N, ...]: the value before its activation, and its output."""
    x = inputs[0]
    if isinstance(step, steps.Layer):
        y = _normalised(step, _product(step, x))
        return y, _clamped(y, step.activation)
    if isinstance(step, steps.Add):
        y = inputs[0] + inputs[1]
        return y, _clamped(y, step.activation)
    if isinstance(step, steps.Rectify):
        return x, _clamped(x, step.activation)
    if isinstance(step, steps.Logits):
        y = functional.linear(x, step.module.weight, step.module.bias)
    elif isinstance(step, steps.AveragePool):
        y = functional.avg_pool2d(x, step.kernel, step.stride, step.padding)
    elif isinstance(step, steps.MaxPool):
        y = functional.max_pool2d(x, step.kernel, step.stride, step.padding)
    elif isinstance(step, steps.Concat):
        y = torch.cat(inputs, 1)
    elif isinstance(step, steps.Flatten):
        y = x.flatten(1)
    else:
        raise TypeError(f"{_named(step)} is of a kind that the guard does not know")
    return y, y


def _product(step: steps.Layer, x: torch.Tensor) -> torch.Tensor:
    module = step.module
    if isinstance(module, nn.Linear):
        return functional.linear(x, module.weight, module.bias)
    stride, dilation = (module.stride[0], module.stride[1]), (module.dilation[0], module.dilation[1])
    return functional.conv2d(x, module.weight, module.bias, stride, step.padding, dilation, module.groups)


def _normalised(step: steps.Layer, y: torch.Tensor) -> torch.Tensor:
    norm = step.norm
    if norm is None:
        return y
    gamma, beta = (norm.weight, norm.bias) if norm.affine else (None, None)
    return functional.batch_norm(y, norm.running_mean, norm.running_var, gamma, beta, training=False, eps=norm.eps)


def _clamped(y: torch.Tensor, activation: steps.Activation) -> torch.Tensor:
    return y.clamp(0, activation.ceiling) if activation.rectified else y


def _same(step: steps.Step, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise ModelError unless the step's value `found` agrees with the network's value `expected`."""
    if isinstance(step, steps.AveragePool) and expected.dim() == 2:
        # A mean over rows and columns may drop both axes; its step keeps them, and the Flatten after it drops them.
        expected = expected[:, :, None, None]
    if not expected.isfinite().all():
        raise ModelError(f"a network must give finite values, but its {_named(step)} does not.")
    if not _agree(found, expected):
        raise ModelError(f"{_GIVEN} {_differing(step, found, expected)}; {_UNREAD}.")
    if tuple(found.shape[1:]) != step.shape:
        raise RuntimeError(f"{_named(step)} was said to be {step.shape}, but is {tuple(found.shape[1:])}")


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are of one shape and within the bound; values that are not finite never agree."""
    return found.shape == expected.shape and _distance(found, expected) <= BOUND * float(expected.abs().max())


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def _named(step: steps.Step) -> str:
    return f"step '{step.name}' ({type(step).__name__})"


def _differing(step: steps.Step, found: torch.Tensor, expected: torch.Tensor) -> str:
    what = _named(step)
    if found.shape != expected.shape:
        return f"{what} gives {tuple(found.shape[1:])} where the network gives {tuple(expected.shape[1:])}"
    worst = (found - expected).abs().argmax()
    one, other = (float(tensor.flatten()[worst]) for tensor in (found, expected))
    return f"{what} gives {one:.4g} where the network gives {other:.4g} ({abs(one - other):.3g} apart)"
