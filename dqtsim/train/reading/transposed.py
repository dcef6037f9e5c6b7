"""Transposed convolutions: a convolution whose outputs are the phases of the result, then depth to space.

Y = m * s + f is the position of a sum before padding is cut off. Of phase f are the weights k = t * s + f, of the
position m - t of the input. So each phase is a convolution with a kernel of ceil(k / s) taps.
"""

from typing import cast

import torch
from torch import fx

from dqtsim.train.reading.export import arguments
from dqtsim.train.reading.layers import Sums, put
from dqtsim.train.reading.moves import take, to_space
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Pair, Sides


def _transposed(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    weight = reader.constant(node, given["weight"], "weights")
    if weight.dim() not in (3, 4):
        raise reader.refuse(node, "must be in one or two dimensions")
    line = weight.dim() == 3
    weight = weight.unsqueeze(2) if line else weight
    strides, dilations = _pair(given["stride"], line, 1), _pair(given["dilation"], line, 1)
    padding, groups = _pair(given["padding"], line, 0), given["groups"]
    bias = None if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    found = reader.shape(node)
    after = (1, found[1]) if line else (found[1], found[2])
    weight = _phases(_dilated(weight, dilations), strides, groups)
    source = reader.planes(node, given["input"])
    times, outputs = strides[0] * strides[1], found[0]
    pads, skipped, counts = [0, 0, 0, 0], [0, 0], [0, 0]
    for axis in range(2):
        total, taps, stride, pad = (
            reader.shape_of(source)[axis + 1],
            weight.shape[axis + 2],
            strides[axis],
            padding[axis],
        )
        first, end = pad // stride, -(-(pad + after[axis]) // stride)
        before, behind = taps - 1 - first, end - total
        skipped[axis], counts[axis] = pad - first * stride, end - first
        if min(before, behind) < 0:
            # Positions that no sum reads.
            kept = tuple(range(max(0, -before), total - max(0, -behind)))
            source = take(reader, reader.name(f"{reader.path(node)}.crop"), source, axis + 1, kept)
        pads[axis], pads[axis + 2] = max(before, 0), max(behind, 0)
    wide = None if bias is None else bias.repeat_interleave(times)
    name = reader.name(reader.path(node) or "deconv")
    sums = Sums(
        name,
        source,
        (outputs * times, counts[0], counts[1]),
        weight,
        wide,
        pads=cast(Sides, tuple(pads)),
        groups=groups,
    )

    def tail(layer: str, last: fx.Node) -> None:
        full = layer if times == 1 else to_space(reader, reader.name(f"{name}.space"), layer, strides)
        for axis in range(2):
            kept = tuple(range(skipped[axis], skipped[axis] + after[axis]))
            if kept != tuple(range(reader.shape_of(full)[axis + 1])):
                full = take(reader, reader.name(f"{name}.take"), full, axis + 1, kept)
        reader.name_as(last, full)

    put(reader, node, sums, times=times, tail=tail)


def _dilated(weight: torch.Tensor, dilations: Pair) -> torch.Tensor:
    """The same weights with zeros between them."""
    rows, columns = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    wide = weight.new_zeros(*weight.shape[:2], rows, columns)
    wide[:, :, :: dilations[0], :: dilations[1]] = weight
    return wide


def _phases(weight: torch.Tensor, strides: Pair, groups: int) -> torch.Tensor:
    """Weights [I, O/groups, kh, kw] as those of a convolution, [O * s * s, I/groups, ceil(kh/s), ceil(kw/s)]."""
    inputs, outputs, rows, columns = weight.shape
    a, b = strides
    taps = -(-rows // a), -(-columns // b)
    full = weight.new_zeros(inputs, outputs, taps[0] * a, taps[1] * b)
    full[:, :, :rows, :columns] = weight
    split = full.reshape(groups, inputs // groups, outputs, taps[0], a, taps[1], b)
    # Groups and outputs, then phases, then inputs and taps, the last tap first.
    turned = split.permute(0, 2, 4, 6, 1, 3, 5).flip(5, 6)
    return turned.reshape(groups * outputs * a * b, inputs // groups, *taps).contiguous()


def _pair(value: list[int], line: bool, other: int) -> Pair:
    return (other, value[0]) if line else (value[0], value[-1])


HANDLERS: dict[str, Handler] = dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _transposed)
