"""Averages and maxima over windows."""

from torch import fx

from dqtsim.train.reading.export import arguments
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import AveragePool, Flatten, MaxPool, Pair, Sides


def _average(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    if given["ceil_mode"] or given["divisor_override"] is not None:
        raise reader.refuse(node, "must have ceil_mode False and no divisor_override")
    pads = _sides(given["padding"])
    if any(pads) and not given["count_include_pad"]:
        raise reader.refuse(node, "must count padded taps")
    kernel = _pair(given["kernel_size"])
    _put_average(reader, node, kernel, _pair(given["stride"] or kernel), pads)


def _adaptive(reader: Reader, node: fx.Node) -> None:
    source = arguments(node)["self"]
    size, outputs = reader.shape(source)[1:], reader.shape(node)[1:]
    if any(total % parts for total, parts in zip(size, outputs, strict=True)):
        raise reader.refuse(node, f"must divide its input {size} into equal windows, but gives {outputs}")
    kernel = size[0] // outputs[0], size[1] // outputs[1]
    _put_average(reader, node, kernel, kernel, (0, 0, 0, 0))


def _mean(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    size = reader.shape(given["self"])[1:]
    if len(size) != 2 or sorted(axis % 4 for axis in given["dim"] or ()) != [2, 3]:
        raise reader.refuse(node, "must be over rows and columns, (2, 3)")
    _put_average(reader, node, (size[0], size[1]), (size[0], size[1]), (0, 0, 0, 0))


def _put_average(reader: Reader, node: fx.Node, kernel: Pair, stride: Pair, pads: Sides) -> None:
    given = arguments(node)
    source, before = reader.source(node, given["self"]), reader.shape(given["self"])
    name, positive = reader.named(node, "pool"), reader.positive((source,))
    shape = before[0], *_walked(before, kernel, stride, pads)
    if reader.shape(node) == shape:
        reader.put(AveragePool(name, (source,), shape, positive, kernel, stride, pads), [node])
        return
    reader.put(AveragePool(name, (source,), shape, positive, kernel, stride, pads), [])
    reader.put(Flatten(reader.name(f"{name}.flat"), (name,), reader.shape(node), positive), [node])


def _maximum(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    if given["ceil_mode"] or _pair(given["dilation"]) != (1, 1):
        raise reader.refuse(node, "must have dilation 1 and ceil_mode False")
    source, kernel = reader.source(node, given["self"]), _pair(given["kernel_size"])
    name, positive = reader.named(node, "pool"), reader.positive((source,))
    stride, pads = _pair(given["stride"] or kernel), _sides(given["padding"])
    reader.put(MaxPool(name, (source,), reader.shape(node), positive, kernel, stride, pads), [node])


def _walked(shape: tuple[int, ...], kernel: Pair, stride: Pair, pads: Sides) -> Pair:
    """Rows and columns of a pool's output."""
    rows = (shape[1] + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    return rows, (shape[2] + pads[1] + pads[3] - kernel[1]) // stride[1] + 1


def _pair(value: list[int] | Pair) -> Pair:
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _sides(value: list[int]) -> Sides:
    rows, columns = _pair(value)
    return rows, columns, rows, columns


HANDLERS: dict[str, Handler] = {
    "avg_pool2d": _average,
    "adaptive_avg_pool2d": _adaptive,
    "_adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "max_pool2d": _maximum,
}
