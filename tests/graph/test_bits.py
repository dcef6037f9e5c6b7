"""`bits`: where the widths come from and how they are replaced."""

import numpy as np
import pytest

from dqtsim.errors import ModelError
from dqtsim.graph import BITS, Graph, GraphBuilder, from_onnx, to_onnx, with_bits

from .networks import everything, tiny
from .reference import Reference

ROWS = [(8, 6), (2, 3), (4, 4), (1, 8), (5, 5)]


def picture(graph: Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, graph.input.shape, np.uint8)


def test_a_static_graph_has_the_master_width_everywhere() -> None:
    np.testing.assert_array_equal(everything().initializers[BITS], np.full((5, 2), 8))
    assert not everything().dynamic


def test_with_bits_of_a_static_graph_changes_one_tensor() -> None:
    graph = everything()
    static = with_bits(graph, ROWS)
    assert static.nodes == graph.nodes
    assert static.initializers[BITS].tolist() == [list(row) for row in ROWS]
    assert {k for k in graph.initializers if static.initializers[k] is not graph.initializers[k]} <= {
        BITS,
        *(f"{layer}.row" for layer in graph.layers),
    }


def test_with_bits_drops_the_controller_and_what_served_only_it() -> None:
    graph = everything(controlled=True)
    static = with_bits(graph, ROWS)
    plain = everything()
    gone = {"seen", "seen.flat", "hidden", "scores", "bits", "bits.table", "bits.choice", "bits.chosen", "bits.all"}
    assert {node.name for node in graph.nodes} - {node.name for node in static.nodes} == gone
    assert [value.name for value in static.outputs] == [value.name for value in plain.outputs]
    assert not static.dynamic
    assert not any(name.startswith(("hidden", "scores", "seen", "bits.")) for name in static.initializers)
    assert not any(name.startswith(("hidden", "scores", "seen")) for name in static.quantization)
    from_onnx(to_onnx(static))


def test_with_bits_gives_the_widths_that_were_asked_for() -> None:
    graph = everything(controlled=True)
    x = picture(graph)
    dynamic = Reference(graph).run(x)
    static = Reference(with_bits(graph, dynamic["bits"].tolist())).run(x)
    for value in graph.outputs[:-1]:
        np.testing.assert_array_equal(static[value.name], dynamic[value.name])
    other = Reference(with_bits(graph, ROWS)).run(x)
    assert any((other[value.name] != dynamic[value.name]).any() for value in graph.outputs[:-1])


def test_with_bits_replaces_the_widths_of_pinned_layers_too() -> None:
    static = with_bits(everything(controlled=True), [(3, 3)] * 5)
    assert static.node("stem.widths").inputs == (BITS, "stem.row")
    assert static.initializers[BITS].tolist() == [[3, 3]] * 5


def pinned_twice() -> GraphBuilder:
    builder = GraphBuilder("pinned")
    x = builder.input("x", (1, 4), zero_point=0, scale=1.0)
    for name, pinned in (("a", None), ("b", (6, 5)), ("c", None)):
        logits = builder.logits(
            name, x, weight=np.full((2, 4), 130, np.uint8), bias=np.zeros((1, 2)), row_widths=(8,), pinned=pinned
        )
        builder.output(logits)
    return builder


def test_a_static_graph_gathers_every_row_from_bits() -> None:
    graph = pinned_twice().build()
    assert graph.initializers[BITS].tolist() == [[8, 8], [6, 5], [8, 8]]
    assert {node.inputs[0] for node in graph.nodes if node.operator == "Gather"} == {BITS}


def test_build_takes_the_widths_of_every_layer_pinned_or_not() -> None:
    graph = pinned_twice().build([(1, 2), (3, 4), (5, 6)])
    assert graph.initializers[BITS].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert graph.pinned == {"b": (6, 5)}


def test_with_bits_refuses_a_wrong_number_of_rows() -> None:
    with pytest.raises(ModelError, match=r"^'bits' has one pair of widths per layer, 2; found 1\.$"):
        with_bits(tiny(), [(8, 8)])


def test_with_bits_refuses_widths_beyond_the_master() -> None:
    with pytest.raises(ModelError, match=r"^initializer 'bits' holds widths of 1 to 8; found 0 to 9\.$"):
        with_bits(tiny(), [(8, 0), (9, 8)])
