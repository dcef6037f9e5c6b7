"""Checks a model file against `limits` before anything is made of it."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ... import limits
from ...errors import ModelError, cut

if TYPE_CHECKING:
    import onnx


def check_size(model: "onnx.ModelProto") -> None:
    """Raise ModelError if `model` has more nodes, tensors or elements, or longer names, than a file may have."""
    graph = model.graph
    _refuse(len(graph.node), limits.NODES, "a model has at most", "nodes")
    _refuse(len(graph.initializer), limits.INITIALIZERS, "a model has at most", "initializers")
    _refuse(len(model.functions), limits.NODES, "a model has at most", "functions")
    _refuse(len(model.metadata_props), limits.METADATA, "a model has at most", "metadata entries")
    for name in _names(model):
        if len(name) > limits.NAME:
            raise ModelError(f"names have at most {limits.NAME:,} characters; '{cut(name)}' has {len(name):,}.")
    for entry in model.metadata_props:
        text = f"metadata '{entry.key}' has at most"
        _refuse(len(entry.value), limits.METADATA_BYTES, text, "characters")
    for node in graph.node:
        title = f"node '{cut(node.name or ', '.join(node.output[:1]))}' ({cut(node.op_type)})"
        _refuse(len(node.input), limits.INPUTS, f"{title} has at most", "inputs")
        _refuse(len(node.attribute), limits.ATTRIBUTES, f"{title} has at most", "attributes")
        for attribute in node.attribute:
            entries = max(len(attribute.ints), len(attribute.floats), len(attribute.strings))
            _refuse(entries, limits.ENTRIES, f"attribute '{cut(attribute.name)}' of {title} has at most", "entries")
    for tensor in graph.initializer:
        _check_shape(tensor.dims, f"initializer '{cut(tensor.name)}'")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_shape([size.dim_value for size in value.type.tensor_type.shape.dim], f"tensor '{cut(value.name)}'")


def _refuse(found: int, most: int, rule: str, what: str) -> None:
    if found > most:
        raise ModelError(f"{rule} {most:,} {what}; found {found:,}.")


def _check_shape(shape: Iterable[int], where: str) -> None:
    """Raise ModelError for a shape of too many axes or elements; open and negative sizes are checked elsewhere."""
    sizes = list(shape)
    _refuse(len(sizes), limits.RANK, f"{where} has at most", "axes")
    elements = 1
    for size in sizes:
        elements *= max(size, 1)
    _refuse(elements, limits.ELEMENTS, f"{where} has at most", "elements")


def _names(model: "onnx.ModelProto") -> Iterator[str]:
    graph = model.graph
    yield graph.name
    for entry in model.metadata_props:
        yield entry.key
    for function in model.functions:
        yield from (function.name, function.domain, function.overload)
    for node in graph.node:
        yield from (node.name, node.domain, node.op_type, node.overload, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (size.dim_param for size in value.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield tensor.name
    for annotation in graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (entry.value for entry in annotation.quant_parameter_tensor_names)
