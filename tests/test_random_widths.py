"""Whatever happens to the nodes and tables that make widths: the file is refused, or all engines agree (B8)."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dqtsim.engines.registry import ENGINES, engine
from dqtsim.errors import ModelError
from dqtsim.graph import Graph, Node, check_graph, from_onnx
from dqtsim.planner import plan

from .builders import Array, network, picture, target
from .graph.changes import put
from .graph.unchecked import written

SOUND = network()
TABLES = [name for name, array in SOUND.initializers.items() if array.dtype == np.int64 and "bits." in name]
TABLES += [name for name in SOUND.initializers if name.endswith(".row")]
MAKERS = [node.name for node in SOUND.nodes if node.name.startswith("bits") or node.name.endswith(".widths")]
WIDE = [*TABLES, *MAKERS]
VALUES = st.one_of(st.integers(-5, 12), st.integers(-(1 << 63), (1 << 63) - 1))
WIDTHS = st.integers(1, 8)


def with_node(graph: Graph, name: str, **fields: Any) -> Graph:
    return replace(graph, nodes=tuple(replace(n, **fields) if n.name == name else n for n in graph.nodes))


def one_entry(graph: Graph, data: st.DataObject) -> Graph:
    """Change an entry of a table."""
    name = data.draw(st.sampled_from(TABLES))
    changed = graph.initializers[name].copy()
    place = tuple(data.draw(st.integers(0, size - 1)) for size in changed.shape)
    changed[place] = data.draw(VALUES)
    return put(name, changed)(graph)


def one_table(graph: Graph, data: st.DataObject) -> Graph:
    """Turn, shorten, lengthen or exchange the rows of a table."""
    name = data.draw(st.sampled_from(TABLES))
    array = graph.initializers[name]
    if not array.ndim:
        return put(name, array.reshape(1))(graph)
    rows = data.draw(st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=len(array) + 1))
    other = array[rows]
    return put(name, other[..., ::-1].copy() if data.draw(st.booleans()) else other)(graph)


def one_input(graph: Graph, data: st.DataObject) -> Graph:
    """Let a node that makes widths, or a layer, read another tensor of integers."""
    node = graph.node(data.draw(st.sampled_from([*MAKERS, *graph.layers])))
    inputs = list(node.inputs)
    at = len(inputs) - 1 if node.name in graph.layers else data.draw(st.integers(0, len(inputs) - 1))
    inputs[at] = data.draw(st.sampled_from(WIDE))
    return with_node(graph, node.name, inputs=tuple(inputs))


def one_attribute(graph: Graph, data: st.DataObject) -> Graph:
    """Change an attribute of a node that makes widths."""
    node = graph.node(data.draw(st.sampled_from([name for name in MAKERS if graph.node(name).attributes])))
    key = data.draw(st.sampled_from(sorted(node.attributes)))
    value = data.draw(st.integers(-2, 2))
    return with_node(graph, node.name, attributes=MappingProxyType({**node.attributes, key: value}))


def one_node_more(graph: Graph, data: st.DataObject) -> Graph:
    """Move what a node that makes widths gives once more, before anyone reads it."""
    name = data.draw(st.sampled_from(MAKERS))
    at = next(number for number, node in enumerate(graph.nodes) if node.name == name)
    node, raw = graph.nodes[at], f"{name}.raw"
    made = {
        "Identity": Node(f"{name}.more", "", "Identity", (raw,), (name,)),
        "Transpose": Node(f"{name}.more", "", "Transpose", (raw,), (name,), MappingProxyType({"perm": (1, 0)})),
        "Gather": Node(f"{name}.more", "", "Gather", (raw, "more"), (name,), MappingProxyType({"axis": 0})),
        "Concat": Node(f"{name}.more", "", "Concat", (raw, raw), (name,), MappingProxyType({"axis": 0})),
        "Reshape": Node(f"{name}.more", "", "Reshape", (raw, "more"), (name,), MappingProxyType({"allowzero": 0})),
    }[data.draw(st.sampled_from(["Identity", "Transpose", "Gather", "Concat", "Reshape"]))]
    indices = data.draw(st.lists(st.integers(-1, 4), min_size=1, max_size=4))
    nodes = (*graph.nodes[:at], replace(node, outputs=(raw,)), made, *graph.nodes[at + 1 :])
    return put("more", np.array(indices, np.int64))(replace(graph, nodes=nodes))


def the_metadata(graph: Graph, data: st.DataObject) -> Graph:
    """Say other candidates, other pinned pairs, or the layers in another order."""
    pair = st.tuples(WIDTHS, WIDTHS)
    kind = data.draw(st.sampled_from(["candidates", "pinned", "layers"]))
    if kind == "candidates":
        return replace(graph, candidates=tuple(data.draw(st.lists(pair, min_size=1, max_size=4))))
    if kind == "pinned":
        layers = data.draw(st.lists(st.sampled_from(graph.layers), unique=True, max_size=2))
        return replace(graph, pinned=MappingProxyType({layer: data.draw(pair) for layer in layers}))
    return replace(graph, layers=tuple(data.draw(st.permutations(graph.layers))))


def both(graph: Graph, data: st.DataObject) -> Graph:
    """Change candidates or pinned pairs in the table and in the metadata: sound again, if nothing else is wrong."""
    pairs = data.draw(st.lists(st.tuples(WIDTHS, WIDTHS), min_size=3, max_size=3))
    if data.draw(st.booleans()):
        return put("bits.candidates", np.array(pairs))(replace(graph, candidates=tuple(pairs)))
    pinned = MappingProxyType(dict.fromkeys(graph.pinned, pairs[0]))
    return put("bits.pinned", np.array(pairs[: len(pinned)]).reshape(-1, 2))(replace(graph, pinned=pinned))


CHANGES = [one_entry, one_table, one_input, one_attribute, one_node_more, the_metadata, both, both, both]


def agree(graph: Graph, codes: Array) -> None:
    """All engines give the same outputs and widths, which are among those that were planned."""
    compiled = plan(graph, target())
    results = [engine(compiled, name)(codes, ()) for name in ENGINES]
    for result in results:
        assert result.bits == results[0].bits
        assert np.array_equal(result.outputs["result"], results[0].outputs["result"])
    planned = {step.node.name: step.call.bounds for step in compiled.layer_steps()}
    assert all(pair in planned[layer] for layer, pair in zip(graph.layers, results[0].bits, strict=True))


@settings(max_examples=max(120, settings().max_examples))
@given(data=st.data())
def test_changed_widths_are_refused_or_the_same_in_all_engines(data: st.DataObject) -> None:
    graph = SOUND
    for change in data.draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3)):
        graph = change(graph, data)
    model = written(graph, SOUND)
    try:
        read = from_onnx(model)
        plan(read, target())
    except ModelError as error:
        event("refused")
        assert str(error).endswith(".")
        return
    check_graph(graph)
    event("accepted")
    agree(read, picture(data.draw(st.integers(0, 9))))
