"""Averages and maxima over windows; the number of taps of an average is what the operator makes of ones."""

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import fx
from torch.nn import functional

from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.moves import take
from dqtsim.train.reading.pads import unpadded_pool
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import AveragePool, Flatten, MaxPool, Pair, Sides

_NO_PADS = (0, 0, 0, 0)


def _walk(given: dict[str, Any], line: bool) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and padding as (rows, columns); in one dimension there is one row."""
    kernel = _pair(given["kernel_size"], line, 1)
    return kernel, _pair(given["stride"] or given["kernel_size"], line, 1), _pair(given["padding"], line, 0)


def _pair(value: Any, line: bool, other: int) -> Pair:
    value = [value] if isinstance(value, int) else value
    return (other, value[0]) if line else (value[0], value[-1])


def _sides(before: Pair, after: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Sides:
    """Padding that gives `after` rows and columns, at least `padding`: ceil_mode has more at the end."""
    ends = [
        max(pad, (count - 1) * step + size - total - pad)
        for total, count, size, step, pad in zip(before, after, kernel, stride, padding, strict=True)
    ]
    return padding[0], padding[1], ends[0], ends[1]


def _average(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    line = called(node).endswith("1d")
    kernel, stride, padding = _walk(given, line)
    operand = unpadded_pool(reader, node, given["self"], maximum=None)
    outer = operand.pads
    shape = _planes(reader, node)
    before = _planes(reader, given["self"])
    own = _sides((before[1], before[2]), (shape[1], shape[2]), kernel, stride, padding)
    # Explicit padding is zeros that count; the pool's own may not.
    ones = torch.ones(reader.exported.batch, *reader.shape(given["self"]), dtype=torch.float64)
    shares = _called(node, ones)[0, 0].reshape(shape[1:])
    taps = functional.avg_pool2d(
        functional.pad(ones[:1, :1].reshape(1, 1, *before[1:]), (own[1], own[3], own[0], own[2])), kernel, stride,
        divisor_override=1,
    )[0, 0]  # fmt: skip
    pads = cast(Sides, tuple(a + b for a, b in zip(outer, own, strict=True)))
    divisor = (taps / shares).round()
    plain = bool((divisor == prod(kernel)).all())
    _put(reader, node, operand.name, (kernel, stride, pads), None if plain else divisor)


def _called(node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """What a node makes of another tensor."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: x)
    return cast(torch.Tensor, cast(Callable[..., Any], node.target)(*args, **kwargs))


def _planes(reader: Reader, node: fx.Node) -> tuple[int, int, int]:
    """A node's shape as [C, H, W]."""
    found = reader.shape(node)
    return (found[0], 1, found[1]) if len(found) == 2 else cast(tuple[int, int, int], found)


