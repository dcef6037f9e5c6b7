"""Convolutions and fully connected layers, the batch norm after them and the activation after that."""

from typing import cast

import torch
from torch import fx

from dqtsim.train.reading.clamps import activation_of
from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import INPUT, Activation, Layer, Logits, Norm, Sides

_NORMS = ("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm", "_native_batch_norm_legit")


def is_norm(node: fx.Node | None) -> bool:
    """Whether a node is a batch norm, in whatever mode."""
    return node is not None and "batch_norm" in called(node)


def norm_of(reader: Reader, node: fx.Node) -> Norm:
    """A batch norm's numbers; refused where it takes the statistics of the batch."""
    given = arguments(node)
    if given.get("training") or "functional" in called(node) or given.get("running_mean") is None:
        raise reader.refuse(
            node, "must normalise with its running statistics, but takes those of the batch; call eval() on it, and "
            "track_running_stats must be True"
        )  # fmt: skip
    mean, variance = (reader.constant(node, given[name], "statistics") for name in ("running_mean", "running_var"))
    gamma = torch.ones_like(mean) if given["weight"] is None else reader.constant(node, given["weight"], "weights")
    beta = torch.zeros_like(mean) if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    return Norm(gamma, beta, mean, variance, float(given["eps"]))


def _convolution(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    source = reader.source(node, given["input"])
    weight = reader.constant(node, given["weight"], "weights")
    bias = None if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    if weight.dim() != 4:
        raise reader.refuse(node, "must be a convolution in two dimensions")
    dilations = given["dilation"]
    pads = _pads(given["padding"], (weight.shape[2], weight.shape[3]), dilations)
    name = reader.name(_short(_layer_path(reader, node, given["weight"], "conv")))
    _put(reader, node, name, source, weight, bias, pads, given["stride"], dilations, given["groups"])


def _linear(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    if called(node) == "addmm":
        raise reader.refuse(node)
    source = reader.source(node, given["input"])
    weight = reader.constant(node, given["weight"], "weights")
    bias = None if given["bias"] is None else reader.constant(node, given["bias"], "weights")
    found = reader.shape(node)
    if len(found) != 1:
        raise reader.refuse(node, f"must take flat tensors (N, K), but takes one of {len(found) + 1} axes")
    name = reader.name(_short(_layer_path(reader, node, given["weight"], "linear")))
    if [user.op for user in node.users] == ["output"]:
        reader.put(Logits(name, (source,), found, False, weight, bias), [node])
        return
    _put(reader, node, name, source, weight, bias, (0, 0, 0, 0), (1, 1), (1, 1), 1)


def _put(
    reader: Reader, node: fx.Node, name: str, source: str, weight: torch.Tensor, bias: torch.Tensor | None,
    pads: Sides, strides: list[int] | tuple[int, int], dilations: list[int] | tuple[int, int], groups: int,
) -> None:  # fmt: skip
    """A layer with the batch norm and the activation that are its only readers."""
    nodes, norm, follower = [node], None, reader.follower(node)
    if is_norm(follower):
        norm = norm_of(reader, cast(fx.Node, follower))
        nodes.append(cast(fx.Node, follower))
        follower = reader.follower(nodes[-1])
    sums, activation = nodes[-1], Activation()
    if follower is not None and (found := activation_of(follower)) is not None:
        activation = found
        nodes.append(follower)
    step = Layer(
        name, (source,), reader.shape(nodes[-1]), activation.rectified, weight, bias, _pair(strides), pads,
        _pair(dilations), groups, norm, activation, None, source == INPUT,
    )  # fmt: skip
    reader.put(step, nodes, sums)


def _pair(value: list[int] | tuple[int, int]) -> tuple[int, int]:
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _pads(padding: str | list[int], kernel: tuple[int, int], dilations: list[int]) -> Sides:
    """Padding as (top, left, bottom, right); "same" has the odd tap at the end."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        rows, columns = (d * (k - 1) for d, k in zip(_pair(dilations), kernel, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    rows, columns = _pair(cast(list[int], padding))
    return rows, columns, rows, columns


def _layer_path(reader: Reader, node: fx.Node, weight: fx.Node, kind: str) -> str:
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


HANDLERS: dict[str, Handler] = {"conv2d": _convolution, "convolution": _convolution, "linear": _linear}
