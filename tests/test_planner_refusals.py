"""What a plan refuses, every sentence in full."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dqtsim.errors import ModelError, TargetError
from dqtsim.graph import Graph, GraphBuilder, Node, check_graph
from dqtsim.graph.model import Quantization
from dqtsim.planner import plan
from tests.builders import (
    ONE,
    add,
    after_logits,
    constants,
    conv,
    dense,
    multiply,
    network,
    node,
    plain,
    pooled,
    target,
)
from tests.ops.table_nested_table import one as per_channel


def changed(graph: Graph, name: str, **attributes: Any) -> Graph:
    """Return `graph` with other attributes of one node, unchecked."""
    nodes = [
        replace(old, attributes={**old.attributes, **attributes}) if old.name == name else old for old in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def fed(graph: Graph, operator: str, **rest: Any) -> Graph:
    """Return `graph` with a movement between its input and node 'y'."""
    attributes = {key: value for key, value in rest.items() if not isinstance(value, list)}
    arrays = constants(**{key: value for key, value in rest.items() if isinstance(value, list)})
    moved = node(operator, ["x", *arrays], "moved", **attributes)
    y = graph.node("y")
    after = [replace(old, inputs=("moved", *old.inputs[1:])) if old is y else old for old in graph.nodes]
    return replace(graph, nodes=(moved, *after), initializers={**graph.initializers, **arrays})


def pool(kind: str = "average_pool", **geometry: Any) -> Callable[[], Graph]:
    """Return a pool of (2, 3, 3) by 2 x 2 with other geometry."""
    return lambda: changed(pooled((2, 3, 3), kind, kernel=(2, 2), strides=(1, 1)), "y", **geometry)


def joined(scale: float, z: int) -> Graph:
    """Return a Concat of a tensor with itself on another grid."""
    b = GraphBuilder("joined")
    x = b.input("x", (1, 2, 1, 1), zero_point=128, scale=0.5)
    other = b.requantize("other", x, **ONE, zero_point=z, scale=scale, clip=(0, 255))
    b.output(b.concat("y", [x, other]))
    return b.build()


def bordered(z: int) -> Graph:
    """Return a Concat of constants that stand for codes with the zero point `z` and of codes with another."""
    b = GraphBuilder("bordered")
    x = b.input("x", (1, 2, 1, 1), zero_point=128, scale=0.5)
    b.output(b.take("y", x, 2, [-1, 0]))
    graph = b.build()
    return replace(graph, quantization={**graph.quantization, "y.0": Quantization((0.5,), z)})


def bits_from(table: np.ndarray[Any, Any] | None, row: Any) -> Graph:
    """Return a layer whose widths are a row of another table, which the graph's own checks would refuse."""
    graph = dense([[1]])
    arrays = {**graph.initializers, "y.row": np.array(row, np.int64)}
    if table is not None:
        arrays["bits"] = table
    return replace(graph, initializers=arrays)


def widths_moved() -> Graph:
    """Return a layer whose widths come from an Identity."""
    graph = dense([[1]])
    gather = graph.nodes[0]
    identity = Node("y.widths", "", "Identity", ("row",), gather.outputs)
    pair = {"row": np.array([8, 8], np.int64)}
    return replace(graph, nodes=(identity, graph.nodes[1]), initializers={**graph.initializers, **pair})


