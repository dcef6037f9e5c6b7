"""Pools, and means over axes."""

from functools import partial

import torch
from torch.nn import functional

from dqtsim.train.onnx.call import Call, Handler, Operation, Sizes
from dqtsim.train.onnx.layers import pads_of, reversed_pads, spatial

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d}
_ADAPTIVE = {1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d}


def _window(call: Call, known: dict[int, object]) -> tuple[int, Sizes, Sizes, Sizes, Sizes, Sizes]:
    """The number of spatial axes, kernel, strides, dilations, and the pads before and after."""
    rank, sizes = spatial(call, known)
    kernel = tuple(call.attribute("kernel_shape"))
    strides = tuple(call.attribute("strides", [1] * rank))
    dilations = tuple(call.attribute("dilations", [1] * rank))
    before, after = pads_of(call, sizes, kernel, strides, dilations)
    return rank, kernel, strides, dilations, before, after


def _outputs(call: Call, sizes: Sizes, around: tuple[Sizes, Sizes], kernel: Sizes, steps: tuple[Sizes, Sizes]) -> Sizes:
    """The size of the result: with ceil_mode a last window may hang over, if it begins before the padding ends."""
    found = []
    for size, first, last, k, stride, dilation in zip(sizes, *around, kernel, *steps, strict=True):
        room = size + first + last - dilation * (k - 1) - 1
        count = (-(-room // stride) if call.attribute("ceil_mode", 0) else room // stride) + 1
        found.append(count - 1 if (count - 1) * stride >= size + first and call.attribute("ceil_mode", 0) else count)
    return tuple(found)


def _pool(call: Call, pool: partial[torch.Tensor], before: Sizes, wanted: Sizes) -> Operation:
    """The pool whose taps outside count for nothing, with the pads before; it is cut to the size that is wanted.

    PyTorch pads both sides alike. More padding behind is a window that hangs over; too much of it is cut off.
    """
    for ceil in (False, True):
        whole = partial(pool, padding=before, ceil_mode=ceil)
        try:
            found = tuple(whole(call.x()).shape[2:])
        except RuntimeError:
            break
        if found == wanted:
            return Operation(whole)
        if all(size >= want for size, want in zip(found, wanted, strict=True)):
            return Operation(partial(_cut, whole, wanted))
    raise call.refuse("has pads that no pool of PyTorch has")


def _cut(pool: partial[torch.Tensor], wanted: Sizes, x: torch.Tensor) -> torch.Tensor:
    y = pool(x)
    for axis, size in enumerate(wanted):
        y = y.narrow(2 + axis, 0, size)
    return y


def _max_pool(call: Call) -> Operation:
    if len([name for name in call.node.output if name]) > 1:
        raise call.refuse("gives indices, which are not read")
    rank, kernel, strides, dilations, before, after = _window(call, dict(_MAX))
    sizes = tuple(call.x().shape[2:])
    wanted = _outputs(call, sizes, (before, after), kernel, (strides, dilations))
    pool = partial(_MAX[rank], kernel_size=kernel, stride=strides, dilation=dilations)
    return _pool(call, pool, before, wanted)


def _average_pool(call: Call) -> Operation:
    rank, kernel, strides, dilations, before, after = _window(call, dict(_AVERAGE))
    if any(dilation != 1 for dilation in dilations):
        raise call.refuse("has dilations, which are read for MaxPool only")
    sizes = tuple(call.x().shape[2:])
    wanted = _outputs(call, sizes, (before, after), kernel, (strides, dilations))
    pool = partial(_AVERAGE[rank], kernel_size=kernel, stride=strides)
    if not call.attribute("count_include_pad", 0):
        return _pool(call, partial(pool, count_include_pad=False), before, wanted)
    if before == after:
        return _pool(call, partial(pool, count_include_pad=True), before, wanted)
    around = reversed_pads(before, after)
    ceil = bool(call.attribute("ceil_mode", 0))

    def padded(x: torch.Tensor) -> torch.Tensor:
        return pool(functional.pad(x, around), ceil_mode=ceil)

    return Operation(padded)


def _global_average(call: Call) -> Operation:
    rank, _ = spatial(call, dict(_ADAPTIVE))
    return Operation(partial(_ADAPTIVE[rank], output_size=1))


def _global_max(call: Call) -> Operation:
    rank, sizes = spatial(call, dict(_MAX))
    return Operation(partial(_MAX[rank], kernel_size=sizes))


def _reduce_mean(call: Call) -> Operation:
    x = call.x()
    axes = call.axes(1, 18, x.dim())
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return Operation(torch.Tensor.clone)
        raise call.refuse("takes the mean over all axes, so that pictures would depend on each other")
    return Operation(partial(torch.mean, dim=axes, keepdim=bool(call.attribute("keepdims", 1))))


HANDLERS: dict[str, Handler] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "ReduceMean": _reduce_mean,
}
