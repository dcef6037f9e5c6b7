"""A graph that breaks a rule of the format: one sentence each, pinned in full, however the graph came about."""

from dataclasses import replace

import numpy as np
import pytest

from dqtsim.errors import ModelError
from dqtsim.graph import Graph, check_graph
from dqtsim.spec import Nesting
from tests.builders import multiply, tables

from .changes import (
    Change,
    arithmetic,
    attribute,
    change_node,
    drop,
    duplicate,
    fewer_inputs,
    fill,
    input_shape,
    more_outputs,
    no_inputs,
    output,
    produce_again,
    put,
    read,
    together,
    two_inputs,
)
from .networks import everything, tiny

STATIC = everything()
DYNAMIC = everything(controlled=True)
TABLES = tables(n=5)
PAIRS = everything(row_pairs=((2, 8), (4, 4), (8, 2)))
LOWERED = everything(lowered=True)


CASES: dict[str, tuple[Graph, Change, str]] = {
    "master width": (
        STATIC,
        arithmetic(master_width=9),
        "the master width is 2 to 8; metadata 'dqtsim.master_width' says 9.",
    ),
    "midpoint activations": (
        STATIC,
        arithmetic(activation_rule=Nesting.MIDPOINT),
        "MIDPOINT nests weights only; metadata 'dqtsim.activation_rule' must be TIES_UP or FLOOR, found MIDPOINT.",
    ),
    "centroid activations": (
        STATIC,
        arithmetic(activation_rule=Nesting.CENTROID),
        "CENTROID nests weights only; metadata 'dqtsim.activation_rule' must be TIES_UP or FLOOR, found CENTROID.",
    ),
    "candidate too wide": (
        STATIC,
        lambda graph: replace(graph, candidates=((4, 9),)),
        "widths lie between 1 and the master width 8; metadata names the pair (4, 9).",
    ),
    "pinned too narrow": (
        DYNAMIC,
        lambda graph: replace(graph, pinned={"stem": (0, 4)}),
        "widths lie between 1 and the master width 8; metadata names the pair (0, 4).",
    ),
    "no candidates": (
        STATIC,
        lambda graph: replace(graph, candidates=()),
        "a model names its candidate widths; metadata 'dqtsim.candidates' is empty.",
    ),
    "two inputs": (STATIC, two_inputs, "a model has one input; found 2: 'x', 'z'."),
    "no input": (
        STATIC,
        lambda graph: replace(graph, inputs=()),
        "a model has one input; found 0: none.",
    ),
    "batched input": (
        STATIC,
        input_shape(2, 2, 7, 6),
        "the input is uint8 codes of one sample, shape (1, C, H, W) or (1, K); 'x' is uint8 (2, 2, 7, 6).",
    ),
    "empty input": (
        STATIC,
        input_shape(1, 2, 0, 6),
        "the input is uint8 codes of one sample, shape (1, C, H, W) or (1, K); 'x' is uint8 (1, 2, 0, 6).",
    ),
    "input without shape": (
        STATIC,
        input_shape(),
        "the input is uint8 codes of one sample, shape (1, C, H, W) or (1, K); 'x' is uint8 ().",
    ),
    "node twice": (
        STATIC,
        duplicate("flat"),
        "node names must be unique; node 'flat' (Flatten) occurs twice.",
    ),
    "tensor twice": (
        STATIC,
        produce_again,
        "every tensor has one producer; node 'again' (Flatten) produces 'flat' a second time.",
    ),
    "too few inputs": (
        STATIC,
        change_node("stem", fewer_inputs),
        "node 'stem' (dqtsim.NestedConv) takes 8 inputs; found 7.",
    ),
    "no parts": (
        STATIC,
        change_node("both", no_inputs),
        "node 'both' (Concat) needs at least one input and has none.",
    ),
    "two outputs": (STATIC, change_node("flat", more_outputs), "node 'flat' (Flatten) has one output; found 2."),
    "weight is computed": (
        STATIC,
        read("grouped", 1, "stem"),
        "node 'grouped' (dqtsim.NestedConv) needs its input 'w' as an initializer; 'stem' is none.",
    ),
    "bias is lacking": (
        STATIC,
        drop("stem.bias"),
        "node 'stem' (dqtsim.NestedConv) needs its input 'bias' as an initializer; 'stem.bias' is none.",
    ),
    "nothing produces an input": (
        STATIC,
        read("flat", 0, "nowhere"),
        "node 'flat' (Flatten) reads 'nowhere', which nothing before it produces.",
    ),
    "wrong dtype": (
        STATIC,
        put("stem.weight", STATIC.initializers["stem.weight"].astype(np.int8)),
        "node 'stem' (dqtsim.NestedConv) takes 'w' as uint8; tensor 'stem.weight' is int8.",
    ),
    "wrong dtype of two": (
        STATIC,
        together(put("f", np.float32(1)), read("flat", 0, "f")),
        "node 'flat' (Flatten) takes 'input' as uint8 or int32 or int64; tensor 'f' is float32.",
    ),
    "wrong rank": (
        STATIC,
        put("dense.bias", np.zeros(5, np.int64)),
        "node 'dense' (dqtsim.NestedGemm) takes 'bias' with 2 dimensions; tensor 'dense.bias' has shape (5,).",
    ),
    "zero point per channel": (
        STATIC,
        put("x.zero_point", np.zeros(1, np.uint8)),
        "node 'stem' (dqtsim.NestedConv) takes 'x_zero_point' with 0 dimensions; tensor 'x.zero_point' has shape (1,).",
    ),
    "parts of two dtypes": (
        STATIC,
        read("both", 1, "bits"),
        "node 'both' (Concat) joins tensors of one dtype; found ['uint8', 'int64'].",
    ),
    "output without producer": (
        STATIC,
        output("nowhere", "uint8"),
        "every output has a producer; no node produces the graph output 'nowhere'.",
    ),
    "output of another dtype": (
        STATIC,
        output("class", "uint8"),
        "output 'class' is declared as uint8; the graph makes it int32.",
    ),
    "output twice": (
        STATIC,
        lambda graph: replace(graph, outputs=graph.outputs * 2),
        "graph outputs have different names; 'stem' is named twice.",
    ),
    "layer that is none": (
        STATIC,
        lambda graph: replace(graph, layers=(*graph.layers, "flat")),
        "metadata 'dqtsim.layers' names nested layers; no nested node is called 'flat'.",
    ),
    "layer twice": (
        STATIC,
        lambda graph: replace(graph, layers=(*graph.layers, "stem")),
        "metadata 'dqtsim.layers' names each layer once; a name occurs twice.",
    ),
    "pinned is no layer": (
        STATIC,
        lambda graph: replace(graph, pinned={"flat": (8, 8)}),
        "metadata 'dqtsim.pinned' names entries of 'dqtsim.layers'; 'flat' is none.",
    ),
    "clip is empty": (
        STATIC,
        together(attribute("sum", "low", 200), attribute("sum", "high", 100)),
        "node 'sum' (dqtsim.NestedAdd) clips to 0 <= low <= high <= 255; found low 200, high 100.",
    ),
    "clip too high": (
        STATIC,
        attribute("mean", "high", 256),
        "node 'mean' (dqtsim.NestedAveragePool) clips to 0 <= low <= high <= 255; found low 0, high 256.",
    ),
    "codes too large": (
        everything(n=5, row_widths=(5,)),
        fill("dense.weight", 32),
        "node 'dense' (dqtsim.NestedGemm) holds codes of 5 bits in 'w'; the largest is 32, above 31.",
    ),
    "zero point too large": (
        everything(n=5, row_widths=(5,)),
        fill("sum.zero_point", 200),
        "node 'sum' (dqtsim.NestedAdd) holds codes of 5 bits in 'y_zero_point'; the largest is 200, above 31.",
    ),
    "table of too few codes": (
        TABLES,
        put("hidden.table", np.zeros(31, np.uint8)),
        "node 'hidden' (dqtsim.NestedTable) takes 'table' with one entry a code, shape (32,); found (31,).",
    ),
    "table of another master width": (
        TABLES,
        arithmetic(master_width=6),
        "node 'before' (dqtsim.NestedTable) takes 'table' with one entry a code, shape (64,); found (32,).",
    ),
    "table of two dimensions": (
        TABLES,
        put("hidden.table", np.zeros((1, 32), np.uint8)),
        "node 'hidden' (dqtsim.NestedTable) takes 'table' with 1 dimensions; tensor 'hidden.table' has shape (1, 32).",
    ),
    "table with a code too large": (
        TABLES,
        fill("hidden.table", 32),
        "node 'hidden' (dqtsim.NestedTable) holds codes of 5 bits in 'table'; the largest is 32, above 31.",
    ),
    "table of another dtype": (
        TABLES,
        put("hidden.table", np.zeros(32, np.int64)),
        "node 'hidden' (dqtsim.NestedTable) takes 'table' as uint8; tensor 'hidden.table' is int64.",
    ),
    "table is computed": (
        TABLES,
        read("hidden", 1, "flat"),
        "node 'hidden' (dqtsim.NestedTable) needs its input 'table' as an initializer; 'flat' is none.",
    ),
    "table of no codes": (
        TABLES,
        read("hidden", 0, "bits"),
        "node 'hidden' (dqtsim.NestedTable) takes 'x' as uint8; tensor 'bits' is int64.",
    ),
    "multiplier too large": (
        STATIC,
        fill("stem.multiplier", 1 << 31),
        "node 'stem' (dqtsim.NestedConv) takes 'multiplier' between 0 and 2147483647; found 2147483648 to 2147483648.",
    ),
    "multiplier negative": (
        STATIC,
        fill("sum.a_multiplier", -1),
        "node 'sum' (dqtsim.NestedAdd) takes 'a_multiplier' between 0 and 2147483647; found -1 to -1.",
    ),
    "shift too large": (
        STATIC,
        fill("scaled.shift", 63),
        "node 'scaled' (dqtsim.NestedRequantize) takes 'shift' between 0 and 62; found 63 to 63.",
    ),
    "shift negative": (
        STATIC,
        fill("dense.shift", -1),
        "node 'dense' (dqtsim.NestedGemm) takes 'shift' between 0 and 62; found -1 to -1.",
    ),
    "rows not ascending": (
        STATIC,
        attribute("dense", "row_widths", (2, 8, 8)),
        "node 'dense' (dqtsim.NestedGemm) takes ascending row_widths; found (2, 8, 8).",
    ),
    "no rows": (
        STATIC,
        attribute("dense", "row_widths", ()),
        "node 'dense' (dqtsim.NestedGemm) takes ascending row_widths; found ().",
    ),
    "row too wide": (
        STATIC,
        attribute("class", "row_widths", (2, 4, 9)),
        "node 'class' (dqtsim.NestedLogits) takes row_widths between 1 and the master width 8; found (2, 4, 9).",
    ),
    "no row pairs": (
        PAIRS,
        put("dense.row_pairs", np.zeros((0, 2), np.int64)),
        "node 'dense' (dqtsim.NestedGemm) takes 'bias' with one entry a row and output channel, shape (0, 5); "
        "found (3, 5).",
    ),
    "no row pairs and no rows": (
        PAIRS,
        together(
            put("class.row_pairs", np.zeros((0, 2), np.int64)),
            put("class.bias", np.zeros((0, 3), np.int64)),
        ),
        "node 'class' (dqtsim.NestedLogits) takes at least one pair of widths in 'row_pairs'; found none.",
    ),
    "row pairs of three": (
        PAIRS,
        put("stem.row_pairs", np.ones((3, 3), np.int64)),
        "node 'stem' (dqtsim.NestedConv) takes 'row_pairs' with one entry a row and width of a pair, shape (3, 2); "
        "found (3, 3).",
    ),
    "row pairs in one line": (
        PAIRS,
        put("stem.row_pairs", np.ones(6, np.int64)),
        "node 'stem' (dqtsim.NestedConv) takes 'row_pairs' with 2 dimensions; tensor 'stem.row_pairs' has shape (6,).",
    ),
    "row pair too wide": (
        PAIRS,
        put("stem.row_pairs", np.array([(2, 8), (9, 4), (8, 2)])),
        "node 'stem' (dqtsim.NestedConv) takes 'row_pairs' between 1 and 8; found 2 to 9.",
    ),
    "row pair of no bits": (
        PAIRS,
        put("stem.row_pairs", np.array([(2, 8), (0, 4), (8, 2)])),
        "node 'stem' (dqtsim.NestedConv) takes 'row_pairs' between 1 and 8; found 0 to 8.",
    ),
    "row pair twice": (
        PAIRS,
        put("class.row_pairs", np.array([(2, 8), (4, 4), (2, 8)])),
        "node 'class' (dqtsim.NestedLogits) takes each pair of 'row_pairs' once; (2, 8) occurs 2 times.",
    ),
    "rows of pairs missing": (
        PAIRS,
        put("dense.row_pairs", np.array([(2, 8), (4, 4)])),
        "node 'dense' (dqtsim.NestedGemm) takes 'bias' with one entry a row and output channel, shape (2, 5); "
        "found (3, 5).",
    ),
    "row pairs that are computed": (
        PAIRS,
        read("dense", 8, "dense.widths"),
        "node 'dense' (dqtsim.NestedGemm) needs its input 'row_pairs' as an initializer; 'dense.widths' is none.",
    ),
    "too few inputs for the form": (
        PAIRS,
        change_node("stem", fewer_inputs),
        "node 'stem' (dqtsim.NestedConv) with overload 'row_pairs' takes 9 inputs; found 8.",
    ),
    "windows of other widths": (
        LOWERED,
        put("dense.windows", np.zeros(8, np.int64)),
        "node 'dense' (dqtsim.NestedGemm) takes 'windows' with one entry a width from 0 up, shape (9,); found (8,).",
    ),
    "window past the master width": (
        LOWERED,
        put("dense.windows", np.array([0, 7, 6, 6, 4, 3, 2, 1, 0])),
        "node 'dense' (dqtsim.NestedGemm) takes 'windows' with 0 to 5 for width 3; found 6.",
    ),
    "window of the master width": (
        LOWERED,
        put("class.windows", np.array([0, 0, 0, 0, 0, 0, 0, 0, 1])),
        "node 'class' (dqtsim.NestedLogits) takes 'windows' with 0 to 0 for width 8; found 1.",
    ),
    "window upwards": (
        LOWERED,
        put("stem.windows", np.array([0, 0, -1, 0, 0, 0, 0, 0, 0])),
        "node 'stem' (dqtsim.NestedConv) takes 'windows' with 0 to 6 for width 2; found -1.",
    ),
    "window of no width": (
        LOWERED,
        put("stem.windows", np.array([1, 0, 0, 0, 0, 0, 0, 0, 0])),
        "node 'stem' (dqtsim.NestedConv) takes 'windows' with 0 for width 0; found 1.",
    ),
    "padding code past the master width": (
        everything(n=5, row_widths=(5,), lowered=True),
        put("stem.padding", np.array([31, 32], np.uint8)),
        "node 'stem' (dqtsim.NestedConv) holds codes of 5 bits in 'padding'; the largest is 32, above 31.",
    ),
    "padding that is not codes": (
        LOWERED,
        put("stem.padding", np.array([1, 2])),
        "node 'stem' (dqtsim.NestedConv) takes 'padding' as uint8; tensor 'stem.padding' is int64.",
    ),
    "unknown form": (
        STATIC,
        change_node("stem", lambda node: replace(node, form=("row_pairs", "more"))),
        "the overload of node 'stem' (dqtsim.NestedConv) joins some of row_pairs, windows, padding by '+', in this "
        "order; found "
        "'row_pairs+more'.",
    ),
    "form twice": (
        STATIC,
        change_node("stem", lambda node: replace(node, form=("row_pairs", "row_pairs"))),
        "the overload of node 'stem' (dqtsim.NestedConv) joins some of row_pairs, windows, padding by '+', in this "
        "order; found "
        "'row_pairs+row_pairs'.",
    ),
    "form of an operator without forms": (
        STATIC,
        change_node("flat", lambda node: replace(node, form=("row_pairs",))),
        "node 'flat' (Flatten) has one form, without overload; found overload 'row_pairs'.",
    ),
    "rows missing": (
        STATIC,
        attribute("dense", "row_widths", (4, 8)),
        "node 'dense' (dqtsim.NestedGemm) takes 'bias' with one entry a row and output channel, shape (2, 5); "
        "found (3, 5).",
    ),
    "channels missing": (
        STATIC,
        put("stem.shift", np.zeros((3, 1), np.int64)),
        "node 'stem' (dqtsim.NestedConv) takes 'shift' with one entry a row and output channel, shape (3, 4); "
        "found (3, 1).",
    ),
    "empty weight": (
        STATIC,
        put("stem.weight", np.zeros((4, 0, 3, 3), np.uint8)),
        "node 'stem' (dqtsim.NestedConv) has an empty weight tensor of shape (4, 0, 3, 3).",
    ),
    "logits past 31 bits": (
        STATIC,
        fill("class.bias", 1 << 31),
        "node 'class' (dqtsim.NestedLogits) gives int32 logits; its shapes and bias allow 2147647488, past 31 bits.",
    ),
    "layer past 63 bits": (
        STATIC,
        fill("stem.bias", 1 << 50),
        "every intermediate fits in 63 bits; node 'stem' (dqtsim.NestedConv) allows a requantized sum of 66 bits.",
    ),
    "bias of the least int64": (
        STATIC,
        fill("stem.bias", -(1 << 63)),
        "every intermediate fits in 63 bits; node 'stem' (dqtsim.NestedConv) allows a requantized sum of 79 bits.",
    ),
    "pool past 63 bits": (
        STATIC,
        together(attribute("mean", "kernel_shape", (1 << 12, 1 << 13)), fill("mean.multiplier", 1 << 30)),
        "every intermediate fits in 63 bits; node 'mean' (dqtsim.NestedAveragePool) allows a requantized sum of "
        "64 bits.",
    ),
    "pool past 63 bits at one position": (
        STATIC,
        together(
            attribute("mean", "kernel_shape", (1 << 12, 1 << 13)),
            change_node("mean", lambda node: replace(node, form=("positions",))),
            put("mean.multiplier", np.array([[0, 1 << 30]])),
        ),
        "every intermediate fits in 63 bits; node 'mean' (dqtsim.NestedAveragePool) allows a requantized sum of "
        "64 bits.",
    ),
    "stride of zero": (
        STATIC,
        attribute("widest", "strides", (1, 0)),
        "node 'widest' (MaxPool) takes 'strides' as 2 integers from 1 up; found (1, 0).",
    ),
    "kernel of one axis": (
        STATIC,
        attribute("mean", "kernel_shape", (2,)),
        "node 'mean' (dqtsim.NestedAveragePool) takes 'kernel_shape' as 2 integers from 1 up; found (2,).",
    ),
    "negative pad": (
        STATIC,
        attribute("stem", "pads", (0, 0, -1, 0)),
        "node 'stem' (dqtsim.NestedConv) takes 'pads' as 4 integers from 0 up; found (0, 0, -1, 0).",
    ),
    "no groups": (
        STATIC,
        attribute("stem", "group", 0),
        "node 'stem' (dqtsim.NestedConv) takes 'group' from 1 up; found 0.",
    ),
    "bits of too few rows": (
        STATIC,
        put("bits", np.full((4, 2), 8)),
        "initializer 'bits' is int64 of shape (5, 2); found int64 (4, 2).",
    ),
    "bits out of range": (
        STATIC,
        put("bits", np.array([[8, 8], [8, 8], [8, 0], [8, 8], [9, 8]])),
        "initializer 'bits' holds widths of 1 to 8; found 0 to 9.",
    ),
    "pinned bits out of range": (
        DYNAMIC,
        put("bits.pinned", np.array([[8, 9]])),
        "initializer 'bits.pinned' holds widths of 1 to 8; found 8 to 9.",
    ),
    "pinned bits unlike the metadata": (
        DYNAMIC,
        put("bits.pinned", np.array([[8, 5]])),
        "node 'stem' (dqtsim.NestedConv) takes its widths from its own Gather (axis 0) of its row of 'bits' or "
        "'bits.pinned'; 'stem.widths' is none.",
    ),
    "row of another layer": (
        STATIC,
        fill("grouped.row", 0),
        "node 'grouped' (dqtsim.NestedConv) takes its widths from its own Gather (axis 0) of its row of 'bits'; "
        "'grouped.widths' is none.",
    ),
    "row shared by two layers": (
        STATIC,
        read("grouped", -1, "stem.widths"),
        "node 'stem' (dqtsim.NestedConv) takes its widths from its own Gather (axis 0) of its row of 'bits'; "
        "'stem.widths' is none.",
    ),
    "widths from nowhere": (
        STATIC,
        together(put("w", np.array([8, 8])), read("stem", -1, "w")),
        "node 'stem' (dqtsim.NestedConv) takes its widths from its own Gather (axis 0) of its row of 'bits'; "
        "'w' is none.",
    ),
    "controller below the master width": (
        DYNAMIC,
        put("bits.master", np.array([8, 4])),
        "node 'hidden' (dqtsim.NestedGemm) is no entry of metadata 'dqtsim.layers', so its widths are an initializer "
        "[8, 8]; 'bits.master' is none.",
    ),
    "controller that is none": (
        DYNAMIC,
        lambda graph: replace(graph, controller="nowhere"),
        "metadata 'dqtsim.controller' names the tensor from which the nodes compute 'bits'; 'nowhere' is none.",
    ),
    "controller of static bits": (
        STATIC,
        lambda graph: replace(graph, controller="dense"),
        "metadata 'dqtsim.controller' names the tensor from which the nodes compute 'bits'; 'dense' is none.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_check(case: str) -> None:
    graph, change, sentence = CASES[case]
    with pytest.raises(ModelError) as caught:
        check_graph(change(graph))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("graph", [STATIC, DYNAMIC, tiny()], ids=["static", "dynamic", "tiny"])
def test_graphs_that_break_nothing_pass(graph: Graph) -> None:
    check_graph(graph)


def test_the_greatest_add_fits_in_63_bits() -> None:
    greatest = (1 << 31) - 1
    check_graph(
        together(fill("sum.shift", 62), fill("sum.a_multiplier", greatest), fill("sum.b_multiplier", greatest))(STATIC)
    )


def test_the_greatest_product_fits_in_63_bits() -> None:
    check_graph(multiply(1, multiplier=(1 << 31) - 1, shift=62))


def test_a_layer_may_fill_63_bits() -> None:
    """Bias and shapes of the stem together: 2 * 9 taps * 2^15 + B, times M = 1, plus 2^S."""
    limit = (1 << 63) - 1 - (1 << 20) - 18 * (1 << 15)
    fits = together(fill("stem.multiplier", 1), fill("stem.shift", 20), fill("stem.bias", limit))
    check_graph(fits(STATIC))
    with pytest.raises(ModelError, match=r"allows a requantized sum of 64 bits\.$"):
        check_graph(together(fits, fill("stem.bias", limit + 1))(STATIC))


def test_logits_may_fill_31_bits() -> None:
    limit = (1 << 31) - 1 - 5 * (1 << 15)
    check_graph(fill("class.bias", -limit)(STATIC))
    with pytest.raises(ModelError, match=r"past 31 bits\.$"):
        check_graph(fill("class.bias", -limit - 1)(STATIC))
