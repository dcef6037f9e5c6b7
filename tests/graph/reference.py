"""The law once more, in NumPy int64 arrays and loops over taps: what the function bodies are compared with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dqtsim.graph import Graph, Node

Array = npt.NDArray[Any]
Table = npt.NDArray[np.int64]


def nested(q: Array, b: int, n: int, rule: str) -> Table:
    codes = q.astype(np.int64)
    if rule == "TIES_UP" and b < n:
        return np.asarray(np.minimum((codes + (1 << (n - b - 1))) >> (n - b), (1 << b) - 1), np.int64)
    return np.asarray(codes >> (n - b), np.int64)


def weight_operands(w: Array, b: int, n: int, rule: str) -> Table:
    """Return weights in master steps, of CENTROID in halves of them."""
    if rule == "CENTROID":
        codes = w.astype(np.int64) >> (n - b)
        return np.asarray((((codes + codes + 1) << (n - b)) - 1 if b < n else 2 * codes) - (1 << n), np.int64)
    if rule == "MIDPOINT" and b < n:
        return ((w.astype(np.int64) >> (n - b)) << (n - b)) + (1 << (n - b - 1)) - (1 << (n - 1))
    return (nested(w, b, n, rule) << (n - b)) - (1 << (n - 1))


def activation_operands(x: Array, z: int, b: int, n: int, rule: str, lower: int = 0) -> Table:
    """Return activations in master steps, taken `lower` bits lower than at width b and saturated."""
    step = 1 << (n - b - lower)
    least = -int(nested(np.array(z), b, n, rule)) * step
    steps = (nested(x, b + lower, n, rule) - nested(np.array(z), b + lower, n, rule)) * step
    return np.asarray(np.minimum(np.maximum(steps, least), least + ((1 << b) - 1) * step), np.int64)


def shifted(x: Table, s: Table, rounding: str) -> Table:
    divisor = np.int64(1) << s
    floor, rest = np.divmod(x, divisor)
    up = {
        "FLOOR": np.zeros_like(floor),
        "TIES_UP": rest >= divisor - rest,
        "TIES_AWAY": (rest > divisor - rest) | ((rest == divisor - rest) & (x > 0)),
        "TIES_EVEN": (rest > divisor - rest) | ((rest == divisor - rest) & (floor % 2 == 1)),
    }[rounding]
    return np.asarray(floor + up, np.int64)


def convolve(x: Table, w: Table, node: Node, group: int, border: Table | None = None) -> Table:
    """Return the sums of a convolution over (1, C, H, W), with a border of zeros or of one number a channel."""
    (sy, sx), (top, left, bottom, right) = node.pair("strides"), node.integers("pads")
    dy, dx = node.pair("dilations") if "dilations" in node.attributes else (1, 1)
    around = ((top, bottom), (left, right))
    ends = [0] * x.shape[1] if border is None else border.tolist()
    planes = [np.pad(plane, around, constant_values=end) for plane, end in zip(x[0], ends, strict=True)]
    padded = np.array(planes)[None]
    o, inner, kh, kw = w.shape
    rows = (padded.shape[2] - dy * (kh - 1) - 1) // sy + 1
    columns = (padded.shape[3] - dx * (kw - 1) - 1) // sx + 1
    total = np.zeros((group, o // group, rows, columns), np.int64)
    by_group = w.reshape(group, o // group, inner, kh, kw)
    for ky in range(kh):
        for kx in range(kw):
            view = padded[0, :, ky * dy :, kx * dx :][:, : rows * sy : sy, : columns * sx : sx][:, :rows, :columns]
            taps = view.reshape(group, inner, rows, columns)
            total += np.einsum("goc,gcyx->goyx", by_group[..., ky, kx], taps)
    return total.reshape(1, o, rows, columns)


class Reference:
    """Computes every tensor of a graph for one picture and rows of bits."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.n = graph.arithmetic.master_width
        self.weight_rule = graph.arithmetic.weight_rule.value
        self.activation_rule = graph.arithmetic.activation_rule.value
        self.rounding = graph.arithmetic.rounding.value

    def run(self, x: Array, bits: Array | None = None) -> Mapping[str, Array]:
        known: dict[str, Array] = {**self.graph.initializers, "x": x}
        if bits is not None:
            known["bits"] = bits
        for node in self.graph.nodes:
            known[node.outputs[0]] = self.operator(node)(node, [known[name] for name in node.inputs])
        return known

    def operator(self, node: Node) -> Callable[[Node, list[Array]], Array]:
        method: Callable[[Node, list[Array]], Array] = getattr(self, f"op_{node.operator}")
        return method

    def code(self, node: Node, total: Table, m: Array, s: Array, z: Array) -> Array:
        y = int(z) + shifted(total * m.astype(np.int64), s.astype(np.int64), self.rounding)
        return np.clip(y, node.integer("low"), node.integer("high")).astype(np.uint8)

    def aligned(self, given: Mapping[str, Array]) -> tuple[Table, Table]:
        b_w = int(given["widths"][0])
        return self.activations(given, given["x"]), weight_operands(given["w"], b_w, self.n, self.weight_rule)

    def summed(self, products: Table) -> Table:
        """Return sums in master steps, rounded down where weights are in halves of them."""
        return products // 2 if self.weight_rule == "CENTROID" else products

    def activations(self, given: Mapping[str, Array], codes: Array) -> Table:
        b_a = int(given["widths"][1])
        lower = int(given["windows"][b_a]) if "windows" in given else 0
        return activation_operands(codes, int(given["x_zero_point"]), b_a, self.n, self.activation_rule, lower)

    def row(self, node: Node, given: Mapping[str, Array]) -> int:
        widths = given["widths"]
        if "row_pairs" not in given:
            row_widths = node.integers("row_widths")
            return int(min(np.searchsorted(row_widths, min(widths)), len(row_widths) - 1))
        pairs = [tuple(pair) for pair in given["row_pairs"]]
        wide = [pair for pair in pairs if pair[0] >= widths[0] and pair[1] >= widths[1]]
        return pairs.index(([pair for pair in wide if pair == tuple(widths)] + wide + pairs[-1:])[0])

    def op_NestedConv(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        given = dict(zip(node.operands, inputs, strict=True))
        s_a, s_w = self.aligned(given)
        b, m, s = (given[role][self.row(node, given)].reshape(-1, 1, 1) for role in ("bias", "multiplier", "shift"))
        border = self.activations(given, given["padding"]) if "padding" in given else None
        total = self.summed(convolve(s_a, s_w, node, node.integer("group"), border)) + b
        return self.code(node, total, m, s, given["y_zero_point"])

    def op_NestedGemm(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        given = dict(zip(node.operands, inputs, strict=True))
        s_a, s_w = self.aligned(given)
        b, m, s = (given[role][self.row(node, given)] for role in ("bias", "multiplier", "shift"))
        return self.code(node, self.summed((s_w @ s_a[0])[None]) + b, m, s, given["y_zero_point"])

    def op_NestedLogits(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        given = dict(zip(node.operands, inputs, strict=True))
        s_a, s_w = self.aligned(given)
        total: Array = self.summed((s_w @ s_a[0])[None]) + given["bias"][self.row(node, given)]
        return total.astype(np.int32)

    def op_NestedAdd(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        a, b, a_z, b_z, y_z, a_m, b_m, s = (np.asarray(array).astype(np.int64) for array in inputs)
        return self.code(node, (a - a_z) * a_m + (b - b_z) * b_m, np.array(1), s, y_z)

    def op_NestedAveragePool(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        x, x_z, y_z, m, s = inputs
        ones = np.ones((x.shape[1], 1, *node.pair("kernel_shape")), np.int64)
        return self.code(node, convolve(x.astype(np.int64) - int(x_z), ones, node, x.shape[1]), m, s, y_z)

    def op_NestedRequantize(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        x, x_z, y_z, m, s = inputs
        return self.code(node, x.astype(np.int64) - int(x_z), m, s, y_z)

    def op_NestedTable(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        x, table = inputs
        if node.form:
            codes = range(table.shape[1])
            rows = [np.select([x[0, c] == q for q in codes], list(own)) for c, own in enumerate(table)]
            return np.stack(rows)[None].astype(np.uint8)
        return np.asarray(np.select([x == q for q in range(len(table))], list(table)), np.uint8)

    def op_NestedMultiply(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        a, b, a_z, b_z, y_z, m, s = (np.asarray(array).astype(np.int64) for array in inputs)
        pixels = a.size // b.size
        factors = np.repeat((b - b_z).reshape(-1), pixels).reshape(a.shape)
        return self.code(node, (a - a_z) * factors, m, s, y_z)

    def op_MaxPool(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        (sy, sx), (top, left, bottom, right) = node.pair("strides"), node.integers("pads")
        padded = np.pad(inputs[0], ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, node.pair("kernel_shape"), (2, 3))
        return np.asarray(windows[:, :, ::sy, ::sx].max((4, 5)))

    def op_Flatten(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        return inputs[0].reshape(1, -1)

    def op_Reshape(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        return inputs[0].reshape(inputs[1])

    def op_Concat(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        return np.concatenate(inputs, node.integer("axis"))

    def op_Gather(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        return np.asarray(np.take(inputs[0], inputs[1], node.integer("axis")))

    def op_ArgMax(self, node: Node, inputs: list[Array]) -> Array:  # noqa: N802
        return np.asarray(np.argmax(inputs[0], node.integer("axis")))