def candidates_of(second: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of `network` with another second candidate."""
    return {**network().initializers, "bits.candidates": np.array([(2, 2), second, (8, 8)], np.int64)}


def declared(dtype: str, shape: tuple[int, ...]) -> Graph:
    graph = dense([[1, 2]])
    return replace(graph, outputs=(replace(graph.outputs[0], dtype=dtype, shape=shape),))


REFUSED: list[tuple[str, Callable[[], Graph], str]] = [
    (
        "conv rank",
        lambda: fed(conv((1, 2, 2), [[[[1]]]]), "Flatten", axis=1),
        "node 'y' (dqtsim.NestedConv) takes an input of shape (1, C, H, W); found (1, 4).",
    ),
    (
        "conv batch",
        lambda: fed(conv((2, 3, 3), [[[[1]]]] * 2, group=2), "Transpose", perm=(1, 0, 2, 3)),
        "node 'y' (dqtsim.NestedConv) takes an input of shape (1, C, H, W); found (2, 1, 3, 3).",
    ),
    (
        "conv group",
        lambda: changed(conv((2, 1, 1), [[[[1]]]] * 4, group=2), "y", group=3),
        "node 'y' (dqtsim.NestedConv) has group 3, which does not divide its 4 output channels.",
    ),
    (
        "conv group 0",
        lambda: changed(conv((2, 1, 1), [[[[1]]]] * 4, group=2), "y", group=0),
        "node 'y' (dqtsim.NestedConv) has group 0, which does not divide its 4 output channels.",
    ),
    (
        "conv channels",
        lambda: changed(conv((4, 1, 1), [[[[1]]] * 2] * 4, group=2), "y", group=1),
        "node 'y' (dqtsim.NestedConv) reads 2 input channels by its weights of shape (4, 2, 1, 1); its input has "
        "shape (1, 4, 1, 1).",
    ),
    (
        "conv strides",
        lambda: changed(conv((1, 1, 1), [[[[1]]]]), "y", strides=(0, 1)),
        "node 'y' (dqtsim.NestedConv) needs strides and dilations of at least 1 and pads of at least 0.",
    ),
    (
        "conv pads",
        lambda: changed(conv((1, 1, 1), [[[[1]]]]), "y", pads=(0, 0, 0, -1)),
        "node 'y' (dqtsim.NestedConv) needs strides and dilations of at least 1 and pads of at least 0.",
    ),
    (
        "conv window",
        lambda: changed(conv((1, 3, 3), [[[[1, 1], [1, 1]]]]), "y", dilations=(3, 1)),
        "node 'y' (dqtsim.NestedConv) has a window larger than its padded input of shape (1, 1, 3, 3).",
    ),
    (
        "conv padding codes",
        lambda: conv((2, 3, 3), [[[[1, 1]]] * 2], padding=[1, 2, 3]),
        "node 'y' (dqtsim.NestedConv) takes 'padding' with one code a channel of its input, 2; found 3.",
    ),
    (
        "gemm rank",
        lambda: fed(dense([[1, 1]]), "Reshape", shape=[1, 2, 1], allowzero=0),
        "node 'y' (dqtsim.NestedGemm) takes an input of shape (1, K); found (1, 2, 1).",
    ),
    (
        "gemm batch",
        lambda: fed(dense([[1, 1]]), "Reshape", shape=[2, 1], allowzero=0),
        "node 'y' (dqtsim.NestedGemm) takes an input of shape (1, K); found (2, 1).",
    ),
    (
        "logits inputs",
        lambda: fed(dense([[1, 1]], logits=True), "Slice", starts=[0], ends=[1], axes=[1], steps=[1]),
        "node 'y' (dqtsim.NestedLogits) reads 2 input channels by its weights of shape (1, 2); its input has "
        "shape (1, 1).",
    ),
    (
        "add shapes",
        lambda: replace(add(2), initializers={**add(2).initializers, "b.ends": np.array([3])}),
        "node 'y' (dqtsim.NestedAdd) adds tensors of one shape; found (1, 2) and (1, 1).",
    ),
    (
        "multiply shapes",
        lambda: replace(multiply(2), initializers={**multiply(2).initializers, "b.ends": np.array([3])}),
        "node 'y' (dqtsim.NestedMultiply) multiplies tensors of one shape, or codes (1, C, H, W) by one code per "
        "channel, (1, C, 1, 1); found (1, 2) and (1, 1).",
    ),
    (
        "pool positions",
        lambda: pooled((2, 3, 3), "average_pool", kernel=(2, 2), strides=(1, 1), multiplier=[[1, 2, 3]]),
        "node 'y' (dqtsim.NestedAveragePool) takes 'multiplier' with one entry per position of its output, shape "
        "(2, 2); found (1, 3).",
    ),
    (
        "table channels",
        lambda: per_channel((3, 1, 1), np.zeros((2, 256), np.uint8)),
        "node 'y' (dqtsim.NestedTable) has a table for each of 2 channels, so it takes an input of shape (1, 2, …); "
        "found (1, 3, 1, 1).",
    ),
    (
        "table batch",
        lambda: fed(per_channel((2, 1, 1), np.zeros((1, 256), np.uint8)), "Transpose", perm=(1, 0, 2, 3)),
        "node 'y' (dqtsim.NestedTable) has a table for each of 1 channels, so it takes an input of shape (1, 1, …); "
        "found (2, 1, 1, 1).",
    ),
    (
        "pool rank",
        lambda: fed(pool()(), "Flatten", axis=1),
        "node 'y' (dqtsim.NestedAveragePool) takes an input of shape (1, C, H, W); found (1, 18).",
    ),
    (
        "pool batch",
        lambda: fed(pool("max_pool")(), "Transpose", perm=(1, 0, 2, 3)),
        "node 'y' (MaxPool) takes an input of shape (1, C, H, W); found (2, 1, 3, 3).",
    ),
    (
        "pool kernel",
        pool(kernel_shape=(2, 2, 2)),
        "node 'y' (dqtsim.NestedAveragePool) takes 'kernel_shape' with 2 entries; found (2, 2, 2).",
    ),
    (
        "pool strides",
        pool(strides=(0, 1)),
        "node 'y' (dqtsim.NestedAveragePool) needs kernel, strides and dilations of at least 1 and pads of at least 0.",
    ),
    (
        "pool pads",
        pool(pads=(0, 0, 2, 0)),
        "node 'y' (dqtsim.NestedAveragePool) has pads (0, 0, 2, 0), which must be smaller than its kernel (2, 2).",
    ),
    (
        "pool window",
        pool(kernel_shape=(4, 1)),
        "node 'y' (dqtsim.NestedAveragePool) has a window larger than its padded input of shape (1, 2, 3, 3).",
    ),
    (
        "max pool sees padding only",
        pool("max_pool", dilations=(4, 1), pads=(1, 0, 1, 0)),
        "node 'y' (MaxPool) has a window that sees nothing but padding of its input of shape (1, 2, 3, 3).",
    ),
    (
        "max pool kernel",
        pool("max_pool", kernel_shape=(2,)),
        "node 'y' (MaxPool) takes 'kernel_shape' with 2 entries; found (2,).",
    ),
    ("max pool ceil", pool("max_pool", ceil_mode=1), "node 'y' (MaxPool) supports only ceil_mode 0; found 1."),
    ("max pool order", pool("max_pool", storage_order=1), "node 'y' (MaxPool) supports only storage_order 0; found 1."),
    (
        "max pool auto",
        pool("max_pool", auto_pad="SAME_UPPER"),
        "node 'y' (MaxPool) supports only auto_pad NOTSET; found SAME_UPPER.",
    ),
    (
        "concat scales",
        lambda: joined(0.25, 128),
        "node 'y' (Concat) joins codes of one scale and zero point; 'x' has 0.5 and 128, 'other' has 0.25 and 128.",
    ),
    (
        "concat zero points",
        lambda: joined(0.5, 0),
        "node 'y' (Concat) joins codes of one scale and zero point; 'x' has 0.5 and 128, 'other' has 0.5 and 0.",
    ),
    (
        "concat of a constant",
        lambda: bordered(9),
        "node 'y' (Concat) joins codes of one scale and zero point; 'y.0' has 0.5 and 9, 'x' has 0.5 and 128.",
    ),
    (
        "declared shape",
        lambda: declared("uint8", (1, 2)),
        "output 'y' is declared as uint8 (1, 2); its node gives uint8 (1, 1).",
    ),
    (
        "declared dtype",
        lambda: declared("int32", (1, 1)),
        "output 'y' is declared as int32 (1, 1); its node gives uint8 (1, 1).",
    ),
    (
        "widths no row",
        lambda: bits_from(np.array([[8, 8]]), [0]),
        "node 'y' (dqtsim.NestedGemm) takes its widths from its own Gather (axis 0) of its row of 'bits'; 'y.widths' "
        "is none.",
    ),
    (
        "widths no gather",
        widths_moved,
        "node 'y' (dqtsim.NestedGemm) takes its widths from its own Gather (axis 0) of its row of 'bits'; 'y.widths' "
        "is none.",
    ),
    (
        "widths past the table",
        lambda: bits_from(np.array([[8, 8]]), 1),
        "node 'y' (dqtsim.NestedGemm) takes its widths from its own Gather (axis 0) of its row of 'bits'; 'y.widths' "
        "is none.",
    ),
    (
        "widths of three",
        lambda: bits_from(np.array([[8, 8, 8]]), 0),
        "initializer 'bits' is int64 of shape (1, 2); found int64 (1, 3).",
    ),
    (
        "candidate too wide",
        lambda: replace(network(), candidates=((2, 2), (4, 9), (8, 8)), initializers=candidates_of((4, 9))),
        "node 'left' (dqtsim.NestedConv) runs at widths between 1 and 8; metadata name the pair (4, 9).",
    ),
    (
        "widths too wide",
        lambda: bits_from(np.array([[8, 9]]), 0),
        "initializer 'bits' holds widths of 1 to 8; found 8 to 9.",
    ),
]


def move(operator: str, *, last: bool = False, **rest: Any) -> Callable[[], Graph]:
    """Return a movement of codes (1, 2, 3)."""
    attributes = {key: value for key, value in rest.items() if not isinstance(value, list)}
    arrays = constants(**{key: value for key, value in rest.items() if isinstance(value, list)})
    return lambda: plain((2, 3), [node(operator, ["x", *arrays], "y", **attributes)], (1,), arrays=arrays)


MISFITS = [
    move("Flatten", axis=4),
    move("Flatten", axis=-4),
    move("Gather", i=[3], axis=2),
    move("Gather", i=[-4], axis=2),
    move("Gather", i=[0], axis=3),
    move("Reshape", s=[4, 2], allowzero=0),
    move("Reshape", s=[-1, -1], allowzero=0),
    move("Reshape", s=[1, 2, 3, 0], allowzero=0),
    move("Slice", starts=[0], ends=[1], axes=[3], steps=[1]),
    move("Slice", starts=[0], ends=[1], axes=[1], steps=[-1]),
    move("Slice", starts=[0], ends=[1], axes=[1], steps=[0]),
    move("Slice", starts=[0, 0], ends=[1], axes=[1], steps=[1]),
    move("Transpose", perm=(0, 1)),
    move("Transpose", perm=(0, 1, 1)),
    move("Concat", axis=3),
]


@pytest.mark.parametrize(("make", "text"), [entry[1:] for entry in REFUSED], ids=[entry[0] for entry in REFUSED])
def test_refusals(make: Callable[[], Graph], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        plan(make(), target())
    assert str(caught.value) == text


@pytest.mark.parametrize("make", MISFITS)
def test_moves_that_do_not_fit(make: Callable[[], Graph]) -> None:
    graph = make()
    shapes = ", ".join(str(shape) for shape in [(1, 2, 3), *(array.shape for array in graph.initializers.values())])
    with pytest.raises(ModelError) as caught:
        plan(graph, target())
    assert str(caught.value) == f"node 'y' ({graph.nodes[0].operator}) does not fit its inputs of shapes {shapes}."


def test_a_computed_index_past_the_end_is_refused() -> None:
    weight = [[1, 0], [0, 1], [1, 1]]
    best = node("ArgMax", ["scores"], "best", axis=1, keepdims=0, select_last_index=0)
    graph = after_logits(
        weight, [best, node("Gather", ["table", "best"], "y", axis=0)], (1,), arrays=constants(table=[5, 6])
    )
    with pytest.raises(ModelError) as caught:
        plan(graph, target())
    assert str(caught.value) == "node 'y' (Gather) does not fit its inputs of shapes (2,), (1,)."


def test_an_empty_tensor_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        plan(move("Slice", starts=[2], ends=[2], axes=[2], steps=[1])(), target())
    assert str(caught.value) == "node 'y' (Slice) gives an empty tensor of shape (1, 2, 0)."


@pytest.mark.parametrize("attributes", [{"axis": 0}, {"axis": 2}, {"axis": -2}, {"select_last_index": 1}], ids=str)
def test_arg_max_is_of_the_last_axis_and_the_lowest_index(attributes: dict[str, int]) -> None:
    how = {"axis": 1, "keepdims": 0, "select_last_index": 0, **attributes}
    graph = after_logits([[1]] * 2, [node("ArgMax", ["scores"], "y", **how)], (1,), arrays={})
    with pytest.raises(ModelError) as caught:
        plan(graph, target())
    assert str(caught.value) == "node 'y' (ArgMax) takes the last axis and the lowest index on a tie."


@pytest.mark.parametrize(
    ("make", "tensor", "operator"),
    [
        (lambda m: conv((1, 1, 1), [[[[1]]]] * 2, multiplier=[1, m]), "y.multiplier", "NestedConv"),
        (lambda m: dense([[1]], multiplier=m), "y.multiplier", "NestedGemm"),
        (lambda m: pooled((1, 2, 2), "average_pool", kernel=(2, 2), strides=(1, 1), multiplier=m),
         "y.multiplier", "NestedAveragePool"),
        (lambda m: pooled((1, 2, 2), "average_pool", kernel=(2, 1), strides=(1, 1), multiplier=[[1, m]]),
         "y.multiplier", "NestedAveragePool"),
        (lambda m: pooled((2,), "requantize", multiplier=m), "y.multiplier", "NestedRequantize"),
        (lambda m: add(1, factors=(m, 1)), "a_multiplier", "NestedAdd"),
        (lambda m: add(1, factors=(1, m)), "b_multiplier", "NestedAdd"),
        (lambda m: multiply(1, multiplier=m), "multiplier", "NestedMultiply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [2, 8, 16, 17])
def test_a_multiplier_must_fit(make: Callable[[int], Graph], tensor: str, operator: str, width: int) -> None:
    plan(make((1 << width) - 1), target(multiplier_width=width))
    with pytest.raises(TargetError) as caught:
        plan(make(1 << width), target(multiplier_width=width))
    assert str(caught.value) == (
        f"target 'test' has a multiplier of {width} bits; '{tensor}' of node 'y' (dqtsim.{operator}) needs {width + 1}."
    )


def test_constant_codes_past_the_master_width_are_refused() -> None:
    graph = conv((1, 1, 1), [[[[1]]]], z_x=8, z_y=8, rules={"master_width": 4})
    y = graph.node("y")
    fixed = [replace(y, inputs=("k", *y.inputs[1:])) if old is y else old for old in graph.nodes]
    for code in (15, 16):
        codes = np.full((1, 1, 1, 1), code, np.uint8)
        changed_graph = replace(graph, nodes=tuple(fixed), initializers={**graph.initializers, "k": codes})
        if code == 15:
            check_graph(changed_graph)
            continue
        with pytest.raises(ModelError) as caught:
            check_graph(changed_graph)
        assert str(caught.value) == (
            "node 'y' (dqtsim.NestedConv) reads codes of 4 bits; the largest of 'k' is 16, above 15."
        )
