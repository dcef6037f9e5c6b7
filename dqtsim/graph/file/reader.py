"""ONNX to Graph: the result is a checked graph, or one sentence that says what is wrong and where."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ... import limits
from ...errors import ModelError, cut, listed, reason
from ...spec.rules import Nesting, Rounding
from ..checks import check_graph, check_operator
from ..model import Arithmetic, Array, Graph, Node, Quantization, Value, Widths, freeze
from ..schema import DOMAIN, FORMATS, Attribute, form_of, overload_of
from .bodies import OPSET, forms_of, full_name, functions
from .size import check_size

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

T = TypeVar("T")


def load(path: str | os.PathLike[str]) -> Graph:
    """Return the graph in the ONNX file at `path`. Raises ModelError with one sentence for anything wrong."""
    return from_onnx(load_proto(path))


def load_proto(path: str | os.PathLike[str]) -> "onnx.ModelProto":
    """Return the ONNX model at `path`, unchecked but well formed as a protocol buffer."""
    try:
        data = limits.read_bytes(path, limits.MODEL_BYTES)
    except OSError as error:
        raise ModelError(f"the model file '{path}' cannot be read: {reason(error)}.") from None
    return parse_proto(data, path)


def parse_proto(data: bytes, path: str | os.PathLike[str]) -> "onnx.ModelProto":
    """Return the ONNX model in `data`; `path` is for error sentences. Raises ModelError."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError):
        raise ModelError(f"the model file '{path}' is not an ONNX file: it does not parse.") from None
    if not model.HasField("graph"):
        raise ModelError(f"the model file '{path}' is not an ONNX model: it holds no graph.")
    return model


def from_onnx(model: "onnx.ModelProto") -> Graph:
    """Return the graph that `model` describes, checked. Raises ModelError."""
    check_size(model)
    _check_texts(model)
    props = _metadata(model)
    version = _version(props)
    arithmetic = _arithmetic(props)
    _check_opsets(model, version)
    initializers = _initializers(model.graph)
    nodes = tuple(_node(node) for node in model.graph.node)
    inputs = tuple(_value(value) for value in model.graph.input if value.name not in initializers)
    _check_order(nodes, {value.name for value in inputs} | initializers.keys())
    quantization = _quantization(model.graph, initializers)
    layers = _strings(props, "dqtsim.layers")
    graph = Graph(
        name=model.graph.name,
        arithmetic=arithmetic,
        inputs=inputs,
        outputs=tuple(_value(value) for value in model.graph.output),
        nodes=nodes,
        initializers=MappingProxyType(_used(initializers, nodes, {value.name for value in model.graph.output})),
        quantization=MappingProxyType(quantization),
        layers=layers,
        candidates=tuple(_pair(item, "dqtsim.candidates") for item in _json(props, "dqtsim.candidates", list)),
        pinned=MappingProxyType(
            {str(k): _pair(v, "dqtsim.pinned") for k, v in _json(props, "dqtsim.pinned", dict).items()}
        ),
        controller=_text(props, "dqtsim.controller"),
        class_names=_strings(props, "dqtsim.classes"),
        picture=MappingProxyType({str(k): str(v) for k, v in _json(props, "dqtsim.picture", dict).items()}),
        producer=MappingProxyType({str(k): str(v) for k, v in _json(props, "dqtsim.producer", dict).items()}),
    )
    check_graph(graph)
    _check_version(graph, version)
    _check_functions(model, graph)
    return graph


