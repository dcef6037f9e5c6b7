"""The trainer's own execution of a model file: the law in PyTorch, node by node.

It shares no arithmetic with `spec`, with the kernels or with the function bodies, so its agreement with them is
evidence. Multiply-accumulates run on floats and are exact there, because every partial sum is an integer below
2^24 (float32) or far below 2^53 (float64); everything else is int64. Accumulators are unbounded.
"""

import math
from collections.abc import Callable
from typing import assert_never

import numpy as np
import torch
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.graph.model import BITS, Array, Graph, Node, Widths
from dqtsim.graph.results import results, scores
from dqtsim.spec.rules import Nesting, Rounding
from dqtsim.train.files import Pictures, in_parts

Inputs = dict[str, torch.Tensor]  # by role


def run_graph(
    graph: Graph, codes: Array, allow: Callable[[Node, Widths], None] = lambda node, pair: None
) -> dict[str, Array]:
    """Return every tensor of `graph` for one sample uint8 (1, ...), by name.

    `allow` is called before each layer runs, and raises if the layer may not run at these widths.
    Codes are uint8, logits int32; `<layer>.acc` is P (B1), int64. Raises ModelError for an operator unknown here.
    """
    values = {name: torch.from_numpy(np.array(array)) for name, array in graph.initializers.items()}
    values[graph.input.name] = torch.from_numpy(np.array(codes))
    named: dict[str, Array] = {graph.input.name: codes}
    for node in graph.nodes:
        inputs = node.operands_in(values)
        if node.operator in LAYERS:
            b_w, b_a = inputs["widths"].tolist()
            allow(node, (b_w, b_a))
            p, y = _layer(graph, node, inputs, (b_w, b_a))
            named[f"{node.name}.acc"] = p.numpy()
        else:
            y = _other(graph, node, inputs)
        values[node.outputs[0]] = y
        named[node.outputs[0]] = y.numpy()
    return named


