"""Small graphs for tests: one operator at a time, with parameters that change nothing unless a test says so.

Weights are given as signed operands of the master width. The default multiplier and shift are the factor 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from dqtsim.engines.registry import engine
from dqtsim.engines.result import Result, Trace
from dqtsim.graph import Arithmetic, Graph, GraphBuilder, Node, Tensor, Value
from dqtsim.planner import Plan, plan
from dqtsim.spec import Rounding
from dqtsim.target import Target, load_target

Array = npt.NDArray[Any]
Widths = tuple[int, int]
ONE: dict[str, Any] = {"multiplier": 1 << 15, "shift": 15}
FAR = {"multiplier": (1 << 16) - 1, "shift": 0}


@cache
def _default() -> Target:
    return load_target("default")


def target(**changes: Any) -> Target:
    """Return the default target with some entries changed; it is called 'test'."""
    return replace(_default(), name="test", **changes)


def run(compiled: Plan, engine_name: str, codes: npt.ArrayLike) -> tuple[Result, dict[str, Array]]:
    """Return the result of one sample, given without its batch axis, and all tensors."""
    trace = Trace()
    result = engine(compiled, engine_name)(np.asarray(codes, np.uint8)[None], [trace])
    return result, trace.tensors


def codes_of(weight: npt.ArrayLike, n: int = 8) -> Array:
    """Return the master codes of signed weights."""
    return (np.asarray(weight) + (1 << (n - 1))).astype(np.uint8)


def rows_of(table: npt.ArrayLike, rows: int, channels: int) -> Array:
    """Return a scalar, a row or a table as a table (rows, channels)."""
    return np.array(np.broadcast_to(np.asarray(table, np.int64), (rows, channels)))


def _tables(rows: int, channels: int, **tables: npt.ArrayLike) -> dict[str, Any]:
    return {role: rows_of(table, rows, channels) for role, table in tables.items()}


def _rows(n: int, widths: Sequence[int] | None, pairs: Sequence[Widths] | None) -> dict[str, Any]:
    """Return by what a layer selects its rows; without either it has one row."""
    return {"row_pairs": tuple(pairs)} if pairs else {"row_widths": tuple(widths or (n,))}


def _builder(rules: Mapping[str, Any]) -> GraphBuilder:
    return GraphBuilder("one", **{"candidates": ((2, 2),), **rules})


def conv(
    shape: Sequence[int],
    weight: npt.ArrayLike,
    *,
    bits: Widths | None = None,
    row_widths: Sequence[int] | None = None,
    row_pairs: Sequence[Widths] | None = None,
    bias: npt.ArrayLike = 0,
    multiplier: npt.ArrayLike = 1 << 15,
    shift: npt.ArrayLike = 15,
    z_x: int = 128,
    z_y: int = 128,
    clip: Widths | None = None,
    rules: Mapping[str, Any] | None = None,
    **geometry: Any,
) -> Graph:
    """Return a graph of one NestedConv 'y' on codes 'x' of shape (C, H, W)."""
    b = _builder(rules or {})
    n = b.arithmetic.master_width
    rows = _rows(n, row_widths, row_pairs)
    count = sum(map(len, rows.values()))
    codes = codes_of(weight, n)
    tables = _tables(count, codes.shape[0], bias=bias, multiplier=multiplier, shift=shift)
    x = b.input("x", (1, *shape), zero_point=z_x, scale=1.0)
    limits = clip or (0, (1 << n) - 1)
    y = b.conv("y", x, weight=codes, **tables, **rows, zero_point=z_y, scale=1.0, clip=limits, **geometry)
    b.output(y)
    return b.build([bits or (n, n)])


def dense(
    weight: npt.ArrayLike,
    *,
    logits: bool = False,
    windows: Sequence[int] | None = None,
    bits: Widths | None = None,
    row_widths: Sequence[int] | None = None,
    row_pairs: Sequence[Widths] | None = None,
    bias: npt.ArrayLike = 0,
    multiplier: npt.ArrayLike = 1 << 15,
    shift: npt.ArrayLike = 15,
    z_x: int = 128,
    z_y: int = 128,
    clip: Widths | None = None,
    rules: Mapping[str, Any] | None = None,
) -> Graph:
    """Return a graph of one NestedGemm (or NestedLogits) 'y' on codes 'x' of shape (K)."""
    b = _builder(rules or {})
    n = b.arithmetic.master_width
    rows = _rows(n, row_widths, row_pairs)
    count = sum(map(len, rows.values()))
    rows["windows"] = windows
    codes = codes_of(weight, n)
    x = b.input("x", (1, codes.shape[1]), zero_point=z_x, scale=1.0)
    if logits:
        y = b.logits("y", x, weight=codes, **rows, **_tables(count, codes.shape[0], bias=bias))
    else:
        tables = _tables(count, codes.shape[0], bias=bias, multiplier=multiplier, shift=shift)
        limits = clip or (0, (1 << n) - 1)
        y = b.gemm("y", x, weight=codes, **tables, **rows, zero_point=z_y, scale=1.0, clip=limits)
    b.output(y)
    return b.build([bits or (n, n)])


def pooled(
    shape: Sequence[int], kind: str, *, z_x: int = 0, rules: Mapping[str, Any] | None = None, **how: Any
) -> Graph:
    """Return a graph of one builder method 'average_pool', 'max_pool' or 'requantize' on codes 'x'."""
    b = _builder(rules or {})
    x = b.input("x", (1, *shape), zero_point=z_x, scale=1.0)
    if kind != "max_pool":
        how = {**ONE, "zero_point": 0, "scale": 1.0, "clip": (0, (1 << b.arithmetic.master_width) - 1), **how}
    b.output(getattr(b, kind)("y", x, **how))
    return b.build()


def tabled(b: GraphBuilder, name: str, x: Tensor, table: npt.ArrayLike, zero_point: int = 0) -> Tensor:
    """Add a NestedTable to a graph under construction."""
    return b.table(name, x, table, zero_point=zero_point, scale=1.0)


def tables(*, channels: int = 3, width: int = 5, n: int = 8, seed: int = 0) -> Graph:
    """Return a network whose tables stand before, between and after its layers, and on a flat tensor.

    Its codes 'x' are (channels, 6, width). The convolutions have borders, and read what tables give.
    """
    random = np.random.default_rng(seed)
    b = GraphBuilder("tables", master_width=n, candidates=((2, 2), (n, n)), class_names=("a", "b", "c"))
    common: dict[str, Any] = {"row_widths": (n,), "zero_point": 1, "scale": 0.5, "clip": (0, (1 << n) - 1)}

    def weight(*shape: int) -> Array:
        return random.integers(0, 1 << n, shape, np.uint8)

    def table(name: str, x: Tensor) -> Tensor:
        return tabled(b, name, x, random.integers(0, 1 << n, 1 << n), zero_point=2)

    def conv(name: str, x: Tensor) -> Tensor:
        rows = _tables(1, channels, bias=5, multiplier=40000, shift=14 + n)
        return b.conv(name, x, weight=weight(channels, channels, 3, 3), **rows, pads=(1, 1, 1, 1), **common)

    x = b.input("x", (1, channels, 6, width), zero_point=3, scale=0.1)
    first = conv("conv", table("before", x))
    both = b.concat("both", [table("left", first), table("right", first)])
    widest = b.max_pool("widest", both, kernel=(2, 2), strides=(2, 2))
    flat = b.flatten("flat", table("after", widest))
    hidden = table("hidden", flat)
    b.output(
        b.logits("result", hidden, weight=weight(3, flat.shape[1]), bias=[[1, 2, 3]], row_widths=(n,)), classes=True
    )
    return b.build([(2, n), (n, 2)])


def add(
    count: int,
    *,
    z_a: int = 0,
    z_b: int = 0,
    z_y: int = 0,
    factors: tuple[int, int] = (1, 1),
    shift: int = 0,
    clip: Widths = (0, 255),
    rounding: Rounding = Rounding.TIES_UP,
) -> Graph:
    """Return a graph of one NestedAdd 'y' of the first and the second half of the codes 'x' (2 * count)."""
    numbers = constants(a_multiplier=factors[0], b_multiplier=factors[1], shift=shift)
    return _of_halves("NestedAdd", count, (z_a, z_b, z_y), numbers, clip, rounding)


def multiply(
    count: int,
    *,
    z_a: int = 0,
    z_b: int = 0,
    z_y: int = 0,
    multiplier: int = 1,
    shift: int = 0,
    clip: Widths = (0, 255),
    rounding: Rounding = Rounding.TIES_UP,
) -> Graph:
    """Return a graph of one NestedMultiply 'y' of the first and the second half of the codes 'x' (2 * count)."""
    numbers = constants(multiplier=multiplier, shift=shift)
    return _of_halves("NestedMultiply", count, (z_a, z_b, z_y), numbers, clip, rounding)


def _of_halves(
    operator: str, count: int, zeros: tuple[int, int, int], numbers: dict[str, Array], clip: Widths, rounding: Rounding
) -> Graph:
    arrays = dict(numbers)
    arrays |= {f"{name}_zero_point": np.array(z, np.uint8) for name, z in zip("aby", zeros, strict=True)}
    nodes = []
    for name, start in (("a", 0), ("b", count)):
        arrays |= constants(f"{name}.", starts=[start], ends=[start + count], axes=[1], steps=[1])
        nodes.append(node("Slice", ["x", *(f"{name}.{role}" for role in ("starts", "ends", "axes", "steps"))], name))
    inputs = ["a", "b", "a_zero_point", "b_zero_point", "y_zero_point", *numbers]
    nodes.append(replace(node(operator, inputs, "y", low=clip[0], high=clip[1]), domain="dqtsim"))
    graph = plain((2 * count,), nodes, (1, count), arrays=arrays)
    return replace(graph, arithmetic=Arithmetic(rounding=rounding))


def constants(prefix: str = "", /, **arrays: npt.ArrayLike) -> dict[str, Array]:
    """Return int64 initializers by name."""
    return {prefix + name: np.array(array, np.int64) for name, array in arrays.items()}


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> Node:
    """Return a standard node."""
    return Node(output, "", operator, tuple(inputs), (output,), MappingProxyType(attributes))


def unproven(graph: Graph) -> Graph:
    """Return a graph whose layer 'first' multiplies by more than 32 bits are proven to hold: it runs on a fallback."""
    changed = {f"first.{role}": np.full_like(graph.initializers[f"first.{role}"], value) for role, value in FAR.items()}
    return replace(graph, initializers={**graph.initializers, **changed})


def plain(
    shape: Sequence[int],
    nodes: Sequence[Node],
    result: Sequence[int],
    dtype: str = "uint8",
    *,
    arrays: Mapping[str, Array],
) -> Graph:
    """Return a graph of given nodes from codes 'x' (1, *shape) to 'y' of shape `result`."""
    return Graph(
        name="plain",
        arithmetic=Arithmetic(),
        inputs=(Value("x", "uint8", (1, *shape)),),
        outputs=(Value("y", dtype, tuple(result)),),
        nodes=tuple(nodes),
        initializers=dict(arrays),
        quantization={},
        layers=(),
        candidates=((2, 2),),
        pinned={},
    )


def after_logits(
    weight: npt.ArrayLike,
    nodes: Sequence[Node],
    result: Sequence[int],
    dtype: str = "int64",
    *,
    arrays: Mapping[str, Array],
) -> Graph:
    """Return a graph of NestedLogits 'scores' on codes 'x' (zero point 128), then given nodes to 'y'."""
    graph = dense(weight, logits=True)
    layer = replace(graph.nodes[-1], name="scores", outputs=("scores",))
    known = {("scores.row" if name == "y.row" else name): array for name, array in graph.initializers.items()}
    gather = replace(graph.nodes[0], inputs=("bits", "scores.row"))
    return replace(
        graph,
        nodes=(gather, layer, *nodes),
        initializers={**known, **arrays},
        outputs=(Value("y", dtype, tuple(result)),),
        layers=("scores",),
    )


def network(*, dynamic: bool = True, classes: int = 3) -> Graph:
    """Return a small picture network (3, 6, 6): a pinned stem, two nested layers and a classifier.

    A controller chooses between (2, 2), (4, 4) and (8, 8) unless `dynamic` is False.
    """
    random = np.random.default_rng(7)
    rows = (2, 4, 8)
    b = GraphBuilder("small", class_names=("ant", "bee", "cow")[:classes], weight_rule="MIDPOINT")

    def weight(*shape: int) -> Array:
        return random.integers(0, 256, shape, np.uint8)

    def tables(channels: int, count: int) -> dict[str, Any]:
        return {
            "bias": random.integers(-9000, 9000, (count, channels)),
            "multiplier": random.integers(1 << 15, 1 << 16, (count, channels)),
            "shift": random.integers(22, 25, (count, channels)),
        }

    common: dict[str, Any] = {"scale": 0.25, "clip": (0, 255)}
    x = b.input("x", (1, 3, 6, 6), zero_point=128, scale=1 / 64)
    padded: dict[str, Any] = {"pads": (1, 1, 1, 1), "row_widths": rows, **common}
    stem = b.conv("stem", x, weight=weight(4, 3, 3, 3), **tables(4, 3), zero_point=0, pinned=(8, 8), **padded)
    if dynamic:
        pool = b.average_pool(
            "seen", stem, kernel=(3, 3), strides=(3, 3), multiplier=58254, shift=19, zero_point=0, **common
        )
        flat = b.flatten("seen.flat", pool)
        hidden = b.gemm(
            "hidden",
            flat,
            weight=weight(8, 16),
            **tables(8, 1),
            row_widths=(8,),
            zero_point=0,
            controller=True,
            **common,
        )
        scores = b.logits(
            "scores", hidden, weight=weight(9, 8), bias=tables(9, 1)["bias"], row_widths=(8,), controller=True
        )
        b.control(scores)
    left = b.conv("left", stem, weight=weight(4, 2, 3, 3), **tables(4, 3), zero_point=128, group=2, **padded)
    total = b.add("total", left, stem, multiplier_a=40000, multiplier_b=50000, shift=16, zero_point=0, **common)
    right = b.conv(
        "right",
        total,
        weight=weight(4, 4, 2, 2),
        **tables(4, 3),
        zero_point=7,
        strides=(2, 2),
        row_widths=rows,
        **common,
    )
    widest = b.max_pool("widest", right, kernel=(2, 2), strides=(1, 1))
    flat = b.flatten("flat", widest)
    result = b.logits("result", flat, weight=weight(classes, 16), bias=tables(classes, 3)["bias"], row_widths=rows)
    b.output(result, classes=True)
    return b.build()


def picture(seed: int = 0, count: int = 1) -> Array:
    """Return pictures for `network`, uint8 (count, 3, 6, 6)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 6), np.uint8)


def compiled(graph: Graph, **changes: Any) -> Plan:
    """Return the plan of `graph` on the default target with some entries changed."""
    return plan(graph, target(**changes))
