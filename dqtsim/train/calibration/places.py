"""Some places of a layer's output, on which rows, windows and rounding are fitted: all would say no more."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from dqtsim.train.calibration.pictures import Parts
from dqtsim.train.modules.base import Codes
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.nested import Geometry

# About so many places of all pictures together.
_PLACES = 10_000
# Elements that are computed at once in a full pass, so that what each operation writes is still in the cache.
_PIECE = 1 << 22


@dataclass(frozen=True)
class Places:
    """Every so many-th row and column of an output [N, C, H, W], from the middle of the first."""

    rows: int
    columns: int

    @staticmethod
    def among(shape: tuple[int, ...], pictures: int) -> "Places":
        """Places of outputs of `shape` (C, H, W), (C, L) or (C,), of `pictures` pictures."""
        height, width = shape[1:] if len(shape) == 3 else (1, 1)
        apart = max(1, pictures * height * width // _PLACES)
        rows = min(math.isqrt(apart), height)
        return Places(rows, min(apart // rows, width))

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """The values at the places, [N, C, h, w]; all of [N, C]."""
        if values.dim() < 4:
            return values
        return values[:, :, self.rows // 2 :: self.rows, self.columns // 2 :: self.columns].clone()


@dataclass(frozen=True)
class Taken:
    """What a layer reads at some places: codes uint8, and the geometry in which they give one output per place."""

    codes: Parts
    geometry: Geometry | None


def taken(module: NestedLayer | NestedLogits, grid: Codes, codes: Parts, places: Places) -> Taken:
    """The codes that are read at `places`, their border included. `codes` uint8 are on `grid`."""
    if isinstance(module, NestedLogits):
        return Taken(codes, None)
    walk, kernel = module.geometry, _kernel(module)
    found, strides, dilations = [], walk.stride, walk.dilation
    for part in codes:
        x = module.padded(grid.moved(part)).values
        if any(walk.padding):
            rows, columns = walk.padding
            x = functional.pad(x, (columns, columns, rows, rows), value=grid.zero_point)
        for axis, every in ((0, places.rows), (1, places.columns)):
            index, stride, dilation = _read(
                x.shape[axis + 2], kernel[axis], walk.stride[axis], walk.dilation[axis], every
            )
            x = x.index_select(axis + 2, index.to(x.device))
            strides = _replaced(strides, axis, stride)
            dilations = _replaced(dilations, axis, dilation)
        found.append(x)
    return Taken(found, replace(walk, padding=(0, 0), stride=strides, dilation=dilations))


def _read(size: int, kernel: int, stride: int, dilation: int, every: int) -> tuple[torch.Tensor, int, int]:
    """Along one axis of padded inputs: the positions to keep, and the stride and dilation with which they are read."""
    last = size - dilation * (kernel - 1)
    starts = torch.arange(every // 2 * stride, last, every * stride)
    if every * stride >= kernel:
        return (starts[:, None] + dilation * torch.arange(kernel)).flatten(), kernel, 1
    return torch.arange(int(starts[0]), size), every * stride, dilation


def _replaced(pair: tuple[int, int], axis: int, value: int) -> tuple[int, int]:
    return (value, pair[1]) if axis == 0 else (pair[0], value)


def _kernel(module: NestedLayer) -> tuple[int, int]:
    return (module.weight.shape[2], module.weight.shape[3]) if module.weight.dim() == 4 else (1, 1)


def columns(module: NestedLayer | NestedLogits, part: torch.Tensor, geometry: Geometry | None) -> torch.Tensor:
    """Taken codes as the taps of one output per column: [groups, taps, samples], in the dtype of `part`."""
    if geometry is None or isinstance(module, NestedLogits):
        return part.T[None]
    taps, groups = module.weight[0].numel(), module.geometry.groups
    if _kernel(module) == (1, 1):
        flat = part[:, :, :: geometry.stride[0], :: geometry.stride[1]].flatten(2)
    else:
        flat = functional.unfold(part, _kernel(module), geometry.dilation, 0, geometry.stride)
    return flat.transpose(0, 1).reshape(groups, taps, -1)


def pieces(parts: Parts) -> Iterator[torch.Tensor]:
    """All parts, in pieces of few pictures where these are large."""
    for part in parts:
        yield from torch.split(part, max(1, _PIECE // max(1, part[0].numel())))


def accumulators(
    module: NestedLayer | NestedLogits, pair: int, grid: Codes, parts: Iterator[torch.Tensor], geometry: Geometry | None
) -> Iterator[torch.Tensor]:
    """Sums [N, O, ...] float32 of codes uint8 on `grid`, read with `geometry`, at one of the module's pairs."""
    operand = module.operand(pair, grid.step)
    for part in parts:
        values = part.float()
        if values.dim() == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        yield module.sums(grid.moved(values), operand, pair, geometry)
