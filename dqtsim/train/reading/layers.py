"""Convolutions and fully connected layers, with what follows them and is part of them: norms, constants, activation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from dqtsim.train.reading.affine import Affine, affine_of, channels, is_norm, norm_of
from dqtsim.train.reading.clamps import activation_of
from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.pads import unpadded
from dqtsim.train.reading.pixels import Pixels
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Activation, Layer, Logits, Norm, Pair, Sides, Transpose

_NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True)
class Sums:
    """A layer on its way to be a step: its numbers; `shape` is that of its output without N."""

    name: str
    source: str
    shape: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor | None
    strides: Pair = (1, 1)
    pads: Sides = _NO_PADS
    dilations: Pair = (1, 1)
    groups: int = 1
    padding: tuple[float, ...] | None = None
    pinned: bool = False


def put(
    reader: Reader, node: fx.Node, sums: Sums, *, norm: Norm | None = None, times: int = 1,
    tail: Callable[[str, fx.Node], None] | None = None,
) -> None:  # fmt: skip
    """A layer that computes `node` and what follows it alone: a batch norm, constants, an activation.

    The layer has `times` outputs for each channel of the node; `tail` puts what makes the node's tensor of them.
    """
    nodes, weight, bias, activation = [node], sums.weight, sums.bias, Activation()
    before = node
    while (follower := reader.follower(nodes[-1])) is not None:
        if (clamp := activation_of(follower)) is not None:
            activation, before = clamp, nodes[-1]
            nodes.append(follower)
            break
        if is_norm(follower) and norm is None:
            norm = _repeated(norm_of(reader, follower), times)
        elif (affine := affine_of(reader, follower)) is not None:
            weight, bias, norm = _folded(weight, bias, norm, affine, times)
        else:
            break
        nodes.append(follower)
    else:
        before = nodes[-1]
    before = before if activation.rectified else nodes[-1]
    step = Layer(
        sums.name, (sums.source,), sums.shape, activation.rectified, weight, bias, sums.strides, sums.pads,
        sums.dilations, sums.groups, norm, activation, sums.padding, sums.pinned or reader.shows_picture(sums.source),
    )  # fmt: skip
    if tail is None:
        reader.put(step, nodes, before)
    else:
        reader.put(step, [])
        tail(step.name, nodes[-1])
        for computed in nodes:
            reader.tensor[computed] = reader.tensor[nodes[-1]]


def _repeated(norm: Norm, times: int) -> Norm:
    gamma, beta, mean, variance = (
        part.repeat_interleave(times) for part in (norm.gamma, norm.beta, norm.mean, norm.variance)
    )
    return Norm(gamma, beta, mean, variance, norm.eps)


def _folded(
    weight: torch.Tensor, bias: torch.Tensor | None, norm: Norm | None, affine: Affine, times: int
) -> tuple[torch.Tensor, torch.Tensor | None, Norm | None]:
    """A layer's numbers with an affine function behind it."""
    count = len(weight)
    scale, shift = (channels(part, count // times).repeat_interleave(times) for part in (affine.scale, affine.shift))
    if norm is not None:
        return weight, bias, Norm(norm.gamma * scale, norm.beta * scale + shift, norm.mean, norm.variance, norm.eps)
    bias = shift if bias is None else bias * scale + shift
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), bias, None


def _convolution(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    weight = reader.constant(node, given["weight"], "weights")
    if weight.dim() not in (3, 4) or given.get("transposed"):
        raise reader.refuse(node, "must be a convolution in one or two dimensions")
    bias = None if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    line = weight.dim() == 3
    weight = weight.unsqueeze(2) if line else weight
    strides, dilations = _pair(given["stride"], line, 1), _pair(given["dilation"], line, 1)
    pads = _pads(given["padding"], (weight.shape[2], weight.shape[3]), dilations, line)
    name = reader.name(_short(_path(reader, node, given["weight"], "conv")))
    operand = unpadded(reader, node, given["input"])
    pads = cast(Sides, tuple(own + outer for own, outer in zip(pads, operand.pads, strict=True)))
    padding = None
    if operand.pixels is not None:
        weight, bias, padding = _of_pixels(reader, node, operand.pixels, weight, bias, given["groups"])
    found = reader.shape(node)
    put(reader, node, Sums(
        name, operand.name, (found[0], 1, found[1]) if line else found, weight, bias, strides, pads, dilations,
        given["groups"], padding,
    ))  # fmt: skip


def _of_pixels(
    reader: Reader, node: fx.Node, pixels: Pixels, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[float, ...] | None]:
    """Weight and bias for the picture's own channels, and the real values that stand for 0 there, if any is not 0."""
    scale, shift, count = pixels.scale, pixels.shift, reader.shape_of(pixels.source)[0]
    parts = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    if bool((shift != 0).any()):
        sums = (parts * shift.reshape(groups, 1, -1, 1)).sum((2, 3)).flatten()
        bias = sums if bias is None else bias + sums
    weight = (parts * scale.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    if pixels.index != tuple(range(count)):
        if groups != 1:
            raise reader.refuse(node, "must not be grouped where it reads channels of the picture in another order")
        own = weight.new_zeros(len(weight), count, *weight.shape[2:])
        weight = own.index_add(1, torch.tensor(pixels.index), weight)
    zeros = (*pixels.zeros, *[0.0] * count)[:count]
    return weight, bias, zeros if any(zeros) else None


def _linear(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    weight = reader.constant(node, given["weight"], "weights")
    bias = None if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    _product(reader, node, given["input"], weight, bias, _path(reader, node, given["weight"], "linear"))


def _matrix(reader: Reader, node: fx.Node) -> None:
    """A product with a constant matrix, which is on the right."""
    given = arguments(node)
    addend = given["self"] if called(node) == "addmm" else None
    left, right = (
        (given["mat1"], given["mat2"]) if addend is not None else (given["self"], given.get("mat2", given.get("other")))
    )
    weight = reader.constant(node, right, "weights")
    if weight.dim() != 2 or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        raise reader.refuse(node)
    bias = None if addend is None else reader.constant(node, addend, "weights").flatten().expand(weight.shape[1])
    _product(reader, node, left, weight.T.contiguous(), bias, f"{reader.path(node)}.linear")


def _product(
    reader: Reader, node: fx.Node, operand: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None, path: str
) -> None:
    found, name = reader.shape(node), reader.name(_short(path))
    if len(found) != 1:
        _inner(reader, node, name, operand, weight, bias)
        return
    pixels = reader.pixels.get(operand)
    if pixels is None:
        source = reader.plain(node, operand)
    else:
        source = pixels.source
        weight, bias, _ = _of_pixels(reader, node, pixels, weight, bias, 1)
    if all(_ends(user) for user in node.users):
        reader.put(Logits(name, (source,), found, False, weight, bias), [node])
    else:
        put(reader, node, Sums(name, source, found, weight, bias))


def _ends(node: fx.Node) -> bool:
    """Whether a node is the end of the network, or a softmax before it."""
    return node.op == "output" or ("softmax" in called(node) and all(user.op == "output" for user in node.users))


def _inner(
    reader: Reader, node: fx.Node, name: str, operand: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """A fully connected layer over the last of several axes: a 1x1 convolution with that axis as channels."""
    *places, count = reader.shape(operand)
    total = int(torch.tensor(places).prod())
    source = reader.view(reader.plain(node, operand), (total, count))
    turned = reader.put(
        Transpose(reader.name(f"{name}.in"), (source,), (count, total), reader.positive((source,)), (1, 0)), []
    )
    planes = reader.view(turned, (count, 1, total))
    sums = Sums(name, planes, (len(weight), 1, total), weight[:, :, None, None], bias)
    step = Layer(
        name, (planes,), sums.shape, False, sums.weight, bias, (1, 1), _NO_PADS, (1, 1), 1, None, Activation(), None,
        reader.shows_picture(planes),
    )  # fmt: skip
    back = reader.view(reader.put(step, []), (len(weight), total))
    turned = reader.put(Transpose(reader.name(f"{name}.out"), (back,), (total, len(weight)), False, (1, 0)), [])
    reader.name_as(node, reader.view(turned, reader.shape(node)))


def _pair(value: Sequence[int], line: bool, other: int) -> Pair:
    """Rows and columns of a setting; in one dimension there is one row."""
    return (other, value[0]) if line else (value[0], value[-1])


def _pads(padding: str | list[int], kernel: Pair, dilations: Pair, line: bool) -> Sides:
    """Padding as (top, left, bottom, right); "same" has the odd tap at the end."""
    if padding == "valid":
        return _NO_PADS
    if padding == "same":
        rows, columns = (d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    return _pair(cast(list[int], padding), line, 0) * 2


def _path(reader: Reader, node: fx.Node, weight: fx.Node, kind: str) -> str:
    """The module that has the weights, by whatever they are computed, or the calling module and `kind`."""
    path, made = reader.module(node)
    if path and made.startswith("torch.nn."):
        return path
    while weight.all_input_nodes:
        weight = weight.all_input_nodes[0]
    own = reader.exported.targets.get(reader.original[weight], "").removeprefix(f"{path}." if path else "")
    is_its = path and own.startswith(("weight", "parametrizations.weight"))
    return path if is_its else f"{path}.{kind}"


def _short(path: str) -> str:
    """A convolution's block instead of its place in it."""
    return path.rsplit(".", 1)[0] if path.endswith((".conv", ".0")) and path.strip(".").count(".") else path


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("conv1d", "conv2d", "convolution"), _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "addmm"), _matrix),
}