def _check_texts(message: "Message") -> None:
    """Refuse texts that are not UTF-8; the protocol-buffer library returns these as bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for item in value if field.is_repeated else [value]:
                _check_texts(item)
        elif field.type == field.TYPE_STRING:
            for item in value if field.is_repeated else [value]:
                if isinstance(item, bytes):
                    kind = message.DESCRIPTOR.name
                    raise ModelError(
                        f"texts in a model file are UTF-8; '{field.name}' of a {kind} holds {cut(repr(item))}."
                    )


def _metadata(model: "onnx.ModelProto") -> dict[str, str]:
    props = {entry.key: entry.value for entry in model.metadata_props}
    if "dqtsim.format" not in props:
        raise ModelError("a nested model states its format in metadata 'dqtsim.format'; this file has no such entry.")
    return props


def _version(props: Mapping[str, str]) -> int:
    """Return the version of the format that the file states."""
    known = {str(version): version for version in FORMATS}
    stated = props["dqtsim.format"]
    if stated not in known:
        found = cut(stated)
        raise ModelError(f"this version reads formats {' and '.join(known)}; metadata 'dqtsim.format' says '{found}'.")
    return known[stated]


def _check_version(graph: Graph, version: int) -> None:
    """Refuse a file unless it states the first version that has all its operators."""
    if graph.arithmetic.since > version:
        raise ModelError(
            f"a file of format {version} has rules of that format; metadata 'dqtsim.weight_rule' says "
            f"'{graph.arithmetic.weight_rule}', of format {graph.arithmetic.since}."
        )
    for node in graph.nodes:
        if node.since > version:
            form = f" with overload '{overload_of(node.form)}'" if node.form else ""
            raise ModelError(
                f"a file of format {version} has operators of that format; {node.title}{form} is of format "
                f"{node.since}."
            )
    if graph.format_version < version:
        raise ModelError(
            f"a file states the lowest format that it needs; metadata 'dqtsim.format' says '{version}', "
            f"its operators need {graph.format_version}."
        )


def _arithmetic(props: Mapping[str, str]) -> Arithmetic:
    return Arithmetic(
        _entry(props, "dqtsim.master_width", int, "an integer"),
        _entry(props, "dqtsim.weight_rule", Nesting, _names(Nesting)),
        _entry(props, "dqtsim.activation_rule", Nesting, _names(Nesting)),
        _entry(props, "dqtsim.rounding", Rounding, _names(Rounding)),
    )


def _names(kind: type[Nesting] | type[Rounding]) -> str:
    return "one of " + ", ".join(member.value for member in kind)


def _text(props: Mapping[str, str], key: str) -> str:
    if key not in props:
        raise ModelError(f"a nested model carries metadata '{key}'; this file has no such entry.")
    return props[key]


def _entry(props: Mapping[str, str], key: str, convert: Callable[[str], T], expected: str) -> T:
    text = _text(props, key)
    try:
        return convert(text)
    except ValueError:
        raise ModelError(f"metadata '{key}' is {expected}; found '{cut(text)}'.") from None


def _json(props: Mapping[str, str], key: str, kind: type[T]) -> T:
    text = _text(props, key)
    try:
        value = limits.json_tree(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        wanted = "list" if kind is list else "object"
        raise ModelError(f"metadata '{key}' is a JSON {wanted}; found '{cut(text)}'.")
    return value


def _strings(props: Mapping[str, str], key: str) -> tuple[str, ...]:
    items = _json(props, key, list)
    for item in items:
        if not isinstance(item, str):
            raise ModelError(f"metadata '{key}' holds names; found {cut(repr(item))}.")
        if len(item) > limits.NAME:
            raise ModelError(f"names have at most {limits.NAME:,} characters; '{cut(item)}' has {len(item):,}.")
    return tuple(items)


def _pair(item: Any, key: str) -> Widths:
    if isinstance(item, list) and len(item) == 2 and all(type(width) is int for width in item):
        return item[0], item[1]
    raise ModelError(
        f"metadata '{key}' holds pairs of a weight width and an activation width; found {cut(repr(item))}."
    )


def _check_opsets(model: "onnx.ModelProto", version: int) -> None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for domain, wanted in (("", OPSET), (DOMAIN, version)):
        if versions.get(domain) != wanted:
            found = versions.get(domain, "none")
            raise ModelError(f"a nested model imports domain '{domain or 'ai.onnx'}' version {wanted}; found {found}.")


def _dtype(number: int, where: str) -> str:
    from onnx import TensorProto, helper

    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(number)).name)
    except KeyError:
        kind = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else str(number)
        raise ModelError(f"{where} has a dtype that no nested model uses: {kind}.") from None


def _value(value: "onnx.ValueInfoProto") -> Value:
    tensor = value.type.tensor_type
    shape = []
    for axis, dimension in enumerate(tensor.shape.dim):
        if not dimension.HasField("dim_value"):
            raise ModelError(
                f"shapes are fixed; tensor '{value.name}' leaves axis {axis} open ('{dimension.dim_param or '?'}')."
            )
        shape.append(dimension.dim_value)
    return Value(value.name, _dtype(tensor.elem_type, f"tensor '{value.name}'"), tuple(shape))


def _initializers(graph: "onnx.GraphProto") -> dict[str, Array]:
    from onnx import TensorProto, numpy_helper

    arrays: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in arrays:
            raise ModelError(f"initializer names are unique; '{tensor.name}' occurs twice.")
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(f"a model is one file; initializer '{tensor.name}' is stored outside it.")
        dtype = _dtype(tensor.data_type, f"initializer '{tensor.name}'")
        try:
            if any(size < 0 for size in tensor.dims):
                raise ValueError
            arrays[tensor.name] = freeze(numpy_helper.to_array(tensor))
        except (ValueError, TypeError):
            raise ModelError(
                f"initializer '{tensor.name}' is malformed: its data do not fill {dtype} {tuple(tensor.dims)}."
            ) from None
    return arrays


def _node(node: "onnx.NodeProto") -> Node:
    name = node.name or (node.output[0] if node.output else "")
    bare = Node(
        name,
        "" if node.domain == "ai.onnx" else node.domain,
        node.op_type,
        tuple(node.input),
        tuple(node.output),
        form=form_of(node.overload),
    )
    demanded = check_operator(bare).attributes_of(bare.form)
    attributes: dict[str, Attribute] = {k: v for k, v in demanded.items() if v is not None}
    for attribute in node.attribute:
        if attribute.name not in demanded:
            form = f" with overload '{node.overload}'" if bare.form else ""
            raise ModelError(f"{bare.title}{form} has no attribute '{attribute.name}'.")
        attributes[attribute.name] = _attribute(attribute, bare, demanded[attribute.name])
    missing = [key for key in demanded if key not in attributes]
    if missing:
        raise ModelError(f"{bare.title} needs attribute '{missing[0]}' and has none.")
    return replace(bare, attributes=MappingProxyType(attributes))


_SCALAR_ATTRIBUTES = ("group", "low", "high", "axis")


def _attribute(attribute: "onnx.AttributeProto", node: Node, default: Attribute | None) -> Attribute:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING and isinstance(default, str):
        return str(value.decode())
    if attribute.type == AttributeProto.INT and (isinstance(default, int) or attribute.name in _SCALAR_ATTRIBUTES):
        return int(value)
    if (
        attribute.type == AttributeProto.INTS
        and not isinstance(default, int | str)
        and attribute.name not in _SCALAR_ATTRIBUTES
    ):
        if default and len(default) != len(value):
            raise ModelError(f"{node.title} takes '{attribute.name}' with {len(default)} entries; found {len(value)}.")
        return tuple(int(item) for item in value)
    raise ModelError(f"{node.title} has attribute '{attribute.name}' of a wrong type.")


def _check_order(nodes: tuple[Node, ...], available: set[str]) -> None:
    producer = {output: node for node in nodes for output in node.outputs}
    ready = set(available)
    for node in nodes:
        for name in node.inputs:
            if name in ready or name not in producer:
                continue
            cycle = _find_cycle(node, producer)
            if cycle:
                found = listed([cut(repr(item.name)) for item in cycle], " -> ")
                raise ModelError(f"a graph has no cycles; found {found}.")
            raise ModelError(
                f"nodes stand in execution order; {node.title} reads '{name}', which {producer[name].title} "
                f"produces only later."
            )
        ready.update(node.outputs)


def _find_cycle(start: Node, producer: Mapping[str, Node]) -> list[Node]:
    """Return a path of nodes from `start` back to itself, each feeding the next, or [] if there is none."""
    paths: list[list[Node]] = [[start]]
    visited: set[str] = set()
    while paths:
        path = paths.pop()
        for name in path[0].inputs:
            before = producer.get(name)
            if before is None:
                continue
            if before is start:
                return [start, *path]
            if before.name not in visited:
                visited.add(before.name)
                paths.append([before, *path])
    return []


def _used(initializers: Mapping[str, Array], nodes: tuple[Node, ...], outputs: set[str]) -> dict[str, Array]:
    used = {name for node in nodes for name in node.inputs} | outputs
    return {name: array for name, array in initializers.items() if name in used}


def _quantization(graph: "onnx.GraphProto", initializers: Mapping[str, Array]) -> dict[str, Quantization]:
    found = {}
    for annotation in graph.quantization_annotation:
        tensor = annotation.tensor_name
        names = {entry.key: entry.value for entry in annotation.quant_parameter_tensor_names}
        for key in ("SCALE_TENSOR", "ZERO_POINT_TENSOR"):
            if names.get(key, "") not in initializers:
                raise ModelError(f"the quantization of tensor '{tensor}' names an initializer as {key}; found none.")
        scale = initializers[names["SCALE_TENSOR"]].reshape(-1)
        source = names["ZERO_POINT_TENSOR"]
        zero_point = initializers[source]
        if zero_point.size != 1:
            raise ModelError(f"tensor '{tensor}' has one zero point; initializer '{source}' has {zero_point.size}.")
        if scale.dtype.kind != "f" or zero_point.dtype.kind not in "iu":
            raise ModelError(
                f"tensor '{tensor}' has a floating-point scale and an integer zero point; "
                f"found {scale.dtype} and {zero_point.dtype}."
            )
        found[tensor] = Quantization(tuple(float(s) for s in scale), int(zero_point.reshape(())))
    return found


def _check_functions(model: "onnx.ModelProto", graph: Graph) -> None:
    version = graph.format_version
    written = {full_name(body): body for body in functions(graph.arithmetic, version, forms_of(graph))}
    carried: dict[str, onnx.FunctionProto] = {}
    for function in model.functions:
        name = full_name(function)
        if version > 1 and function.domain == DOMAIN and name not in written:
            raise ModelError(
                f"a file of format {version} carries the function bodies that its nodes use and no other; "
                f"nothing uses '{name}'."
            )
        if function.domain != DOMAIN or name not in written:
            raise ModelError(
                f"a nested model carries only the functions of domain '{DOMAIN}'; found operator '{name}' of "
                f"domain '{function.domain}'."
            )
        if name in carried:
            raise ModelError(f"a file carries one function body per operator; '{name}' occurs twice.")
        carried[name] = function
    for name, body in written.items():
        if name not in carried:
            raise ModelError(f"the file lacks the function body of operator '{name}' (domain '{DOMAIN}').")
        where = _first_difference(_canonical(carried[name]), _canonical(body))
        if where is not None:
            raise ModelError(f"the function body of operator '{name}' (domain '{DOMAIN}') differs from the law{where}.")


def _canonical(function: "onnx.FunctionProto") -> "onnx.FunctionProto":
    from onnx import FunctionProto

    copy = FunctionProto()
    copy.CopyFrom(function)
    copy.ClearField("doc_string")
    for node in copy.node:
        node.ClearField("doc_string")
        node.ClearField("name")
    return copy


def _first_difference(carried: "onnx.FunctionProto", body: "onnx.FunctionProto") -> str | None:
    """Return where `carried` differs from `body`, as the end of a sentence, or None if it does not."""
    for index, (found, expected) in enumerate(zip(carried.node, body.node, strict=False)):
        if found != expected:
            shown, wanted = _statement(found), _statement(expected)
            attributes = " with other attributes" if shown == wanted else ""
            return f": node {index} must be '{wanted}'; found '{shown}'{attributes}"
    if len(carried.node) != len(body.node):
        return f": it has {len(carried.node)} nodes instead of {len(body.node)}"
    return None if carried == body else ": its inputs, outputs, attributes or imports are others"


def _statement(node: "onnx.NodeProto") -> str:
    domain = f"{node.domain}." if node.domain else ""
    return f"{', '.join(node.output)} = {domain}{node.op_type}({', '.join(node.input)})"
