"""The shapes of a standard ONNX file for one input, by ONNX's own inference."""

from typing import TYPE_CHECKING

from ...errors import ModelError
from .operators import DOMAINS

if TYPE_CHECKING:
    import onnx


def inferred(model: "onnx.ModelProto") -> "onnx.GraphProto":
    """Return the graph with every shape that ONNX can infer for one input; quantizers keep shapes."""
    from onnx import ModelProto, shape_inference

    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.ClearField("value_info")
    graph.ClearField("quantization_annotation")
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constants:
            _fix_batch(value)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        if node.domain in DOMAINS:
            node.domain, node.op_type = "", "Identity"
            del node.input[1:]
            del node.attribute[:]
    try:
        return shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"the shapes of model '{graph.name}' cannot be inferred: {reason[:400]}.") from None


def _fix_batch(value: "onnx.ValueInfoProto") -> None:
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if not size.HasField("dim_value") or size.dim_value < 1:
            if axis:
                raise ModelError(
                    f"a count needs every size but the batch; input '{value.name}' leaves axis {axis} open "
                    f"('{size.dim_param or '?'}')."
                )
            size.dim_value = 1
