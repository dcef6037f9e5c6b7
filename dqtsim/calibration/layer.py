"""One layer as a network of its own, at one pair of widths: the engine gives its codes and its accumulators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from .. import spec
from ..engines.registry import engine, run, traced
from ..engines.result import Execute
from ..graph.model import BITS, Arithmetic, Array, Graph, Node, Value, Widths
from ..graph.rows import window_of
from ..graph.schema import DOMAIN, SCHEMAS
from ..planner import Plan, plan
from ..target import Target

_X = "x"


@dataclass(frozen=True, eq=False)
class Layer:
    """A nested layer, its constants by role, and the shapes of its input and its output, one sample each."""

    node: Node
    constants: Mapping[str, Array]
    x: tuple[int, ...]
    y: tuple[int, ...]

    def column(self, n: int) -> "Layer":
        """Return a layer on the same input whose P is U, the sum of the operands of a group's window (B2').

        At the master width a weight of one step has the operand 1.
        """
        w = self.constants["w"]
        groups = int(self.node.attributes.get("group", 1))  # type: ignore[arg-type]
        constants = {**self.constants, "w": np.full((groups, *w.shape[1:]), (1 << (n - 1)) + 1, np.uint8)}
        nothing = np.zeros((1, groups), np.int64)
        constants |= {role: nothing for role in ("bias", "multiplier", "shift") if role in constants}
        attributes = dict(self.node.attributes)
        if "row_pairs" in constants:
            constants["row_pairs"] = np.array([[n, n]], np.int64)
        else:
            attributes["row_widths"] = (n,)
        name = f"{self.node.name}.column"
        node = replace(self.node, name=name, outputs=(name,), attributes=MappingProxyType(attributes))
        return Layer(node, constants, self.x, (1, groups, *self.y[2:]))


class LayerRun:
    """A layer at one pair of widths on a target."""

    def __init__(self, layer: Layer, pair: Widths, rules: Arithmetic, target: Target) -> None:
        self.layer, self.pair, self.rules, self.target = layer, pair, rules, target

    def codes(self, x: Array, threads: int) -> Array:
        """Return the outputs (N, ...) for inputs uint8 (N, ...)."""
        found = [result.outputs[_output(self.layer)][0] for result in run(self._whole, x, threads=threads)]
        return np.stack(found)

    def aligned(self, x: Array) -> tuple[Array, Array]:
        """Return A of one sample uint8 (1, ...), int64 (O, positions), in steps of the master widths, and the output.

        A is P * 2^(e_w + e_a) (B2), less the half of U where the weights take it off (B2').
        """
        plan_, execute = self._sums
        _, tensors = traced(plan_, x, execute)
        sums = _flat(tensors[f"{self.layer.node.name}.acc"])
        n, (b_w, b_a) = self.rules.master_width, self.pair
        e_w = spec.exponent(b_w, n, self.rules.weight_rule)
        e_a = spec.exponent(b_a + window_of(self.layer.node, self.layer.constants, b_a), n, self.rules.activation_rule)
        aligned = sums << (e_w + e_a)
        if self._takes_half:
            u = _flat(tensors[f"{self.layer.node.name}.column.acc"])
            half = ((u << e_a) + 1) >> 1
            aligned -= np.repeat(half, len(sums) // len(u), axis=0)
        return aligned, tensors[_output(self.layer)]

    @property
    def _takes_half(self) -> bool:
        return spec.takes_half(self.pair[0], self.rules.master_width, self.rules.weight_rule)

    @cached_property
    def _whole(self) -> Plan:
        return plan(_network(self.rules, [(self.layer, self.pair)]), self.target)

    @cached_property
    def _sums(self) -> tuple[Plan, Execute]:
        n = self.rules.master_width
        parts = [(self.layer, self.pair)]
        if self._takes_half:
            parts.append((self.layer.column(n), (n, self.pair[1])))
        made = plan(_network(self.rules, parts), self.target)
        return made, engine(made)


def _output(layer: Layer) -> str:
    return layer.node.outputs[0]


def _flat(sums: Array) -> Array:
    """Return sums (1, O, ...) as (O, positions)."""
    return sums.reshape(sums.shape[1], -1)


def _network(rules: Arithmetic, parts: Sequence[tuple[Layer, Widths]]) -> Graph:
    """Return a graph of layers that all read its input, each at its pair of widths."""
    nodes: list[Node] = []
    arrays: dict[str, Array] = {BITS: np.array([pair for _, pair in parts], np.int64)}
    for row, (layer, _) in enumerate(parts):
        own = f"{layer.node.name}:{row}"
        arrays[f"{own}.row"] = np.array(row, np.int64)
        axis = MappingProxyType({"axis": 0})
        nodes.append(Node(f"{own}.widths", "", "Gather", (BITS, f"{own}.row"), (f"{own}.widths",), axis))
        arrays |= {f"{own}.{role}": array for role, array in layer.constants.items()}
        roles = [entry.name for entry in SCHEMAS[DOMAIN, layer.node.operator].inputs_of(layer.node.form)]
        nodes.append(replace(layer.node, inputs=tuple(_X if role == _X else f"{own}.{role}" for role in roles)))
    dtype = "int32" if parts[0][0].node.operator == "NestedLogits" else "uint8"
    return Graph(
        name=parts[0][0].node.name,
        arithmetic=rules,
        inputs=(Value(_X, "uint8", parts[0][0].x),),
        outputs=tuple(Value(_output(layer), dtype, layer.y) for layer, _ in parts),
        nodes=tuple(nodes),
        initializers=MappingProxyType(arrays),
        quantization=MappingProxyType({}),
        layers=tuple(layer.node.name for layer, _ in parts),
        candidates=(parts[0][1],),
        pinned=MappingProxyType({}),
    )
