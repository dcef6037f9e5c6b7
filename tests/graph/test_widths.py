"""What makes widths is what README.md lists, or the graph is refused: in memory, in a file and by the planner (B8)."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.registry import ENGINES, engine
from dqtsim.errors import ModelError
from dqtsim.graph import Graph, GraphBuilder, Node, check_graph, from_onnx
from dqtsim.graph.model import BITS, PINNED_BITS, Value
from dqtsim.graph.widths import reachable_widths
from dqtsim.planner import plan, planned_widths
from tests.builders import target

from .changes import Change, attribute, change_node, fill, put, read, together
from .networks import everything
from .unchecked import written

STATIC, DYNAMIC = everything(), everything(controlled=True)
HUGE = 1 << 62
CANDIDATES, ORDER, SHAPE = "bits.candidates", "bits.order", "bits.table_shape"
ROW = "takes its widths from its own Gather (axis 0) of its row of"
AMONG = "a controller chooses among the pairs of metadata 'dqtsim.candidates';"
ORDERED = "'bits' has one row per entry of metadata 'dqtsim.layers', in that order;"
LOGITS = "a controller's logits are one row per layer without pinned widths, one column per candidate;"
DECISION = "a controller decides by Reshape, ArgMax and Gather, and Concat and Gather put the pinned layers in;"
NAMES = "metadata 'dqtsim.controller' names the tensor from which the nodes compute 'bits';"


def node(operator: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> Node:
    return Node(output, "", operator, inputs, (output,), MappingProxyType(attributes))


def before(name: str, *nodes: Node) -> Change:
    """Return a change that puts nodes in front of the one called `name`."""

    def change(graph: Graph) -> Graph:
        at = next(number for number, each in enumerate(graph.nodes) if each.name == name)
        return replace(graph, nodes=(*graph.nodes[:at], *nodes, *graph.nodes[at:]))

    return change


def says(**fields: Any) -> Change:
    return lambda graph: replace(graph, **fields)


def without(name: str) -> Change:
    return lambda graph: replace(graph, nodes=tuple(each for each in graph.nodes if each.name != name))


def instead(name: str, other: Node) -> Change:
    return change_node(name, lambda _: other)


def row(layer: str, widths: str = "") -> str:
    return f"{DYNAMIC.node(layer).title} {ROW} 'bits' or 'bits.pinned'; '{widths or layer + '.widths'}' is none."


def candidate(entry: int, found: list[int], wanted: list[int]) -> str:
    return f"{AMONG} entry {entry} of initializer 'bits.candidates' is {found} instead of {wanted}."


def order(entry: int, found: int, wanted: int) -> str:
    return f"{ORDERED} entry {entry} of initializer 'bits.order' is {found} instead of {wanted}."


def comes(tensor: str, expected: str, found: str) -> str:
    return f"{DECISION} '{tensor}' comes from {expected}, but {found}."


ARGMAX = "ArgMax (axis 1, keepdims 0, select_last_index 0)"
REFUSED: dict[str, tuple[Change, str]] = {
    # the table of candidates
    "other candidates": (put(CANDIDATES, [[5, 5]] * 3), candidate(0, [5, 5], [2, 1])),
    "candidates past the table": (put(CANDIDATES, [[99, 99]] * 3), candidate(0, [99, 99], [2, 1])),
    "enormous candidates": (put(CANDIDATES, [[HUGE, HUGE]] * 3), candidate(0, [HUGE, HUGE], [2, 1])),
    "negative candidates": (put(CANDIDATES, [[2, 1], [4, -3], [8, 7]]), candidate(1, [4, -3], [4, 3])),
    "candidates of 0": (put(CANDIDATES, [[2, 1], [4, 3], [0, 0]]), candidate(2, [0, 0], [8, 7])),
    "one width off": (put(CANDIDATES, [[2, 1], [4, 3], [8, 8]]), candidate(2, [8, 8], [8, 7])),
    "columns exchanged": (put(CANDIDATES, [[1, 2], [3, 4], [7, 8]]), candidate(0, [1, 2], [2, 1])),
    "candidates in another order": (put(CANDIDATES, [[4, 3], [2, 1], [8, 7]]), candidate(0, [4, 3], [2, 1])),
    "a candidate less": (
        put(CANDIDATES, [[2, 1], [4, 3]]),
        f"{AMONG} initializer 'bits.candidates' is int64 (2, 2) instead of int64 (3, 2).",
    ),
    "metadata of a candidate less": (
        says(candidates=((2, 1), (4, 3))),
        f"{AMONG} initializer 'bits.candidates' is int64 (3, 2) instead of int64 (2, 2).",
    ),
    "metadata of other candidates": (says(candidates=((2, 1), (4, 3), (5, 5))), candidate(2, [8, 7], [5, 5])),
    "candidates that are computed": (
        together(
            put("raw", [[2, 1], [4, 3], [8, 7]]),
            before("bits.chosen", node("Identity", ("raw",), "made")),
            read("bits.chosen", 0, "made"),
        ),
        f"{AMONG} 'made' is no initializer.",
    ),
    "candidates chosen from pinned pairs": (
        read("bits.chosen", 0, PINNED_BITS),
        f"{AMONG} initializer 'bits.pinned' is int64 (1, 2) instead of int64 (3, 2).",
    ),
    # the order of the layers
    "order exchanged": (put(ORDER, [0, 2, 1, 3, 4]), order(1, 2, 1)),
    "order repeated": (put(ORDER, [0, 1, 1, 3, 4]), order(2, 1, 2)),
    "order from the end": (put(ORDER, [0, 1, 2, 3, -1]), order(4, -1, 4)),
    "pinned row from the end": (put(ORDER, [-5, 1, 2, 3, 4]), order(0, -5, 0)),
    "order past the end": (put(ORDER, [0, 1, 2, 3, 5]), order(4, 5, 4)),
    "enormous order": (put(ORDER, [0, HUGE, 2, 3, 4]), order(1, HUGE, 1)),
    "pinned layer decided": (put(ORDER, [1, 1, 2, 3, 4]), order(0, 1, 0)),
    "decided layer pinned": (put(ORDER, [0, 0, 2, 3, 4]), order(1, 0, 1)),
    "order too short": (
        put(ORDER, [0, 1, 2, 3]),
        f"{ORDERED} initializer 'bits.order' is int64 (4,) instead of int64 (5,).",
    ),
    "order of two dimensions": (
        put(ORDER, [[0, 1, 2, 3, 4]]),
        f"{ORDERED} initializer 'bits.order' is int64 (1, 5) instead of int64 (5,).",
    ),
    "order that is computed": (
        together(
            put("raw", [0, 1, 2, 3, 4]),
            before("bits.all", node("Identity", ("raw",), "made")),
            read(BITS, 1, "made"),
        ),
        f"{ORDERED} 'made' is no initializer.",
    ),
    "order by the choice": (read(BITS, 1, "bits.choice"), f"{ORDERED} 'bits.choice' is no initializer."),
    # pinned layers
    "metadata of another pinned pair": (says(pinned={"stem": (8, 5)}), row("stem")),
    "another layer is pinned": (says(pinned={"grouped": (8, 6)}), row("stem")),
    "nothing is pinned": (
        says(pinned={}),
        "initializer 'bits.pinned' is int64 of shape (0, 2); found int64 (1, 2).",
    ),
    "pinned pair of another layer's": (fill("stem.row", -1), row("stem")),
    "pinned pair past the table": (fill("stem.row", 1), row("stem")),
    "pinned pairs joined behind": (
        change_node("bits.all", lambda n: replace(n, inputs=n.inputs[::-1])),
        f"{DECISION} node 'bits.all' (Concat) joins 'bits.pinned' and the chosen pairs; found 'bits.chosen', "
        "'bits.pinned'.",
    ),
    "pinned pairs joined twice": (
        change_node("bits.all", lambda n: replace(n, inputs=(*n.inputs, n.inputs[0]))),
        f"{DECISION} node 'bits.all' (Concat) joins 'bits.pinned' and the chosen pairs; found 'bits.pinned', "
        "'bits.chosen', 'bits.pinned'.",
    ),
    "pairs joined side by side": (
        attribute("bits.all", "axis", 1),
        comes("bits.all", "Concat (axis 0)", "node 'bits.all' (Concat) gives it with axis 1"),
    ),
    # the choice
    "the last of a tie": (
        attribute("bits.choice", "select_last_index", 1),
        comes(
            "bits.choice",
            ARGMAX,
            "node 'bits.choice' (ArgMax) gives it with axis 1, keepdims 0, select_last_index 1",
        ),
    ),
    "the largest of each column": (
        attribute("bits.choice", "axis", 0),
        comes(
            "bits.choice",
            ARGMAX,
            "node 'bits.choice' (ArgMax) gives it with axis 0, keepdims 0, select_last_index 0",
        ),
    ),
    "dimensions that are kept": (
        attribute("bits.choice", "keepdims", 1),
        comes(
            "bits.choice",
            ARGMAX,
            "node 'bits.choice' (ArgMax) gives it with axis 1, keepdims 1, select_last_index 0",
        ),
    ),
    "a choice that is constant": (
        together(put("fixed", [0, 1, 2, 0]), read("bits.chosen", 1, "fixed")),
        comes("fixed", ARGMAX, "no node gives it"),
    ),
    "a choice of a choice": (
        together(
            before("bits.chosen", node("Gather", (ORDER, "bits.choice"), "again", axis=0)),
            read("bits.chosen", 1, "again"),
        ),
        comes("again", ARGMAX, "node 'again' (Gather) gives it"),
    ),
    "candidates by column": (
        attribute("bits.chosen", "axis", 1),
        comes("bits.chosen", "Gather (axis 0)", "node 'bits.chosen' (Gather) gives it with axis 1"),
    ),
    "logits by column": (
        put(SHAPE, [3, 4]),
        f"{LOGITS} entry 0 of initializer 'bits.table_shape' is 3 instead of 4.",
    ),
    "logits of any shape": (
        put(SHAPE, [-1, 3]),
        f"{LOGITS} entry 0 of initializer 'bits.table_shape' is -1 instead of 4.",
    ),
    "logits of three dimensions": (
        put(SHAPE, [4, 3, 1]),
        f"{LOGITS} initializer 'bits.table_shape' is int64 (3,) instead of int64 (2,).",
    ),
    "logits not reshaped": (
        read("bits.choice", 0, "scores"),
        comes("scores", "Reshape", "node 'scores' (dqtsim.NestedLogits) gives it"),
    ),
    # more nodes
    "pairs transposed": (
        together(
            before("bits.all", node("Transpose", ("bits.chosen",), "turned", perm=(1, 0))),
            before("bits.all", node("Reshape", ("turned", "pairs"), "shuffled", allowzero=0)),
            put("pairs", [4, 2]),
            read("bits.all", 1, "shuffled"),
        ),
        comes("shuffled", "Gather (axis 0)", "node 'shuffled' (Reshape) gives it"),
    ),
    "pairs sliced": (
        together(
            put("s", [3]),
            put("e", [-5]),
            put("a", [0]),
            put("t", [-1]),
            before("bits.all", node("Slice", ("bits.chosen", "s", "e", "a", "t"), "back")),
            read("bits.all", 1, "back"),
        ),
        comes("back", "Gather (axis 0)", "node 'back' (Slice) gives it"),
    ),
    "pairs through an Identity": (
        together(before("bits.all", node("Identity", ("bits.chosen",), "same")), read("bits.all", 1, "same")),
        comes("same", "Gather (axis 0)", "node 'same' (Identity) gives it"),
    ),
    "rows shuffled at the end": (
        instead(BITS, node("Concat", (PINNED_BITS, "bits.chosen"), BITS, axis=0)),
        comes(BITS, "Gather (axis 0)", "node 'bits' (Concat) gives it"),
    ),
    "another Gather in between": (
        together(
            put("some", [0, 0, 0, 0]),
            before("bits.all", node("Gather", ("bits.chosen", "some"), "picked", axis=0)),
            read("bits.all", 1, "picked"),
        ),
        f"{AMONG} 'bits.chosen' is no initializer.",
    ),
    # the layers
    "row from the end": (fill("grouped.row", -4), row("grouped")),
    "row of another layer": (fill("grouped.row", 2), row("grouped")),
    "row past the end": (fill("class.row", 5), row("class")),
    "row in a list": (put("grouped.row", np.array([1])), row("grouped")),
    "column instead of a row": (attribute("grouped.widths", "axis", 1), row("grouped")),
    "row of the chosen pairs": (read("grouped.widths", 0, "bits.chosen"), row("grouped")),
    "row of the joined pairs": (read("grouped.widths", 0, "bits.all"), row("grouped")),
    "row of the candidates": (read("grouped.widths", 0, CANDIDATES), row("grouped")),
    "row by the choice": (
        together(
            before("grouped", node("Gather", ("bits.choice", "grouped.row"), "own", axis=0)),
            before("grouped", node("Gather", (CANDIDATES, "own"), "chosen", axis=0)),
            read("grouped", -1, "chosen"),
        ),
        row("grouped", "chosen"),
    ),
    "row of a pinned layer": (
        together(read("grouped.widths", 0, PINNED_BITS), fill("grouped.row", 0)),
        row("grouped"),
    ),
    "widths transposed by an Identity": (
        together(before("grouped", node("Identity", ("grouped.widths",), "own")), read("grouped", -1, "own")),
        row("grouped", "own"),
    ),
    "widths turned round": (
        together(
            put("turn", [1, 0]),
            before("grouped", node("Gather", ("grouped.widths", "turn"), "own", axis=0)),
            read("grouped", -1, "own"),
        ),
        row("grouped", "own"),
    ),
    "widths from the input": (
        read("grouped", -1, "x"),
        "node 'grouped' (dqtsim.NestedConv) takes 'widths' as int64; tensor 'x' is uint8.",
    ),
    "layers in another order": (says(layers=("stem", "depthwise", "grouped", "dense", "class")), row("grouped")),
    "a layer that no metadata names": (
        together(says(layers=("stem", "grouped", "depthwise", "dense"))),
        "node 'class' (dqtsim.NestedLogits) is no entry of metadata 'dqtsim.layers', so its widths are an initializer "
        "[8, 8]; 'class.widths' is none.",
    ),
    # the controller
    "another tensor as controller": (says(controller="seen.flat"), f"{NAMES} 'seen.flat' is none."),
    "a constant as controller": (
        together(put("scores.fixed", np.zeros((1, 12), np.int32)), says(controller="scores.fixed")),
        f"{NAMES} 'scores.fixed' is none.",
    ),
    "a constant as controller, read as one": (
        together(
            put("fixed", np.zeros((1, 12), np.int32)),
            read("bits.table", 0, "fixed"),
            says(controller="fixed"),
        ),
        f"{NAMES} 'fixed' is none.",
    ),
    "a constant table of logits": (
        together(
            put("fixed", np.zeros((1, 12), np.int32)),
            read("bits.table", 0, "fixed"),
        ),
        f"{NAMES} 'scores' is none.",
    ),
    "no controller": (
        says(controller=""),
        "'bits' is an initializer where metadata 'dqtsim.controller' is empty; node 'bits' (Gather) gives it here.",
    ),
    "an initializer beside the nodes": (
        put(BITS, np.full((5, 2), 8)),
        "every tensor has one producer; node 'bits' (Gather) produces 'bits' a second time.",
    ),
    "an initializer in place of the nodes": (
        together(without(BITS), put(BITS, np.full((5, 2), 8))),
        f"{NAMES} 'scores' is none.",
    ),
    "pinned pairs that are computed": (
        together(
            put("raw", [[8, 6]]),
            lambda graph: replace(
                graph,
                nodes=(node("Identity", ("raw",), PINNED_BITS), *graph.nodes),
                initializers=MappingProxyType({k: v for k, v in graph.initializers.items() if k != PINNED_BITS}),
            ),
        ),
        row("stem"),
    ),
}


def sentences(graph: Graph, sound: Graph) -> list[str]:
    """Return what the checks, the reader and the planner say of a graph."""
    ways: list[Callable[[], object]] = [
        lambda: check_graph(graph),
        lambda: from_onnx(written(graph, sound)),
        lambda: planned_widths(graph),
    ]
    found = []
    for way in ways:
        try:
            way()
        except ModelError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_a_dynamic_graph_is_refused(case: str) -> None:
    change, sentence = REFUSED[case]
    said = sentences(change(DYNAMIC), DYNAMIC)
    assert said[:2] == [sentence, sentence]
    # without the checks before it, the planner may find another fault first
    assert len(said) == 3


STATIC_REFUSED: dict[str, tuple[Change, str]] = {
    "pinned pairs at odds with bits": (
        together(put(PINNED_BITS, [[4, 4]]), says(pinned={"stem": (4, 4)}), read("stem.widths", 0, PINNED_BITS)),
        f"node 'stem' (dqtsim.NestedConv) {ROW} 'bits'; 'stem.widths' is none.",
    ),
    "columns instead of rows": (
        attribute("class.widths", "axis", 1),
        f"node 'class' (dqtsim.NestedLogits) {ROW} 'bits'; 'class.widths' is none.",
    ),
    "row from the end": (
        fill("class.row", -1),
        f"node 'class' (dqtsim.NestedLogits) {ROW} 'bits'; 'class.widths' is none.",
    ),
    "bits that are computed from constants": (
        together(
            put("raw", np.full((5, 2), 8)),
            lambda graph: replace(
                graph,
                nodes=(node("Identity", ("raw",), BITS), *graph.nodes),
                initializers=MappingProxyType({k: v for k, v in graph.initializers.items() if k != BITS}),
            ),
        ),
        "'bits' is an initializer where metadata 'dqtsim.controller' is empty; node 'bits' (Identity) gives it here.",
    ),
    "bits of another dtype": (
        put(BITS, np.full((5, 2), 8, np.int32)),
        "node 'stem' (dqtsim.NestedConv) takes 'widths' as int64; tensor 'stem.widths' is int32.",
    ),
}


@pytest.mark.parametrize("case", STATIC_REFUSED)
def test_a_static_graph_is_refused(case: str) -> None:
    change, sentence = STATIC_REFUSED[case]
    assert sentences(change(STATIC), STATIC)[:2] == [sentence, sentence]


@pytest.mark.parametrize("name", [CANDIDATES, ORDER, SHAPE, PINNED_BITS, "bits.master", "stem.row", "dense.row"])
def test_no_entry_of_a_table_can_have_another_value(name: str) -> None:
    array = DYNAMIC.initializers[name]
    for place in np.ndindex(array.shape):
        for value in (*range(-2, 12), 255, 256, HUGE, -HUGE, (1 << 63) - 1, -(1 << 63)):
            changed = array.copy()
            changed[place] = value
            if value == array[place]:
                check_graph(put(name, changed)(DYNAMIC))
                continue
            with pytest.raises(ModelError):
                check_graph(put(name, changed)(DYNAMIC))


# ---- what may be different ----


def pinned_twice(*, first: tuple[int, int] = (8, 6), second: tuple[int, int] = (4, 4)) -> Graph:
    """Return two pinned layers before and one after two that a controller decides, in mixed order."""
    random = np.random.default_rng(2)
    b = GraphBuilder("pinned", candidates=((2, 2), (4, 8), (2, 2)))

    def tables(channels: int) -> dict[str, Any]:
        return {
            "weight": random.integers(0, 256, (channels, 8), np.uint8),
            "bias": random.integers(-900, 900, (1, channels)),
            "row_widths": (8,),
        }

    scale: dict[str, Any] = {"zero_point": 100, "scale": 1.0, "clip": (0, 255)}
    x = b.input("x", (1, 8), zero_point=128, scale=1.0)
    a = b.gemm("a", x, **tables(8), multiplier=[[40000] * 8], shift=[[24] * 8], pinned=first, **scale)
    b.control(b.logits("scores", a, **tables(6), controller=True))
    c = b.gemm("c", a, **tables(8), multiplier=[[40000] * 8], shift=[[24] * 8], **scale)
    d = b.gemm("d", c, **tables(8), multiplier=[[40000] * 8], shift=[[24] * 8], pinned=second, **scale)
    b.output(b.logits("e", d, **tables(3)))
    return b.build()


def agree(graph: Graph) -> None:
    """All engines run the file of a graph, and give the same."""
    compiled = plan(from_onnx(written(graph, pinned_twice())), target())
    for codes in np.random.default_rng(3).integers(0, 256, (6, 1, 8), np.uint8):
        results = [engine(compiled, name)(codes, ()) for name in ENGINES]
        assert len({result.bits for result in results}) == 1
        for result in results[1:]:
            assert np.array_equal(result.outputs["e"], results[0].outputs["e"])


def test_pairs_that_can_reach_a_layer() -> None:
    graph = pinned_twice()
    candidates = ((2, 2), (4, 8), (2, 2))
    expected = {"a": ((8, 6),), "scores": ((8, 8),), "c": candidates, "d": ((4, 4),), "e": candidates}
    assert reachable_widths(graph) == planned_widths(graph) == expected
    agree(graph)


def test_a_pinned_layer_may_take_its_pair_from_bits() -> None:
    """Behind the decision both say the same; it is planned for its own pair, which is no candidate."""
    graph = together(read("d.widths", 0, BITS), fill("d.row", 2))(pinned_twice())
    assert planned_widths(graph)["d"] == ((4, 4),)
    agree(graph)


def test_a_pinned_layer_whose_pair_is_not_in_the_table_is_refused() -> None:
    change = together(read("d.widths", 0, BITS), fill("d.row", 2), put(PINNED_BITS, [[8, 6], [5, 5]]))
    with pytest.raises(ModelError) as caught:
        check_graph(change(pinned_twice()))
    assert str(caught.value) == (
        "initializer 'bits.pinned' holds the pairs of metadata 'dqtsim.pinned'; (4, 4) of layer 'd' is not among them."
    )


def test_pinned_pairs_may_stand_in_any_order() -> None:
    change = together(put(PINNED_BITS, [[4, 4], [8, 6]]), fill("a.row", 1), fill("d.row", 0))
    agree(together(change, put(ORDER, [1, 2, 0, 3]))(pinned_twice()))
    with pytest.raises(ModelError) as caught:
        check_graph(change(pinned_twice()))
    assert str(caught.value) == order(0, 0, 1)


def test_pinned_layers_of_one_pair_may_exchange_their_rows() -> None:
    graph = pinned_twice(second=(8, 6))
    agree(together(put(ORDER, [1, 2, 0, 3]), fill("a.row", 1))(graph))


def test_metadata_may_name_pinned_layers_in_any_order() -> None:
    agree(says(pinned={"d": (4, 4), "a": (8, 6)})(pinned_twice()))


def test_decided_layers_may_stand_in_no_other_order() -> None:
    for places in permutations(range(4)):
        if list(places) != [0, 2, 1, 3]:
            with pytest.raises(ModelError, match="in that order"):
                check_graph(put(ORDER, list(places))(pinned_twice()))


def test_names_of_nodes_and_tables_are_free() -> None:
    names = {CANDIDATES: "table", ORDER: "places", "bits.choice": "first", "bits.all": "both", "bits.chosen": "rows"}

    def renamed(each: Node) -> Node:
        new = [tuple(names.get(name, name) for name in part) for part in (each.inputs, each.outputs)]
        return replace(each, name=names.get(each.name, each.name), inputs=new[0], outputs=new[1])

    graph = pinned_twice()
    arrays = {names.get(name, name): array for name, array in graph.initializers.items()}
    agree(replace(graph, nodes=tuple(map(renamed, graph.nodes)), initializers=MappingProxyType(arrays)))


def test_logits_may_come_from_any_node() -> None:
    """Also from one that reads constants, so that every sample has the same widths."""
    moved = before("bits.table", node("Identity", ("scores",), "moved"))
    agree(together(moved, read("bits.table", 0, "moved"), says(controller="moved"))(pinned_twice()))
    fixed = together(put("fixed", np.array([[0, 1, 0, 2, 1, 1]], np.int32)), moved, read("moved", 0, "fixed"))
    agree(together(fixed, read("bits.table", 0, "moved"), says(controller="moved"))(pinned_twice()))


def test_others_may_read_what_makes_widths() -> None:
    graph = before("c", node("Identity", ("bits.choice",), "seen"))(pinned_twice())
    agree(replace(graph, outputs=(*graph.outputs, Value("seen", "int64", (2,)))))
