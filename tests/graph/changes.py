"""Small changes of a graph, each breaking one thing."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from dqtsim.graph import Graph, Node
from dqtsim.graph.model import Value

Change = Callable[[Graph], Graph]


def arithmetic(**fields: Any) -> Change:
    return lambda graph: replace(graph, arithmetic=replace(graph.arithmetic, **fields))


def put(name: str, array: object) -> Change:
    """Return a change that gives initializer `name` another array."""
    return lambda graph: replace(graph, initializers=MappingProxyType({**graph.initializers, name: np.asarray(array)}))


def fill(name: str, value: int) -> Change:
    """Return a change that fills initializer `name`, whatever its shape."""
    return lambda graph: put(name, np.full_like(graph.initializers[name], value))(graph)


def drop(name: str) -> Change:
    return lambda graph: replace(
        graph, initializers=MappingProxyType({k: v for k, v in graph.initializers.items() if k != name})
    )


def change_node(name: str, change: Callable[[Node], Node]) -> Change:
    return lambda graph: replace(
        graph, nodes=tuple(change(node) if node.name == name else node for node in graph.nodes)
    )


def attribute(name: str, key: str, value: Any) -> Change:
    return change_node(name, lambda node: replace(node, attributes=MappingProxyType({**node.attributes, key: value})))


def read(name: str, position: int, tensor: str) -> Change:
    """Return a change that makes node `name` read `tensor` at `position`."""

    def change(node: Node) -> Node:
        inputs = list(node.inputs)
        inputs[position] = tensor
        return replace(node, inputs=tuple(inputs))

    return change_node(name, change)


def together(*changes: Change) -> Change:
    def change(graph: Graph) -> Graph:
        for one in changes:
            graph = one(graph)
        return graph

    return change


def duplicate(name: str) -> Change:
    return lambda graph: replace(graph, nodes=(*graph.nodes, graph.node(name)))


def produce_again(graph: Graph) -> Graph:
    return replace(graph, nodes=(*graph.nodes, replace(graph.node("flat"), name="again")))


def two_inputs(graph: Graph) -> Graph:
    return replace(graph, inputs=(graph.input, Value("z", "uint8", (1, 4))))


def input_shape(*shape: int) -> Change:
    return lambda graph: replace(graph, inputs=(Value("x", "uint8", shape),))


def output(name: str, dtype: str) -> Change:
    return lambda graph: replace(graph, outputs=(Value(name, dtype, (1, 2)),))


def more_outputs(node: Node) -> Node:
    return replace(node, outputs=(*node.outputs, "more"))


def no_inputs(node: Node) -> Node:
    return replace(node, inputs=())


def fewer_inputs(node: Node) -> Node:
    return replace(node, inputs=node.inputs[:-1])
