"""The trainer's own reading of a model file: the law in PyTorch, node by node, for one sample.

It shares no arithmetic with `spec`, with the kernels or with the function bodies, which makes its agreement with them
worth something. Multiply-accumulates run on float64 and are exact there, because every partial sum is an integer far
below 2^53; everything else is int64. Accumulators are unbounded.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.graph.model import Array, Graph, Node
from dqtsim.spec.rules import Nesting, Rounding

Values = Mapping[str, torch.Tensor]


def run_graph(graph: Graph, codes: Array) -> dict[str, Array]:
    """Return every tensor of `graph` for one sample uint8 (1, ...), by name.

    Codes are uint8, logits int32; `<layer>.acc` is P (B1), int64. Raises ModelError for an operator unknown here.
    """
    values = {name: torch.from_numpy(np.array(array)) for name, array in graph.initializers.items()}
    values[graph.input.name] = torch.from_numpy(np.array(codes))
    named: dict[str, Array] = {graph.input.name: codes}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        if node.operator in _LAYERS:
            p, y = _layer(graph, node, inputs)
            named[f"{node.name}.acc"] = p.numpy()
        elif node.operator in _OPERATORS:
            y = _OPERATORS[node.operator](graph, node, inputs)
        else:
            raise ModelError(f"the PyTorch path does not know the operator of {node.title}.")
        values[node.outputs[0]] = y
        named[node.outputs[0]] = y.numpy()
    return named


_LAYERS = ("NestedConv", "NestedGemm", "NestedLogits")


def _operand(codes: torch.Tensor, zero_point: int, width: int, n: int, rule: Nesting) -> tuple[torch.Tensor, int]:
    """A1-A5: int64 operands and their exponent. The code is divided, where the law shifts."""
    step = 2 ** (n - width)
    both = torch.cat([codes.to(torch.int64).flatten(), torch.tensor([zero_point])])
    if rule == Nesting.TIES_UP and step > 1:
        both = torch.div(2 * both + step, 2 * step, rounding_mode="floor").clamp(max=2**width - 1)
    else:
        both = torch.div(both, step, rounding_mode="floor")
    operand = (both[:-1] - both[-1]).reshape(codes.shape)
    if rule == Nesting.MIDPOINT and step > 1:
        return operand * 2 + 1, n - width - 1
    return operand, n - width


def _layer(graph: Graph, node: Node, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """B1-B4 and B7: the accumulator P int64 and the layer's output."""
    rules, n = graph.arithmetic, graph.arithmetic.master_width
    x, w, z_x = inputs[:3]
    b_w, b_a = inputs[-1].tolist()
    s_w, e_w = _operand(w, 2 ** (n - 1), b_w, n, rules.weight_rule)
    s_a, e_a = _operand(x, int(z_x), b_a, n, rules.activation_rule)
    a, w = s_a.double(), s_w.double()
    p = (_convolve(node, a, w) if node.operator == "NestedConv" else a @ w.T).to(torch.int64)
    row_widths = node.integers("row_widths")
    row = min(sum(width < min(b_w, b_a) for width in row_widths), len(row_widths) - 1)
    shape = (1, -1, 1, 1) if p.dim() == 4 else (1, -1)
    rows = [table[row].reshape(shape) for table in inputs[3:-1] if table.dim() == 2]
    total = p * 2 ** (e_w + e_a)
    if node.operator == "NestedLogits":
        return p, (total + rows[0]).to(torch.int32)
    bias, multiplier, shift = rows
    return p, _requantize(graph, node, (total + bias) * multiplier, shift, inputs[3])


