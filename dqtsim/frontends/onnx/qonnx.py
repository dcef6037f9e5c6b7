"""QONNX files: quantizers as operators of their own, and the annotations that QONNX and FINN write beside tensors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import ModelError, cut
from ..products import DATA_TYPE
from .operators import title

if TYPE_CHECKING:
    import onnx


def quantizer_type(node: "onnx.NodeProto", tensors: Mapping[str, "onnx.TensorProto"]) -> str:
    """Return the data type that a quantizer of QONNX gives, by QONNX's own rules."""
    if node.op_type == "BipolarQuant":
        return "BIPOLAR"
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    signed = bool(attributes.get("signed", 1))
    # Trunc: input, scale, zero point, width in, [scale out,] width out
    bits = _width(node, tensors, len(node.input) - 1 if node.op_type == "Trunc" else 3)
    if bits == 1:
        return "BIPOLAR" if signed else "BINARY"
    return f"{'INT' if signed else 'UINT'}{bits}"


def _width(node: "onnx.NodeProto", tensors: Mapping[str, "onnx.TensorProto"], position: int) -> int:
    from onnx import numpy_helper

    name = node.input[position] if 0 < position < len(node.input) else ""
    try:
        array = numpy_helper.to_array(tensors[name])
        bits = float(array.item())
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{title(node)} takes one constant bit width; '{name}' is none.") from None
    if not 1 <= bits <= 64 or bits != int(bits):
        raise ModelError(f"{title(node)} takes a whole bit width between 1 and 64; '{name}' is {bits:g}.")
    return int(bits)


def annotations(graph: "onnx.GraphProto") -> Mapping[str, str]:
    """Return the data types that QONNX and FINN write beside tensors."""
    found = {}
    for annotation in graph.quantization_annotation:
        for entry in annotation.quant_parameter_tensor_names:
            if entry.key == "finn_datatype":
                if not DATA_TYPE.fullmatch(entry.value):
                    raise ModelError(
                        f"tensor '{cut(annotation.tensor_name)}' is annotated as '{cut(entry.value)}', whose width is "
                        "not known."
                    )
                found[annotation.tensor_name] = entry.value
    return found
