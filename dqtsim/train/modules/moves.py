"""Steps that move codes or take the largest: the grid of the output is that of the input."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from dqtsim.train import steps
from dqtsim.train.modules.base import Codes


def moved(step: steps.Step, x: Codes) -> Codes | None:
    """The step's output for codes [N, ...], or None if the step is no move."""
    move = _MOVES.get(type(step))
    return None if move is None else x.moved(move(step, x))


def is_move(step: steps.Step) -> bool:
    """Whether a step's output has the codes, step and zero point of its only source."""
    return type(step) in _MOVES


def _max_pool(step: steps.MaxPool, x: Codes) -> torch.Tensor:
    top, left, bottom, right = step.pads
    values = x.values
    if (top, left) != (bottom, right) or 2 * top > step.kernel[0] or 2 * left > step.kernel[1]:
        # below every code
        values, top, left = functional.pad(values, (left, right, top, bottom), value=-1.0), 0, 0
    return functional.max_pool2d(values, step.kernel, step.stride, (top, left), step.dilations)


def _take(step: steps.Take, x: Codes) -> torch.Tensor:
    axis = step.axis + 1
    indices = torch.tensor(step.indices, device=x.values.device)
    taken = x.values.index_select(axis, indices.clamp_min(0))
    if min(step.indices) >= 0:
        return taken
    kept = (indices >= 0).reshape(-1, *[1] * (taken.dim() - axis - 1))
    return torch.where(kept, taken, torch.full_like(taken, x.zero_point))


_MOVES: dict[type[steps.Step], Callable[[Any, Codes], torch.Tensor]] = {
    steps.MaxPool: _max_pool,
    steps.Flatten: lambda _, x: x.values.flatten(1),
    steps.Reshape: lambda step, x: x.values.reshape(-1, *step.shape),
    steps.Transpose: lambda step, x: x.values.permute(0, *(axis + 1 for axis in step.order)).contiguous(),
    steps.Take: _take,
}
