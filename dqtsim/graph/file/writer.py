"""Graph to ONNX: the file carries its meaning (function bodies) and everything else that a reader needs (metadata)."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...outputs import write_file
from ..checks import check_graph
from ..model import Graph, Value
from ..schema import DOMAIN, Attribute, overload_of
from .bodies import IR_VERSION, OPSET, forms_of, functions

if TYPE_CHECKING:
    import onnx


def metadata(graph: Graph) -> dict[str, str]:
    """Return the metadata_props of `graph`; every value that is not plain text is JSON."""
    arithmetic = graph.arithmetic
    return {
        "dqtsim.format": str(graph.format_version),
        "dqtsim.master_width": str(arithmetic.master_width),
        "dqtsim.weight_rule": arithmetic.weight_rule.value,
        "dqtsim.activation_rule": arithmetic.activation_rule.value,
        "dqtsim.rounding": arithmetic.rounding.value,
        "dqtsim.candidates": json.dumps(graph.candidates),
        "dqtsim.layers": json.dumps(graph.layers),
        "dqtsim.pinned": json.dumps(dict(graph.pinned)),
        "dqtsim.controller": graph.controller,
        "dqtsim.classes": json.dumps(graph.class_names),
        "dqtsim.picture": json.dumps(dict(graph.picture)),
        "dqtsim.producer": json.dumps(dict(graph.producer)),
    }


def to_onnx(graph: Graph) -> "onnx.ModelProto":
    """Return `graph` as an ONNX model that passes the checker's full check.

    Raises ModelError if the graph breaks the format.
    """
    from onnx import checker, helper, numpy_helper, shape_inference

    check_graph(graph)
    nodes = [
        helper.make_node(
            node.operator,
            list(node.inputs),
            list(node.outputs),
            name=node.name,
            domain=node.domain,
            overload=overload_of(node.form) or None,
            **{key: _plain(value) for key, value in node.attributes.items()},
        )
        for node in graph.nodes
    ]
    arrays: dict[str, Any] = dict(graph.initializers)
    annotations = []
    for tensor, quantization in graph.quantization.items():
        names = {"SCALE_TENSOR": f"{tensor}.scale", "ZERO_POINT_TENSOR": f"{tensor}.zero_point"}
        scale = np.array(quantization.scale, np.float64)
        arrays[names["SCALE_TENSOR"]] = scale.reshape(()) if scale.size == 1 else scale
        arrays.setdefault(names["ZERO_POINT_TENSOR"], np.array(quantization.zero_point, np.uint8))
        annotations.append(_annotation(tensor, names))
    proto = helper.make_graph(
        nodes,
        graph.name,
        [_value_info(value) for value in graph.inputs],
        [_value_info(value) for value in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto.quantization_annotation.extend(annotations)
    version = graph.format_version
    model = helper.make_model(
        proto,
        functions=list(functions(graph.arithmetic, version, forms_of(graph))),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, version)],
        ir_version=IR_VERSION,
        producer_name="dqtsim",
    )
    helper.set_model_props(model, metadata(graph))
    model = shape_inference.infer_shapes(model, strict_mode=True)
    checker.check_model(model, full_check=True)
    return model


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write `graph` as an ONNX file, whole or not at all.

    Raises ModelError if the graph breaks the format, OutputError if the file cannot be written.
    """
    data = to_onnx(graph).SerializeToString(deterministic=True)
    with write_file(Path(path)) as aside:
        aside.write_bytes(data)


def _plain(value: Attribute) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _annotation(tensor: str, names: dict[str, str]) -> "onnx.TensorAnnotation":
    from onnx import StringStringEntryProto, TensorAnnotation

    entries = [StringStringEntryProto(key=key, value=value) for key, value in names.items()]
    return TensorAnnotation(tensor_name=tensor, quant_parameter_tensor_names=entries)


def _value_info(value: Value) -> "onnx.ValueInfoProto":
    from onnx import helper

    return helper.make_tensor_value_info(
        value.name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), value.shape
    )