def _put(
    reader: Reader, node: fx.Node, source: str, walk: tuple[Pair, Pair, Sides], divisor: torch.Tensor | None
) -> None:
    """An average pool that computes a node, which may have dropped axes of length 1."""
    kernel, stride, pads = walk
    before = reader.shape_of(source)
    rows, columns = ((total + pads[i] + pads[i + 2] - kernel[i]) // stride[i] + 1 for i, total in enumerate(before[1:]))
    name, positive = reader.named(node, "pool"), reader.positive((source,))
    step = AveragePool(name, (source,), (before[0], rows, columns), positive, kernel, stride, pads, divisor)
    after = reader.shape(node)
    if len(after) == 1 and len(before) == 3 and before[0] == after[0]:
        reader.put(step, [])
        reader.put(Flatten(reader.name(f"{name}.flat"), (name,), after, positive), [node])
        return
    reader.put(step, [node])


def _adaptive(reader: Reader, node: fx.Node) -> None:
    operand = arguments(node)["self"]
    source = reader.planes(node, operand)
    before, after = _planes(reader, operand), _planes(reader, node)
    if not any(total % parts for total, parts in zip(before[1:], after[1:], strict=True)):
        kernel = before[1] // after[1], before[2] // after[2]
        _put(reader, node, source, (kernel, kernel, _NO_PADS), None)
        return
    source, kernel, counts = _windows(reader, node, source, after, filler=None)
    divisor = torch.tensor([[a * b for b in counts[1]] for a in counts[0]], dtype=torch.float64)
    _put(reader, node, source, (kernel, kernel, _NO_PADS), divisor)


def _adaptive_maximum(reader: Reader, node: fx.Node) -> None:
    operand = arguments(node)["self"]
    after = next(iter(node.meta["val"])).shape[1:] if isinstance(node.meta["val"], tuple | list) else reader.shape(node)
    shape = (after[0], 1, after[1]) if len(after) == 2 else tuple(after)
    source, kernel, _ = _windows(reader, node, reader.planes(node, operand), shape, filler="last")
    step = MaxPool(reader.named(node, "pool"), (source,), shape, reader.positive((source,)), kernel, kernel, _NO_PADS)
    reader.put(step, [node])


def _windows(
    reader: Reader, node: fx.Node, source: str, after: tuple[int, ...], *, filler: str | None
) -> tuple[str, Pair, list[list[int]]]:
    """The windows of an adaptive pool one after another, filled up to one size; the size; how many taps are real."""
    kernel, counts = [], []
    for axis, parts in ((1, after[1]), (2, after[2])):
        total = reader.shape_of(source)[axis]
        windows = [range(i * total // parts, -(-(i + 1) * total // parts)) for i in range(parts)]
        size = max(len(window) for window in windows)
        kernel.append(size)
        counts.append([len(window) for window in windows])
        rest = [window[-1] if filler else -1 for window in windows]
        indices = tuple(i for window, fill in zip(windows, rest, strict=True)
                        for i in (*window, *[fill] * (size - len(window))))  # fmt: skip
        if indices != tuple(range(total)):
            source = take(reader, reader.name(f"{reader.path(node)}.windows"), source, axis, indices)
    return source, (kernel[0], kernel[1]), counts


def _reduced(reader: Reader, node: fx.Node) -> None:
    """A mean, a sum or a maximum over whole axes: a pool with one window."""
    given = arguments(node)
    operand, kind = given["self"], called(node)
    before = reader.shape(operand)
    wanted = given.get("dim")
    wanted = [wanted] if isinstance(wanted, int) else wanted or [0]
    axes = sorted(axis % (len(before) + 1) - 1 for axis in wanted)
    if axes[0] < 0:
        raise reader.refuse(node, "must keep pictures apart")
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise reader.refuse(node, "must be over axes beside each other")
    outer, inner = prod(before[: axes[0]]), prod(before[axes[-1] + 1 :])
    size = prod(before[axes[0] : axes[-1] + 1])
    kernel = (size, 1)
    planes = (outer, size, inner)
    if len(before) == 3 and axes[0] > 0:
        # Rows, columns or both of a picture.
        planes = before
        kernel = (before[1] if 1 in axes else 1, before[2] if 2 in axes else 1)
    elif axes[-1] == len(before) - 1:
        planes, kernel = (outer, 1, size), (1, size)
    source = reader.view(reader.source(node, operand), planes)
    if kind in ("mean", "sum"):
        rows, columns = planes[1] // kernel[0], planes[2] // kernel[1]
        divisor = torch.ones(rows, columns, dtype=torch.float64) if kind == "sum" else None
        _put(reader, node, source, (kernel, kernel, _NO_PADS), divisor)
        return
    shape = planes[0], planes[1] // kernel[0], planes[2] // kernel[1]
    name = reader.named(node, "pool")
    reader.put(MaxPool(name, (source,), shape, reader.positive((source,)), kernel, kernel, _NO_PADS), [node])


def _maximum(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    line = called(node) == "max_pool1d"
    kernel, stride, padding = _walk(given, line)
    dilations = _pair(given["dilation"], line, 1)
    spans = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    before, after = _planes(reader, given["self"]), _results(reader, node)
    operand = unpadded_pool(reader, node, given["self"], maximum=(spans[0], spans[1]))
    own = _sides((before[1], before[2]), (after[1], after[2]), (spans[0], spans[1]), stride, padding)
    pads = cast(Sides, tuple(a + b for a, b in zip(operand.pads, own, strict=True)))
    name, positive = reader.named(node, "pool"), reader.positive((operand.name,))
    reader.put(MaxPool(name, (operand.name,), after, positive, kernel, stride, pads, dilations), [node])


def _results(reader: Reader, node: fx.Node) -> tuple[int, int, int]:
    """The shape of a pool's output as [C, H, W]; it may have indices beside it."""
    value = node.meta["val"]
    found = tuple((value[0] if isinstance(value, tuple | list) else value).shape)[1:]
    return (found[0], 1, found[1]) if len(found) == 2 else cast(tuple[int, int, int], found)


def _bilinear(reader: Reader, node: fx.Node) -> None:
    """Bilinear upsampling by integers s: an average of 2 s x 2 s among positions that are repeated 2 s times.

    Between the centres of two pixels, a linear function is the average of the nearest pixel over one pixel's width.
    """
    given = arguments(node)
    source = reader.planes(node, given["input"] if "input" in given else given["self"])
    before, after = reader.shape_of(source), _results(reader, node)
    whole = all(large % small == 0 for small, large in zip(before[1:], after[1:], strict=True))
    if given["align_corners"] or not whole or reader.shape(node)[0] != before[0]:
        raise reader.refuse(node, "must be by whole numbers, with align_corners False")
    kernel, stride = [1, 1], [1, 1]
    for axis in (1, 2):
        factor = after[axis] // before[axis]
        if factor > 1:
            first, last = 1 - factor, 2 * factor * before[axis] - 1 + factor
            indices = tuple(min(max(i // (2 * factor), 0), before[axis] - 1) for i in range(first, last))
            source = take(reader, reader.name(f"{reader.path(node)}.take"), source, axis, indices)
            kernel[axis - 1], stride[axis - 1] = 2 * factor, 2
    _put(reader, node, source, ((kernel[0], kernel[1]), (stride[0], stride[1]), _NO_PADS), None)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _average),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _adaptive),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), _adaptive_maximum),
    **dict.fromkeys(("mean", "sum", "amax"), _reduced),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices"), _maximum),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_linear1d"), _bilinear),
}