def _other(graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    if node.operator not in _OPERATORS:
        raise ModelError(f"the PyTorch path does not know the operator of {node.title}.")
    return _OPERATORS[node.operator](graph, node, inputs)


def run_batch(
    graph: Graph, codes: torch.Tensor, widths: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the class scores of samples uint8 [N, ...], and the widths int64 [N, layers, 2] used.

    Scores are the output that classifies, int32 [N, classes] where they are logits; the first output if none does.
    `widths` [layers, 2] or [N, layers, 2] replaces the controller's choices. A sample's result does not depend on the
    batch. The graph must compute its `bits` as GraphBuilder's graphs do.
    """
    values = {name: torch.from_numpy(np.array(array)) for name, array in graph.initializers.items()}
    values[graph.input.name] = codes
    n, rows = graph.arithmetic.master_width, {name: row for row, name in enumerate(graph.layers)}
    used = torch.full((len(codes), len(rows), 2), n, dtype=torch.int64)
    for name, pair in graph.pinned.items():
        used[:, rows[name]] = torch.tensor(pair)
    if widths is None and not graph.dynamic:
        widths = values[BITS]
    if widths is not None:
        used[:] = widths
    output = scores(graph) or results(graph)[0].name
    for node in _data_nodes(graph, [output] if widths is not None else [output, graph.controller]):
        inputs = {role: values[name] for role, name in node.operands.items() if name in values}
        if node.operator in LAYERS:
            own = used[:, rows[node.name]] if node.name in rows else torch.full((len(codes), 2), n)
            values[node.outputs[0]] = _mixed_layer(graph, node, inputs, own)
        else:
            values[node.outputs[0]] = _other(graph, node, _of_batch(node, inputs))
        if widths is None and node.outputs[0] == graph.controller:
            free = [rows[name] for name in graph.layers if name not in graph.pinned]
            table = values[graph.controller].reshape(len(codes), len(free), len(graph.candidates))
            used[:, free] = torch.tensor(graph.candidates)[_first_largest(table)]
    return values[output], used


def _of_batch(node: Node, inputs: Inputs) -> Inputs:
    """Return the inputs of a node for many samples; its constants say what it does to one, whose first axis is 1.

    Raises ModelError for a node that moves the axis of the samples.
    """
    first = next(iter(inputs.values()))
    rank = first.dim()
    keeps = True
    match node.operator:
        case "Concat" | "Gather":
            keeps = node.integer("axis") % rank != 0
        case "Slice":
            keeps = all(axis % rank for axis in inputs["axes"].tolist())
        case "Transpose":
            keeps = node.integers("perm")[0] == 0
        case "Flatten":
            keeps = node.integer("axis") in (1, 1 - rank)
        case "Reshape":
            shape = inputs["shape"].tolist()
            if shape[0] == -1 and 0 not in shape:
                shape[0] = first[0].numel() // math.prod(shape[1:])
            keeps = shape[0] in (0, 1)
            inputs = {**inputs, "shape": torch.tensor([0, *shape[1:]])}
    if not keeps:
        raise ModelError(f"the PyTorch path runs one sample at a time if {node.title} moves the axis of the samples.")
    return inputs


def _data_nodes(graph: Graph, wanted: list[str]) -> list[Node]:
    """The nodes on which `wanted` tensors depend, without those that compute widths."""
    needed, kept = set(wanted), list[Node]()
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(name for role, name in node.operands.items() if role != "widths")
    return kept[::-1]


def _mixed_layer(graph: Graph, node: Node, inputs: Inputs, widths: torch.Tensor) -> torch.Tensor:
    """A layer's output at each sample's widths int64 [N, 2], one group of samples per pair of widths."""
    pairs, group = torch.unique(widths, dim=0, return_inverse=True)
    result: torch.Tensor | None = None
    for number, (b_w, b_a) in enumerate(pairs.tolist()):
        members = (group == number).nonzero().squeeze(1)
        _, y = _layer(graph, node, {**inputs, "x": inputs["x"][members]}, (b_w, b_a))
        if result is None:
            result = torch.empty((len(widths), *y.shape[1:]), dtype=y.dtype)
        result[members] = y
    if result is None:
        raise ValueError("a batch needs at least one sample")
    return result


def classify(
    graph: Graph,
    images: Pictures,
    widths: torch.Tensor | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes int64 [N] (B7, lowest index on a tie) and widths int64 [N, layers, 2] of many pictures."""
    classes, used = [], []
    for part in in_parts(images):
        logits, rows = run_batch(
            graph, images[part], widths[part] if widths is not None and widths.dim() == 3 else widths
        )
        classes.append(_first_largest(logits))
        used.append(rows)
        progress(min(part.stop, len(images)))
    return torch.cat(classes), torch.cat(used)


LAYERS = ("NestedConv", "NestedGemm", "NestedLogits")


def _nested(codes: torch.Tensor, width: int, n: int, rule: Nesting) -> torch.Tensor:
    """A1-A3: int64 codes of `width` bits. The code is divided, where the law shifts."""
    step, master = 2 ** (n - width), codes.to(torch.int64)
    match rule:
        case Nesting.TIES_UP:
            if step == 1:
                return master
            return torch.div(2 * master + step, 2 * step, rounding_mode="floor").clamp(max=2**width - 1)
        case Nesting.FLOOR | Nesting.MIDPOINT | Nesting.CENTROID:
            return torch.div(master, step, rounding_mode="floor")
        case _:
            assert_never(rule)


def _weights(w: torch.Tensor, width: int, n: int, rule: Nesting) -> tuple[torch.Tensor, int]:
    """A5: int64 operands of weights and their exponent."""
    operand = _nested(w, width, n, rule) - 2 ** (width - 1)
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return operand, n - width
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return (operand * 2 + 1, n - width - 1) if width < n else (operand, 0)
        case _:
            assert_never(rule)


def _activations(graph: Graph, node: Node, inputs: Inputs, width: int) -> tuple[torch.Tensor, int]:
    """A5, A6, B1, B1': int64 operands of the input with its border, and their exponent."""
    n, rule = graph.arithmetic.master_width, graph.arithmetic.activation_rule
    lower = int(inputs["windows"][width]) if "windows" in node.form else 0
    codes, z = inputs["x"], inputs["x_zero_point"].reshape(1)
    if node.operator == "NestedConv":
        top, left, bottom, right = node.integers("pads")
        codes = functional.pad(codes, (left, right, top, bottom), value=int(z))
        if "padding" in node.form:
            inside = functional.pad(torch.ones_like(inputs["x"][:1, :1]), (left, right, top, bottom)) > 0
            codes = torch.where(inside, codes, inputs["padding"].reshape(1, -1, 1, 1))
    zero = _nested(z, width, n, rule)
    moved = _nested(codes, width + lower, n, rule) - _nested(z, width + lower, n, rule) + zero
    return moved.clamp(0, 2**width - 1) - zero, n - width - lower


def _layer(graph: Graph, node: Node, inputs: Inputs, widths: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """B1-B4 and B7 at `widths`: the accumulator P int64 and the layer's output, of any number of samples."""
    rules, n = graph.arithmetic, graph.arithmetic.master_width
    w, (b_w, b_a) = inputs["w"], widths
    s_w, e_w = _weights(w, b_w, n, rules.weight_rule)
    s_a, e_a = _activations(graph, node, inputs, b_a)
    largest = int(s_w.abs().flatten(1).sum(1).max()) * int(s_a.abs().max()) if s_a.numel() else 0
    exact = torch.float32 if largest < 2**24 else torch.float64
    a, w = s_a.to(exact), s_w.to(exact)
    p = (_convolve(node, a, w) if node.operator == "NestedConv" else a @ w.T).to(torch.int64)
    row = _row(node, inputs, widths)
    shape = (1, -1, 1, 1) if p.dim() == 4 else (1, -1)
    total = p * 2 ** (e_w + e_a) + inputs["bias"][row].reshape(shape)
    match rules.weight_rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            pass
        case Nesting.CENTROID:
            if b_w < n:
                total = total - torch.div(_column(node, s_a, inputs["w"]) * 2**e_a + 1, 2, rounding_mode="floor")
        case _:
            assert_never(rules.weight_rule)
    if node.operator == "NestedLogits":
        return p, total.to(torch.int32)
    multiplier, shift = (inputs[role][row].reshape(shape) for role in ("multiplier", "shift"))
    return p, _requantize(graph, node, total * multiplier, shift, inputs["y_zero_point"])


def _column(node: Node, s_a: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """B2': U int64 of every output, the sum of the operands under its window."""
    a, ones = s_a.double(), torch.ones_like(weight, dtype=torch.float64)
    return (_convolve(node, a, ones) if node.operator == "NestedConv" else a @ ones.T).to(torch.int64)


def _row(node: Node, inputs: Inputs, widths: tuple[int, int]) -> int:
    """B3', B3'': the row of (B, M, S)."""
    if "row_pairs" not in node.form:
        row_widths = node.integers("row_widths")
        return min(sum(width < min(widths) for width in row_widths), len(row_widths) - 1)
    wider = inputs["row_pairs"] - torch.tensor(widths)
    # an own row is worth more than a wide one, a wide one more than the last; among equals the first is taken
    worth = 2 * (wider == 0).all(1).to(torch.int64) + (wider >= 0).all(1).to(torch.int64)
    return int(worth.argmax()) if int(worth.max()) else len(worth) - 1


def _convolve(node: Node, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(a, w, None, node.pair("strides"), 0, node.pair("dilations"), node.integer("group"))


def _requantize(graph: Graph, node: Node, x: torch.Tensor, shift: torch.Tensor, z_y: torch.Tensor) -> torch.Tensor:
    """B4 after the multiplication: codes uint8."""
    y = _shift(x, shift, graph.arithmetic.rounding) + z_y.to(torch.int64)
    return y.clamp(node.integer("low"), node.integer("high")).to(torch.uint8)


def _shift(x: torch.Tensor, shift: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """Divide x by 2^shift; the dropped part is compared with one half."""
    divisor = torch.ones_like(shift) << shift
    floor = torch.div(x, divisor, rounding_mode="floor")
    dropped = x - floor * divisor
    kept_out = divisor - dropped  # > dropped: below the half; == dropped: a tie
    above = dropped > kept_out
    tie = dropped == kept_out
    match rounding:
        case Rounding.FLOOR:
            up = torch.zeros_like(tie)
        case Rounding.TIES_UP:
            up = above | tie
        case Rounding.TIES_AWAY:
            up = above | (tie & (x >= 0))
        case Rounding.TIES_EVEN:
            up = above | (tie & (floor % 2 == 1))
        case _:
            assert_never(rounding)
    return floor + up.to(torch.int64)


def _add(graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B5."""
    a, b = (
        (inputs[x].to(torch.int64) - inputs[f"{x}_zero_point"].to(torch.int64)) * inputs[f"{x}_multiplier"]
        for x in "ab"
    )
    return _requantize(graph, node, a + b, inputs["shift"], inputs["y_zero_point"])


def _average_pool(graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B6, B6': the windows are unfolded and summed; multipliers of positions are spread by broadcasting."""
    top, left, bottom, right = node.integers("pads")
    centred = functional.pad(inputs["x"].to(torch.int64) - int(inputs["x_zero_point"]), (left, right, top, bottom))
    (height, width), (down, across) = node.pair("kernel_shape"), node.pair("strides")
    sums = centred.unfold(2, height, down).unfold(3, width, across).sum((4, 5))
    return _requantize(graph, node, sums * inputs["multiplier"], inputs["shift"], inputs["y_zero_point"])


def _rescale(graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B4 on codes."""
    centred = inputs["x"].to(torch.int64) - int(inputs["x_zero_point"])
    return _requantize(graph, node, centred * inputs["multiplier"], inputs["shift"], inputs["y_zero_point"])


def _table(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B9, B9': every code is an index, with a table per channel after that of its channel."""
    x, table = inputs["x"].to(torch.int64), inputs["table"]
    if "channels" not in node.form:
        return table[x]
    channel = torch.arange(len(table)).reshape(-1, *[1] * (x.dim() - 2))
    return table[channel, x]


def _multiply(graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B10: b of one code per channel is spread by broadcasting."""
    a, b = (inputs[x].to(torch.int64) - inputs[f"{x}_zero_point"].to(torch.int64) for x in "ab")
    return _requantize(graph, node, a * b * inputs["multiplier"], inputs["shift"], inputs["y_zero_point"])


def _max_pool(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    """B6: padded taps are below every code."""
    top, left, bottom, right = node.integers("pads")
    padded = functional.pad(inputs["x"].double(), (left, right, top, bottom), value=-1.0)
    pooled = functional.max_pool2d(padded, node.pair("kernel_shape"), node.pair("strides"), 0, node.pair("dilations"))
    return pooled.to(torch.uint8)


def _argmax(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    index = _first_largest(inputs["data"])
    return index.unsqueeze(-1) if node.integer("keepdims") else index


def _first_largest(x: torch.Tensor) -> torch.Tensor:
    """B7, B8: the lowest index on a tie, by counting the entries before the first largest one."""
    largest = x == x.max(-1, keepdim=True).values
    return (largest.to(torch.int64).cumsum(-1) == 0).sum(-1)


def _concat(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    parts = list(inputs.values())
    # Of a batch, the constants are one picture's.
    pictures = max(len(part) for part in parts)
    batched = [part.expand(pictures, *part.shape[1:]) for part in parts] if node.integer("axis") else parts
    return torch.cat(batched, node.integer("axis"))


def _reshape(_graph: Graph, _node: Node, inputs: Inputs) -> torch.Tensor:
    data = inputs["data"]
    return data.reshape([data.shape[axis] if size == 0 else size for axis, size in enumerate(inputs["shape"].tolist())])


def _slice(_graph: Graph, _node: Node, inputs: Inputs) -> torch.Tensor:
    x = inputs["data"]
    bounds = (inputs[role].tolist() for role in ("starts", "ends", "axes", "steps"))
    for start, end, axis, step in zip(*bounds, strict=True):
        places = torch.arange(x.shape[axis])[start:end:step]
        x = x.index_select(axis, places)
    return x


def _gather(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    data, indices = inputs["data"], inputs["indices"]
    axis = node.integer("axis") % data.dim()
    # an index below 0 counts from the end
    taken = data.index_select(axis, indices.reshape(-1) % data.shape[axis])
    return taken.reshape([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])


def _flatten(_graph: Graph, node: Node, inputs: Inputs) -> torch.Tensor:
    data, axis = inputs["input"], node.integer("axis")
    rows = data.shape[: axis if axis >= 0 else data.dim() + axis]
    return data.reshape(rows.numel(), -1)


_OPERATORS: dict[str, Callable[[Graph, Node, Inputs], torch.Tensor]] = {
    "NestedAdd": _add,
    "NestedAveragePool": _average_pool,
    "NestedRequantize": _rescale,
    "NestedTable": _table,
    "NestedMultiply": _multiply,
    "MaxPool": _max_pool,
    "ArgMax": _argmax,
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda _graph, _node, inputs: inputs["input"],
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": lambda _graph, node, inputs: inputs["data"].permute(node.integers("perm")).contiguous(),
}
