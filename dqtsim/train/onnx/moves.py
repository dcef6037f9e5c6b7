"""Operators that move numbers: shapes, slices, joins, padding, upsampling by repetition."""

from fractions import Fraction
from functools import partial
from math import ceil, floor, prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dqtsim.train.onnx.call import Call, Handler, Operation, Sizes


def _reshaped(call: Call, sizes: Sizes) -> Operation:
    """A reshape of every picture to `sizes`."""

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], *sizes)

    if prod(sizes) != prod(call.x().shape[1:]):
        raise call.refuse(f"must keep the pictures apart, and makes {list(call.x().shape)} a batch of {list(sizes)}")
    return Operation(reshape)


def _reshape(call: Call) -> Operation:
    x = call.x()
    wanted = call.integers(1)
    if not call.attribute("allowzero", 0):
        wanted = [x.shape[i] if size == 0 and i < x.dim() else size for i, size in enumerate(wanted)]
    if not wanted:
        raise call.refuse("makes a picture a single number")
    first, *rest = wanted
    if -1 in rest:
        # The batch is stated, so what is open belongs to the picture.
        known = prod(size for size in rest if size != -1)
        rest = [prod(x.shape[1:]) // max(known, 1) if size == -1 else size for size in rest]
    if first not in (-1, x.shape[0]):
        raise call.refuse(f"must keep the pictures apart, and makes {list(x.shape)} of them {wanted}")
    return _reshaped(call, tuple(rest))


def _flatten(call: Call) -> Operation:
    x, axis = call.x(), int(call.attribute("axis", 1))
    axis = axis + x.dim() if axis < 0 else axis
    if axis != 1:
        raise call.refuse(f"must keep the axis of the batch and flatten all others, and has axis {axis}")
    return Operation(partial(torch.flatten, start_dim=1))


def _transpose(call: Call) -> Operation:
    x = call.x()
    order = call.attribute("perm", list(range(x.dim()))[::-1])
    if order[0] != 0:
        raise call.refuse("moves the axis of the batch")
    return Operation(partial(torch.permute, dims=tuple(order)))


def _squeeze(call: Call) -> Operation:
    x = call.x()
    axes = call.axes(1, 13, x.dim())
    if axes is None:
        axes = [axis for axis in range(1, x.dim()) if x.shape[axis] == 1]
    return _reshaped(call, tuple(size for axis, size in enumerate(x.shape) if axis and axis not in axes))


def _unsqueeze(call: Call) -> Operation:
    x = call.x()
    count = len(call.integers(1) if call.opset >= 13 else call.attribute("axes"))
    axes = call.axes(1, 13, x.dim() + count) or []
    sizes = list(x.shape)
    for axis in axes:
        sizes.insert(axis, 1)
    return _reshaped(call, tuple(sizes[1:]))


def _concat(call: Call) -> Operation:
    rank = next(value.ndim for value in call.inputs if value is not None)
    axis = call.axis(int(call.attribute("axis", 1)), rank)
    for position in range(len(call.inputs)):
        call.x(position)

    def joined(*tensors: torch.Tensor) -> torch.Tensor:
        return torch.cat(tensors, axis)

    return Operation(joined)


def _split(call: Call) -> Operation:
    x = call.x()
    axis, count = call.axis(int(call.attribute("axis", 0)), x.dim()), len(call.node.output)
    size = x.shape[axis]
    sizes = call.attribute("split") if call.opset < 13 else call.integers(1) if call.has(1) else None
    if sizes is None:
        part = -(-size // count)
        sizes = [min(part, size - i * part) for i in range(count)]
    if sum(sizes) != size or len(sizes) != count:
        raise call.refuse(f"must split {size} into {count} parts, and splits it into {sizes}")
    return Operation(partial(torch.split, split_size_or_sections=list(sizes), dim=axis))


def _taken(axis: int, indices: list[int], size: int) -> partial[torch.Tensor]:
    """The function that takes these indices of an axis, as a slice if they are in a row."""
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return partial(torch.narrow, dim=axis, start=indices[0], length=len(indices))
    if size == len(indices) and indices == list(range(size))[::-1]:
        return partial(torch.flip, dims=(axis,))
    return partial(_selected, axis, tuple(indices))


def _selected(axis: int, indices: Sizes, x: torch.Tensor) -> torch.Tensor:
    return torch.index_select(x, axis, torch.tensor(indices, device=x.device))


def _in_turn(functions: list[Any]) -> Operation:
    def chain(x: torch.Tensor) -> torch.Tensor:
        for function in functions:
            x = function(x)
        return x

    return Operation(chain)


def _slice(call: Call) -> Operation:
    x = call.x()
    if call.opset < 10:
        starts, ends, axes = (call.attribute(name) for name in ("starts", "ends", "axes"))
        steps = None
    else:
        starts, ends = call.integers(1), call.integers(2)
        axes, steps = (call.integers(position) if call.has(position) else None for position in (3, 4))
    axes = list(range(len(starts))) if axes is None else axes
    functions = []
    for start, end, given, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        size = x.shape[given]
        indices = list(range(size))[_ends(start, end, step, size)]
        if len(indices) == size and step == 1:
            continue
        if not indices:
            raise call.refuse("takes nothing")
        functions.append(_taken(call.axis(given, x.dim()), indices, size))
    return _in_turn(functions)


def _ends(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's start and end as Python's: with a negative step, an end before the first is none."""
    return slice(start, None if step < 0 and end < -size else end, step)


def _gather(call: Call) -> Operation:
    x, given = call.x(), call.constant(1)
    axis = call.axis(int(call.attribute("axis", 0)), x.dim())
    size = x.shape[axis]
    indices = [int(i) + (size if i < 0 else 0) for i in given.reshape(-1)]
    if given.ndim > 1 or not indices or min(indices) < 0 or max(indices) >= size:
        raise call.refuse(f"must take indices of an axis of {size}, and takes {given.tolist()}")
    functions: list[Any] = [_taken(axis, indices, size)]
    if given.ndim == 0:
        functions.append(partial(torch.squeeze, dim=axis))
    return _in_turn(functions)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def _pad(call: Call) -> Operation:
    x = call.x()
    mode = call.attribute("mode", "constant")
    if call.opset < 11:
        pads, value = call.attribute("pads"), float(call.attribute("value", 0.0))
    else:
        pads, value = call.integers(1), call.number(2) if call.has(2) else 0.0
    axes = list(range(x.dim()))
    if call.opset >= 18 and call.has(3):
        axes = [axis + x.dim() if axis < 0 else axis for axis in call.integers(3)]
    before, after = [0] * x.dim(), [0] * x.dim()
    for position, axis in enumerate(axes):
        before[axis], after[axis] = pads[position], pads[position + len(axes)]
    if before[0] or after[0]:
        raise call.refuse("pads the batch")
    if mode not in _MODES:
        raise call.refuse(f"has mode {mode}; {', '.join(_MODES)} are read")
    used = max((axis for axis in range(x.dim()) if before[axis] or after[axis]), default=0)
    if not used:
        return Operation(torch.Tensor.clone)
    first = min(axis for axis in range(x.dim()) if before[axis] or after[axis])
    if mode != "constant":
        first = min(first, 2)
    around = [pad for axis in range(x.dim() - 1, first - 1, -1) for pad in (before[axis], after[axis])]
    if mode == "constant":
        return Operation(partial(functional.pad, pad=around, value=value))
    return Operation(partial(functional.pad, pad=around, mode=_MODES[mode]))


def _depth_to_space(call: Call) -> Operation:
    side = int(call.attribute("blocksize"))
    columns_first = call.attribute("mode", "DCR") == "CRD"

    def moved(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        if columns_first:
            return functional.pixel_shuffle(x, side)
        parts = x.reshape(n, side, side, c // side**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // side**2, h * side, w * side)

    return Operation(moved)


def _space_to_depth(call: Call) -> Operation:
    side = int(call.attribute("blocksize"))

    def moved(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * side**2, h // side, w // side)

    return Operation(moved)


def _resize(call: Call) -> Operation:
    x = call.x()
    if call.attribute("antialias", 0) or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("has antialias or a policy for the aspect ratio")
    positions = {"scales": 1 if call.opset == 10 else 2, "sizes": 3}
    axes = call.attribute("axes", list(range(x.dim())))
    if call.has(positions["sizes"]) and call.opset >= 11:
        sizes = call.integers(positions["sizes"])
        scales = [Fraction(size, x.shape[axis]) for size, axis in zip(sizes, axes, strict=True)]
    else:
        scales = [Fraction(float(scale)) for scale in call.constant(positions["scales"]).reshape(-1)]
    way = "asymmetric" if call.opset == 10 else call.attribute("coordinate_transformation_mode", "half_pixel")
    near = "floor" if call.opset == 10 else call.attribute("nearest_mode", "round_prefer_floor")
    return _scaled(call, dict(zip(axes, scales, strict=True)), call.attribute("mode", "nearest"), way, near)


def _upsample(call: Call) -> Operation:
    scales = call.attribute("scales") if call.opset < 9 else call.constant(1).reshape(-1).tolist()
    return _scaled(
        call, dict(enumerate(map(Fraction, scales))), call.attribute("mode", "nearest"), "asymmetric", "floor"
    )


def _scaled(call: Call, scales: dict[int, Fraction], mode: str, way: str, near: str) -> Operation:
    x = call.x()
    changed = {axis: scale for axis, scale in scales.items() if scale != 1}
    if any(axis < 2 for axis in changed):
        raise call.refuse("changes the size of the batch or of the channels")
    sizes = [floor(x.shape[axis] * scales.get(axis, Fraction(1))) for axis in range(x.dim())]
    if mode == "nearest":
        functions = []
        for axis, scale in changed.items():
            indices = [_nearest(i, scale, x.shape[axis], sizes[axis], way, near) for i in range(sizes[axis])]
            if None in indices:
                raise call.refuse(f"has {way} and {near}, which are not known")
            functions.append(_repeated(axis, [i for i in indices if i is not None], x.shape[axis]))
        return _in_turn(functions)
    if mode == "linear" and way in ("half_pixel", "pytorch_half_pixel", "align_corners") and x.dim() == 4:
        corners = way == "align_corners"
        whole = tuple(sizes[2:])
        return Operation(partial(functional.interpolate, size=whole, mode="bilinear", align_corners=corners))
    raise call.refuse(f"has mode {mode} with {way}; nearest, and linear with half_pixel or align_corners, are read")


def _nearest(i: int, scale: Fraction, size: int, wanted: int, way: str, near: str) -> int | None:
    """The index of the input from which entry i of the output is taken."""
    match way:
        case "asymmetric":
            place = i / scale
        case "half_pixel" | "pytorch_half_pixel":
            place = (i + Fraction(1, 2)) / scale - Fraction(1, 2) if way == "half_pixel" or wanted > 1 else Fraction(0)
        case "align_corners":
            place = Fraction(i * (size - 1), wanted - 1) if wanted > 1 else Fraction(0)
        case "tf_half_pixel_for_nn":
            place = (i + Fraction(1, 2)) / scale
        case _:
            return None
    half = Fraction(1, 2)
    rounded = {
        "floor": floor(place),
        "ceil": ceil(place),
        "round_prefer_floor": ceil(place - half),
        "round_prefer_ceil": floor(place + half),
    }.get(near)
    return None if rounded is None else min(max(rounded, 0), size - 1)


def _repeated(axis: int, indices: list[int], size: int) -> partial[torch.Tensor]:
    times = len(indices) // size
    if times and indices == [i for i in range(size) for _ in range(times)]:
        return partial(torch.repeat_interleave, repeats=times, dim=axis)
    return partial(_selected, axis, tuple(indices))


def _identity(call: Call) -> Operation:
    call.x()
    return Operation(torch.Tensor.clone)


def _dropout(call: Call) -> Operation:
    if call.has(2) and bool(np.any(call.constant(2))):
        raise call.refuse("is in training mode; export the network in eval mode")
    return _identity(call)


def _cast(call: Call) -> Operation:
    if call.attribute("to") != 1:
        raise call.refuse("makes a feature map anything but float32")
    return _identity(call)


def _softmax(call: Call) -> Operation:
    x = call.x()
    old = call.opset < 13
    axis = call.axis(int(call.attribute("axis", 1 if old else -1)), x.dim())
    if old and prod(x.shape[axis + 1 :]) != 1:
        raise call.refuse("takes several axes together, as opsets below 13 do")
    function = torch.softmax if call.node.op_type == "Softmax" else torch.log_softmax
    return Operation(partial(function, dim=axis))


HANDLERS: dict[str, Handler] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
    "Upsample": _upsample,
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
