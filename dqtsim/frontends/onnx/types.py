"""Data types carried through a standard ONNX file: QDQ, QOperator, QONNX or float.

A tensor's data type is what its quantizer says, carried through operators that only move or limit values; a tensor that
no quantizer made has the type that ONNX gives it, FLOAT32 as a rule. An operator that is not known is an error.
"""

from collections import Counter
from math import prod
from typing import TYPE_CHECKING

from ...errors import ModelError
from ...graph.file.size import check_size
from ..products import Product, Products, width_of
from .operators import CONVOLUTIONS, DOMAINS, MOVES, PRODUCTS, STANDARD, check_operators, title
from .qonnx import annotations, quantizer_type
from .shapes import inferred

if TYPE_CHECKING:
    import onnx

_FLOATS = {"FLOAT": "FLOAT32", "DOUBLE": "FLOAT64"}


def products_of(model: "onnx.ModelProto") -> Products:
    """Return every node of `model` that multiplies, for one input, and how many nodes of each other operator there are.

    An open batch size counts as 1. Raises ModelError for an operator that is not known, open shapes, or widths that are
    not constant.
    """
    check_size(model)
    check_operators(model.graph)
    reader = _Reader(model)
    found: dict[str, Product] = {}
    others: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            # names of nodes may repeat, names of tensors never do
            name = node.name if node.name and node.name not in found else node.output[0]
            found[name] = reader.product(node, name)
        else:
            others[node.op_type] += 1
        reader.pass_on(node)
    return Products(model.graph.name, tuple(found.values()), others)


class _Reader:
    """The data types and shapes of a file's tensors, node by node."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        graph = model.graph
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        known = inferred(model)
        for value in (*known.value_info, *known.input, *known.output):
            tensor = value.type.tensor_type
            self._types[value.name] = _type_name(tensor.elem_type)
            if tensor.HasField("shape") and all(size.HasField("dim_value") for size in tensor.shape.dim):
                self._shapes[value.name] = tuple(size.dim_value for size in tensor.shape.dim)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in graph.initializer:
            self._types[tensor.name] = _type_name(tensor.data_type)
            self._shapes[tensor.name] = tuple(tensor.dims)
        self._constant = {"", *self._tensors}
        self._annotated = annotations(graph)
        self._types |= self._annotated

    def pass_on(self, node: "onnx.NodeProto") -> None:
        """Give the outputs of `node` their data type."""
        if node.op_type == "Constant" and node.domain in STANDARD:
            self._tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        if all(name in self._constant for name in node.input):
            self._constant.update(node.output)
        kind = self._made_by(node)
        for name in node.output:
            if kind and name not in self._annotated:
                self._types[name] = kind

    def _made_by(self, node: "onnx.NodeProto") -> str | None:
        """Return the data type of the output of `node`, or None if ONNX's own type holds."""
        if node.domain in DOMAINS:
            return quantizer_type(node, self._tensors)
        if node.op_type in MOVES:
            return self._types[node.input[0]]
        if node.op_type == "Concat":
            return max((self._types[name] for name in node.input if name), key=width_of)
        if node.op_type == "Cast":
            return min((self._types[name] for name in (node.input[0], node.output[0])), key=width_of)
        return None

    def product(self, node: "onnx.NodeProto", name: str) -> Product:
        """Return what `node` multiplies and accumulates."""
        first, second = (node.input[position] for position in PRODUCTS[node.op_type])
        if first in self._constant and second not in self._constant:
            data, weight = second, first
        else:
            data, weight = first, second
        shapes = [self._shape(tensor, node) for tensor in (first, second, node.output[0])]
        if node.op_type in CONVOLUTIONS:
            taps = prod(shapes[1][1:])
        else:
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            taps = shapes[0][0 if transposed else -1]
        return Product(
            name=name,
            operator=node.op_type,
            input_type=self._types[data],
            weight_type=self._types[weight],
            outputs=prod(shapes[2]),
            taps=taps,
            weights=prod(self._shapes[weight]) if weight in self._constant else 0,
        )

    def _shape(self, name: str, node: "onnx.NodeProto") -> tuple[int, ...]:
        if name not in self._shapes:
            raise ModelError(f"the shape of '{name}' at {title(node)} cannot be inferred; a count needs every shape.")
        return self._shapes[name]


def _type_name(number: int) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else "UNDEFINED"
    return _FLOATS.get(name, name)