def _convolve(node: Node, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = node.integers("pads")
    padded = functional.pad(a, (left, right, top, bottom))
    return functional.conv2d(padded, w, None, node.pair("strides"), 0, node.pair("dilations"), node.integer("group"))


def _requantize(graph: Graph, node: Node, x: torch.Tensor, shift: torch.Tensor, z_y: torch.Tensor) -> torch.Tensor:
    """B4 after the multiplication: codes uint8."""
    y = _shift(x, shift, graph.arithmetic.rounding) + z_y.to(torch.int64)
    return y.clamp(node.integer("low"), node.integer("high")).to(torch.uint8)


def _shift(x: torch.Tensor, shift: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """Divide x by 2^shift. What is dropped is compared with the half, tie by tie."""
    divisor = torch.ones_like(shift) << shift
    floor = torch.div(x, divisor, rounding_mode="floor")
    dropped = x - floor * divisor
    kept_out = divisor - dropped  # > dropped: below the half; == dropped: a tie
    above = dropped > kept_out
    tie = dropped == kept_out
    up = {
        Rounding.FLOOR: torch.zeros_like(tie),
        Rounding.TIES_UP: above | tie,
        Rounding.TIES_AWAY: above | (tie & (x >= 0)),
        Rounding.TIES_EVEN: above | (tie & (floor % 2 == 1)),
    }[rounding]
    return floor + up.to(torch.int64)


def _add(graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """B5."""
    a, b, z_a, z_b, z_y, m_a, m_b, shift = inputs
    parts = [(q.to(torch.int64) - z.to(torch.int64)) * m for q, z, m in ((a, z_a, m_a), (b, z_b, m_b))]
    return _requantize(graph, node, parts[0] + parts[1], shift, z_y)


def _average_pool(graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """B6: the windows are unfolded and summed."""
    x, z_x, z_y, multiplier, shift = inputs
    top, left, bottom, right = node.integers("pads")
    centred = functional.pad(x.to(torch.int64) - int(z_x), (left, right, top, bottom))
    (height, width), (down, across) = node.pair("kernel_shape"), node.pair("strides")
    sums = centred.unfold(2, height, down).unfold(3, width, across).sum((4, 5))
    return _requantize(graph, node, sums * multiplier, shift, z_y)


def _rescale(graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """B4 on codes."""
    x, z_x, z_y, multiplier, shift = inputs
    return _requantize(graph, node, (x.to(torch.int64) - int(z_x)) * multiplier, shift, z_y)


def _max_pool(_graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """B6: padded taps are below every code."""
    top, left, bottom, right = node.integers("pads")
    padded = functional.pad(inputs[0].double(), (left, right, top, bottom), value=-1.0)
    pooled = functional.max_pool2d(padded, node.pair("kernel_shape"), node.pair("strides"), 0, node.pair("dilations"))
    return pooled.to(torch.uint8)


def _argmax(_graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """B7, B8: the lowest index on a tie, by counting the entries before the first largest one."""
    x = inputs[0]
    largest = x == x.max(-1, keepdim=True).values
    index = (largest.to(torch.int64).cumsum(-1) == 0).sum(-1)
    return index.unsqueeze(-1) if node.integer("keepdims") else index


def _reshape(_graph: Graph, _node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    x = inputs[0]
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(inputs[1].tolist())])


def _slice(_graph: Graph, _node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    x = inputs[0]
    for start, end, axis, step in zip(*(part.tolist() for part in inputs[1:]), strict=True):
        places = torch.arange(x.shape[axis])[start:end:step]
        x = x.index_select(axis, places)
    return x


def _gather(_graph: Graph, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    data, indices = inputs
    axis = node.integer("axis") % data.dim()
    taken = data.index_select(axis, indices.reshape(-1))
    return taken.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


_OPERATORS: dict[str, Callable[[Graph, Node, list[torch.Tensor]], torch.Tensor]] = {
    "NestedAdd": _add,
    "NestedAveragePool": _average_pool,
    "NestedRequantize": _rescale,
    "MaxPool": _max_pool,
    "ArgMax": _argmax,
    "Concat": lambda _graph, node, inputs: torch.cat(inputs, node.integer("axis")),
    "Flatten": lambda _graph, node, inputs: inputs[0].flatten(node.integer("axis")).reshape(1, -1),
    "Gather": _gather,
    "Identity": lambda _graph, _node, inputs: inputs[0],
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": lambda _graph, node, inputs: inputs[0].permute(node.integers("perm")).contiguous(),
}
