"""What only moves numbers: read from what it does to coordinates, not from its arguments."""

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import fx

from dqtsim.train.reading.export import arguments, called, shape
from dqtsim.train.reading.pixels import joined, note, pixels_of
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Concat, Flatten, Pair, Reshape, Take, Transpose


def _operand(reader: Reader, node: fx.Node) -> fx.Node:
    """The only tensor that a node moves; a part of a split is taken from what is split."""
    if called(node) == "getitem":
        node = cast(fx.Node, node.args[0])
    return next(before for before in node.all_input_nodes if before not in reader.values)


def _run(reader: Reader, node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """What a node makes of another tensor [N, ...]."""
    if called(node) == "getitem":
        parts = _run(reader, cast(fx.Node, node.args[0]), x)
        return parts[cast(int, node.args[1])]
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda before: reader.values.get(before, x))
    return cast(torch.Tensor, cast(Callable[..., Any], node.target)(*args, **kwargs))


def moved(reader: Reader, node: fx.Node) -> None:
    """An operator that takes positions along axes, of a tensor of as many axes: one Take for each axis that changes."""
    operand = _operand(reader, node)
    before, after = shape(operand), shape(node)
    indices = _indices(reader, node, before, after)
    changed = [axis for axis, found in enumerate(indices) if found != tuple(range(before[axis]))]
    if 0 in changed:
        raise reader.refuse(node, "must keep pictures apart")
    pixels = pixels_of(reader, operand)
    if pixels is not None and changed == [1] and min(indices[1]) >= 0:
        note(reader, node, pixels.chosen(indices[1]))
        return
    name = reader.plain(node, operand)
    # What leaves most out is first.
    for axis in sorted(changed, key=lambda axis: len(indices[axis]) / before[axis]):
        name = take(reader, reader.named(node, "take"), name, axis - 1, indices[axis])
    reader.name_as(node, name)


def take(reader: Reader, name: str, source: str, axis: int, indices: tuple[int, ...]) -> str:
    """A Take of a tensor, and its name."""
    found = list(reader.shape_of(source))
    found[axis] = len(indices)
    return reader.put(Take(name, (source,), tuple(found), reader.positive((source,)), axis, indices), [])


def _indices(reader: Reader, node: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[int, ...]]:
    """By axis, N's first, the position that each position is taken from, -1 for a zero."""
    if len(before) != len(after):
        raise reader.refuse(node, f"must keep the number of axes, but makes {after} of {before}")
    found = []
    for axis, count in enumerate(before):
        # From 1 on, so that 0 is what was padded.
        line = torch.arange(1, count + 1, dtype=torch.float64).reshape(-1, *[1] * (len(before) - axis - 1))
        found.append(_run(reader, node, line.expand(before).contiguous()))
    lines = [values.amax([other for other in range(len(after)) if other != axis]) for axis, values in enumerate(found)]
    inside = torch.ones(after, dtype=torch.float64)
    for axis, line in enumerate(lines):
        inside = inside * (line != 0).double().reshape(-1, *[1] * (len(after) - axis - 1))
    for axis, (values, line) in enumerate(zip(found, lines, strict=True)):
        if not torch.equal(values, line.reshape(-1, *[1] * (len(after) - axis - 1)) * inside):
            raise reader.refuse(node, "must take positions along each axis by itself")
    return [tuple(int(value) - 1 for value in line) for line in lines]


def _reshaped(reader: Reader, node: fx.Node) -> None:
    operand = arguments(node)["self"]
    before, after = reader.shape(operand), reader.shape(node)
    pixels = reader.pixels.get(operand)
    if pixels is not None and len(pixels.index) == 1 and after in (reader.picture[1:], (1, *reader.picture[1:])):
        note(reader, node, pixels)
        return
    if pixels is not None and after == (prod(before),) and before[0] == len(pixels.index) == reader.picture[0]:
        count = prod(before[1:])
        if pixels.index == tuple(range(before[0])):
            source = reader.view(pixels.source, after)
            scale, shift = pixels.scale.repeat_interleave(count), pixels.shift.repeat_interleave(count)
            note(reader, node, type(pixels)(source, tuple(range(len(scale))), scale, shift))
            return
    source = reader.source(node, operand)
    if reader.shape_of(source) != before and reader.shape_of(source) != after:
        source = reader.plain(node, operand)
    if reader.shape_of(source) == after or (source, after) in reader.views:
        reader.tensor[node] = reader.view(source, after)
        return
    kind = Flatten if len(after) == 1 else Reshape
    name = reader.named(node, "flat" if len(after) == 1 else "view")
    reader.views[source, after] = reader.put(kind(name, (source,), after, reader.positive((source,))), [node])


def _permuted(reader: Reader, node: fx.Node) -> None:
    operand = _operand(reader, node)
    before = shape(operand)
    # Strides that differ say where each axis has gone.
    strides = [3**i for i in range(len(before))]
    moved_to = _run(reader, node, torch.empty_strided(before, strides, device="meta")).stride()
    order = [strides.index(stride) for stride in moved_to]
    if order[0] != 0:
        raise reader.refuse(node, "must keep pictures apart")
    source = reader.plain(node, operand)
    if order == sorted(order):
        reader.tensor[node] = source
        return
    name = reader.named(node, "transpose")
    turned = tuple(axis - 1 for axis in order[1:])
    reader.put(Transpose(name, (source,), reader.shape(node), reader.positive((source,)), turned), [node])


def _selected(reader: Reader, node: fx.Node) -> None:
    """One position of an axis, which is left out."""
    whole = node if called(node) == "select" else cast(fx.Node, node.args[0])
    given = arguments(whole)
    position = given["index"] if called(node) == "select" else cast(int, node.args[1])
    operand = given["self"]
    before = reader.shape(operand)
    axis = given["dim"] % (len(before) + 1) - 1
    if axis < 0:
        raise reader.refuse(node, "must keep pictures apart")
    pixels = pixels_of(reader, operand)
    if pixels is not None and axis == 0 and len(before) == len(reader.picture):
        note(reader, node, pixels.chosen((position % before[0],)))
        return
    name = take(reader, reader.named(node, "take"), reader.plain(node, operand), axis, (position % before[axis],))
    reader.name_as(node, reader.view(name, reader.shape(node)))


def _part(reader: Reader, node: fx.Node) -> None:
    """One of an operator's several results."""
    whole = called(cast(fx.Node, node.args[0]))
    if whole == "unbind":
        _selected(reader, node)
    elif whole in _SPLITS:
        moved(reader, node)
    elif cast(fx.Node, node.args[0]) in reader.tensor and node.args[1] == 0:
        reader.tensor[node] = reader.tensor[cast(fx.Node, node.args[0])]
    else:
        raise reader.refuse(node)


def _concat(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    operands, axis = given["tensors"], given["dim"] % (len(reader.shape(node)) + 1) - 1
    if axis < 0:
        raise reader.refuse(node, "must keep pictures apart")
    if axis == 0 and called(node) != "stack" and (pixels := joined(reader, operands)) is not None:
        note(reader, node, pixels)
        return
    sources = []
    for operand in operands:
        before = list(reader.shape(operand)) if operand not in reader.values else []
        name = reader.plain(node, operand) if before else reader.source(node, operand)
        sources.append(reader.view(name, (*before[:axis], 1, *before[axis:])) if called(node) == "stack" else name)
    name = reader.name(f"{reader.path(node)}.cat")
    reader.put(Concat(name, tuple(sources), reader.shape(node), reader.positive(sources), axis), [node])


def _shuffled(reader: Reader, node: fx.Node) -> None:
    """Pixel shuffle and its inverse."""
    given = arguments(node)
    source, after = reader.plain(node, given["self"]), reader.shape(node)
    if called(node) == "pixel_shuffle":
        turned = to_space(reader, reader.named(node, "space"), source, (given["upscale_factor"],) * 2)
    else:
        factor, (channels, rows, columns) = given["downscale_factor"], reader.shape(given["self"])
        split = reader.view(source, (channels, rows // factor, factor, columns // factor, factor))
        order = (0, 2, 4, 1, 3)
        axes = tuple(reader.shape_of(split)[axis] for axis in order)
        name = reader.named(node, "depth")
        turned = reader.put(Transpose(name, (split,), axes, reader.positive((split,)), order), [])
    reader.name_as(node, reader.view(turned, after))


def to_space(reader: Reader, name: str, source: str, factors: Pair) -> str:
    """Depth to space: [C * a * b, H, W] as [C, H * a, W * b]."""
    count, rows, columns = reader.shape_of(source)
    a, b = factors
    split = reader.view(source, (count // (a * b), a, b, rows, columns))
    order = (0, 3, 1, 4, 2)
    axes = tuple(reader.shape_of(split)[axis] for axis in order)
    turned = reader.put(Transpose(name, (split,), axes, reader.positive((split,)), order), [])
    return reader.view(turned, (axes[0], rows * a, columns * b))


def _nothing(_: Reader, __: fx.Node) -> None:
    """Several results at once: each is read by itself."""


_SPLITS = ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
_MOVES = (
    "slice", "narrow", "flip", "roll", "index", "index_select", "repeat", "tile", "repeat_interleave", "expand",
    "channel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
)  # fmt: skip
HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_MOVES, moved),
    **dict.fromkeys(("flatten", "view", "reshape", "_unsafe_view", "unflatten", "squeeze", "unsqueeze"), _reshaped),
    **dict.fromkeys(("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T"), _permuted),
    "select": _selected,
    "getitem": _part,
    **dict.fromkeys((*_SPLITS, "unbind"), _nothing),
    **dict.fromkeys(("cat", "concat", "stack"), _concat),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffled),
}
