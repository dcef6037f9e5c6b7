"""The tensor `bits`: one row (weight width, activation width) per nested layer, and how to replace it."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ..errors import ModelError
from .checks import check_graph
from .model import BITS, Graph, Node, Widths, freeze


def with_bits(graph: Graph, bits: Sequence[Widths]) -> Graph:
    """Return `graph` with static widths: `bits` has one pair per entry of `graph.layers`.

    The nodes that computed the widths before (the controller) are removed, with everything that served only them.
    """
    if len(bits) != len(graph.layers):
        raise ModelError(f"'bits' has one pair of widths per layer, {len(graph.layers)}; found {len(bits)}.")
    rows = {name: index for index, name in enumerate(graph.layers)}
    layer_of = {node.operand("widths"): node.name for node in graph.nodes if node.name in rows}
    initializers = {**graph.initializers, BITS: freeze(np.array(bits, np.int64).reshape(len(rows), 2))}
    nodes: list[Node] = []
    for old in graph.nodes:
        node = old
        if node.outputs[0] == BITS:
            continue
        layer = layer_of.get(node.outputs[0])
        if layer is not None:
            index = f"{layer}.row"
            initializers[index] = freeze(np.array(rows[layer], np.int64))
            node = replace(node, inputs=(BITS, index))
        nodes.append(node)
    outputs = tuple(value for value in graph.outputs if value.name != BITS)
    layers = {node.outputs[0] for node in nodes if node.name in rows}
    alive = _alive(nodes, layers | {value.name for value in outputs})
    used = {name for node in alive for name in node.inputs}
    known = used | {name for node in alive for name in node.outputs}
    static = replace(
        graph,
        nodes=tuple(alive),
        outputs=outputs,
        initializers=MappingProxyType({name: array for name, array in initializers.items() if name in used}),
        quantization=MappingProxyType({name: entry for name, entry in graph.quantization.items() if name in known}),
        controller="",
    )
    check_graph(static)
    return static


def _alive(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    kept: list[Node] = []
    needed = set(wanted)
    for node in reversed(nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]
