"""The graph inside dqtsim: the content of a model file, checked, frozen, and without ONNX's own classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from ..errors import cut
from ..spec.rules import Nesting, Rounding
from .schema import SCHEMAS, Attribute, Form

T = TypeVar("T")
Array = npt.NDArray[Any]
Widths = tuple[int, int]

BITS = "bits"
PINNED_BITS = "bits.pinned"


@dataclass(frozen=True)
class Arithmetic:
    """What selects the function bodies: the master width n and the model's rules (A1-A6, B4)."""

    master_width: int = 8
    weight_rule: Nesting = Nesting.TIES_UP
    activation_rule: Nesting = Nesting.TIES_UP
    rounding: Rounding = Rounding.TIES_UP

    @property
    def since(self) -> int:
        """Return the first format that has these rules."""
        return max(_since(self.weight_rule), _since(self.activation_rule))


def _since(rule: Nesting) -> int:
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return 1
        case Nesting.CENTROID:
            return 2
        case _:
            assert_never(rule)


@dataclass(frozen=True)
class Value:
    """A graph input or output: name, NumPy dtype name and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Quantization:
    """What the codes of a tensor stand for: x = scale * (q - zero_point), scale per tensor or per output channel."""

    scale: tuple[float, ...]
    zero_point: int


@dataclass(frozen=True)
class Node:
    """One operator application; `attributes` holds every attribute, defaults included.

    Readers ask for an input by its role in the schema, `operand("bias")`, never by its position. `form` names the parts
    of the schema that this node uses beyond the plain form.
    """

    name: str
    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    form: Form = ()

    @property
    def operands(self) -> dict[str, str]:
        """Return the input tensors by role, in the order of the schema; those of a Concat are inputs.0, inputs.1 …"""
        roles = SCHEMAS[self.domain, self.operator].roles(len(self.inputs), self.form)
        return dict(zip(roles, self.inputs, strict=True))

    def operand(self, role: str) -> str:
        """Return the tensor that this node takes in `role`. Raises KeyError if its operator has no such role."""
        found = self.operands
        if role not in found:
            raise KeyError(f"{self.title} has no operand '{role}'; it has {', '.join(found)}.")
        return found[role]

    def operands_in(self, values: Mapping[str, T]) -> dict[str, T]:
        """Return by role the value of each input tensor in `values`. Raises KeyError if a tensor is missing there."""
        return {role: values[name] for role, name in self.operands.items()}

    @property
    def source(self) -> str:
        """Return the tensor that a standard operator moves, pools or compares; its other inputs are parameters."""
        return self.inputs[0]

    def integer(self, name: str) -> int:
        """Return the integer attribute `name`."""
        value = self.attributes[name]
        assert isinstance(value, int)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """Return the integer-list attribute `name`."""
        value = self.attributes[name]
        assert isinstance(value, tuple)
        return value

    def pair(self, name: str) -> tuple[int, int]:
        """Return the attribute `name`, a list of two integers."""
        first, second = self.integers(name)
        return first, second

    @property
    def since(self) -> int:
        """Return the first format that has this operator in this form."""
        return SCHEMAS[self.domain, self.operator].since_of(self.form)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes as a plain dictionary: a read-only view of one cannot be pickled."""
        plain = dict(self.attributes)
        return _node, (self.name, self.domain, self.operator, self.inputs, self.outputs, plain, self.form)

    @property
    def title(self) -> str:
        """Return how errors name this node."""
        return f"node '{cut(self.name)}' ({cut(self.domain + '.' if self.domain else '')}{cut(self.operator)})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A nested network.

    `nodes` are in execution order. `initializers` are read-only arrays. `layers` names the nested layers whose widths
    are the rows of `bits`, in order; `pinned` gives the widths of those that the controller never decides. `controller`
    names the tensor of controller logits, "" when the widths are static. Graphs compare by value, and pickle.
    """

    name: str
    arithmetic: Arithmetic
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, Array]
    quantization: Mapping[str, Quantization]
    layers: tuple[str, ...]
    candidates: tuple[Widths, ...]
    pinned: Mapping[str, Widths]
    controller: str = ""
    class_names: tuple[str, ...] = ()
    picture: Mapping[str, str] = field(default_factory=dict)
    producer: Mapping[str, str] = field(default_factory=dict)

    @property
    def dynamic(self) -> bool:
        """Whether the file computes the widths from its input."""
        return bool(self.controller)

    @property
    def format_version(self) -> int:
        """Return the first format that has all that this graph uses; its file states this format."""
        return max([self.arithmetic.since, *(node.since for node in self.nodes)])

    @property
    def input(self) -> Value:
        """Return the one graph input."""
        return self.inputs[0]

    def __eq__(self, other: object) -> bool:
        """Return whether another graph is equal; constants are compared by dtype, shape and every integer."""
        if not isinstance(other, Graph):
            return NotImplemented
        names = [entry.name for entry in fields(self) if entry.name != "initializers"]
        return (
            all(getattr(self, name) == getattr(other, name) for name in names)
            and self.initializers.keys() == other.initializers.keys()
            and all(same_array(array, other.initializers[name]) for name, array in self.initializers.items())
        )

    def __hash__(self) -> int:
        """Return a hash of the parts that are quick to hash."""
        return hash((self.name, self.arithmetic, self.layers, len(self.nodes), self.outputs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle read-only views as plain dictionaries; the arrays are made read-only again."""
        return _graph, ({entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)},)

    def __repr__(self) -> str:
        """Return one line, not all weights."""
        value = self.input
        return (
            f"<Graph '{self.name}': input {value.dtype} {value.shape}, {len(self.nodes)} nodes, "
            f"{len(self.layers)} layers, widths {'dynamic' if self.dynamic else 'static'}>"
        )

    def node(self, name: str) -> Node:
        """Return the node called `name`."""
        return next(node for node in self.nodes if node.name == name)

    def constant(self, node: Node, role: str) -> Array | None:
        """Return the constant that `node` takes in `role`, or None if it is computed. KeyError: no such role."""
        return self.initializers.get(node.operand(role))

    def constants(self, node: Node) -> dict[str, Array]:
        """Return the constant inputs of `node` by their roles."""
        return {role: self.initializers[name] for role, name in node.operands.items() if name in self.initializers}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _node(
    name: str,
    domain: str,
    operator: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    attributes: dict[str, Attribute],
    form: Form,
) -> Node:
    """Return a node from its pickled parts."""
    return Node(name, domain, operator, inputs, outputs, MappingProxyType(attributes), form)


def _graph(parts: dict[str, Any]) -> Graph:
    """Return a graph from its pickled fields."""
    for array in parts["initializers"].values():
        array.setflags(write=False)
    views: dict[str, Any] = {
        name: MappingProxyType(part) if isinstance(part, dict) else part for name, part in parts.items()
    }
    return Graph(**views)


def same_array(a: Array, b: Array) -> bool:
    """Return whether two arrays have one dtype, one shape and the same integers."""
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def freeze(array: Array) -> Array:
    """Return a read-only, C-ordered copy of `array`."""
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy
