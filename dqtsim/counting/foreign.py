"""Counting standard quantized ONNX: QDQ, QOperator and QONNX files, MACs and BitOPs by the widths found there.

A tensor's data type is what its quantizer says, carried through operators that only move or limit values; a tensor that
no quantizer made has the type that ONNX gives it, FLOAT32 as a rule. An operator that is not known is an error.
"""

import re
from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from ..errors import ModelError
from .macs import MacNode, width_of

if TYPE_CHECKING:
    import onnx


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STANDARD = ("", "ai.onnx")
_QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_NESTED = "dqtsim"
# operator: positions of activation and weight
_MACS = {
    "Conv": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
# values stay on the grid of the first input
_MOVES = _names(
    "Clip DepthToSpace DequantizeLinear Dropout Expand Flatten Gather GatherElements GatherND GlobalMaxPool Identity "
    "MaxPool Pad Relu Reshape Resize Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Upsample"
)
# nothing is multiplied and accumulated; results have the type that ONNX gives them
_WITHOUT_MACS = _names(
    "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Concat Constant ConstantOfShape Div "
    "DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu GlobalAveragePool Greater GreaterOrEqual HardSigmoid "
    "HardSwish InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Max Mean Min Mish "
    "Mul Neg Not Or PRelu Pow QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Round Selu "
    "Shape Sigmoid Sign Size Softmax Softplus Softsign Sqrt Sub Sum Tanh TopK Where Xor"
)
_QUANTIZERS = _names("Quant IntQuant BipolarQuant Trunc")
_DATA_TYPE = re.compile("U?INT[1-9][0-9]?|BINARY|BIPOLAR|TERNARY|FLOAT(16|32)|FIXED<[0-9]+,[0-9]+>|SCALEDINT<[0-9]+>")
_FLOATS = {"FLOAT": "FLOAT32", "DOUBLE": "FLOAT64"}


def is_nested(model: "onnx.ModelProto") -> bool:
    """Return whether a file is, or wants to be, a nested model of dqtsim."""
    return any(entry.key == "dqtsim.format" for entry in model.metadata_props) or any(
        entry.domain == _NESTED for entry in model.opset_import
    )


def count_foreign(model: "onnx.ModelProto") -> tuple[list[MacNode], Counter[str]]:
    """Return what every node that multiplies costs for one input, and how many nodes of each other operator there are.

    An open batch size counts as 1. Raises ModelError for an operator that is not known, open shapes, or widths that are
    not constant.
    """
    _check_operators(model.graph)
    reader = _Reader(model)
    macs: dict[str, MacNode] = {}
    others: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in _MACS:
            # names of nodes may repeat, names of tensors never do
            name = node.name if node.name and node.name not in macs else node.output[0]
            macs[name] = reader.cost(node, name)
        else:
            others[node.op_type] += 1
        reader.pass_on(node)
    return list(macs.values()), others


def _check_operators(graph: "onnx.GraphProto") -> None:
    """Raise ModelError unless every operator is known and stands after what it reads."""
    ready = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        standard = node.domain in _STANDARD and (
            node.op_type in _MOVES or node.op_type in _WITHOUT_MACS or node.op_type in _MACS
        )
        if not standard and not (node.domain in _QONNX and node.op_type in _QUANTIZERS):
            raise ModelError(
                f"{_title(node)} has no count: operator '{node.op_type}' of domain '{node.domain or 'ai.onnx'}' is not "
                "known, and nothing is skipped."
            )
        mode = next((a.s.decode(errors="replace") for a in node.attribute if a.name == "mode"), "nearest")
        if node.op_type in ("Resize", "Upsample") and mode != "nearest":
            raise ModelError(f"{_title(node)} has no count: mode '{mode}' multiplies, and only 'nearest' is known.")
        for name in node.input:
            if name not in ready:
                raise ModelError(f"{_title(node)} reads '{name}', which no node before it produces.")
        ready.update(node.output)


class _Reader:
    """The data types and shapes of a file's tensors, node by node."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        graph = model.graph
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        inferred = _inferred(model)
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            tensor = value.type.tensor_type
            self._types[value.name] = _type_name(tensor.elem_type)
            if tensor.HasField("shape") and all(size.HasField("dim_value") for size in tensor.shape.dim):
                self._shapes[value.name] = tuple(size.dim_value for size in tensor.shape.dim)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in graph.initializer:
            self._types[tensor.name] = _type_name(tensor.data_type)
            self._shapes[tensor.name] = tuple(tensor.dims)
        self._constant = {"", *self._tensors}
        self._annotated = _annotations(graph)
        self._types |= self._annotated

    def pass_on(self, node: "onnx.NodeProto") -> None:
        """Give the outputs of `node` their data type."""
        if node.op_type == "Constant" and node.domain in _STANDARD:
            self._tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        if all(name in self._constant for name in node.input):
            self._constant.update(node.output)
        kind = self._made_by(node)
        for name in node.output:
            if kind and name not in self._annotated:
                self._types[name] = kind

    def _made_by(self, node: "onnx.NodeProto") -> str | None:
        """Return the data type of what `node` gives, or None where it is what ONNX says."""
        if node.domain in _QONNX:
            return self._quantizer_type(node)
        if node.op_type in _MOVES:
            return self._types[node.input[0]]
        if node.op_type == "Concat":
            return max((self._types[name] for name in node.input if name), key=width_of)
        if node.op_type == "Cast":
            return min((self._types[name] for name in (node.input[0], node.output[0])), key=width_of)
        return None

    def cost(self, node: "onnx.NodeProto", name: str) -> MacNode:
        """Return what `node` multiplies and accumulates."""
        first, second = (node.input[position] for position in _MACS[node.op_type])
        if first in self._constant and second not in self._constant:
            data, weight = second, first
        else:
            data, weight = first, second
        shapes = [self._shape(tensor, node) for tensor in (first, second, node.output[0])]
        outputs = prod(shapes[2])
        if node.op_type in _CONVOLUTIONS:
            taps = prod(shapes[1][1:])
        else:
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            taps = shapes[0][0 if transposed else -1]
        types = [self._types[tensor] for tensor in (data, weight)]
        return MacNode(
            name=name,
            operator=node.op_type,
            input_type=types[0],
            weight_type=types[1],
            output_type="FLOAT32" if any("FLOAT" in kind for kind in types) else "INT32",
            macs=outputs * taps,
            weight_elements=prod(self._shapes[weight]) if weight in self._constant else 0,
            output_elements=outputs,
        )

    def _shape(self, name: str, node: "onnx.NodeProto") -> tuple[int, ...]:
        if name not in self._shapes:
            raise ModelError(f"the shape of '{name}' at {_title(node)} cannot be inferred; a count needs every shape.")
        return self._shapes[name]

    def _quantizer_type(self, node: "onnx.NodeProto") -> str:
        """Return the data type that a quantizer of QONNX gives, by QONNX's own rules."""
        if node.op_type == "BipolarQuant":
            return "BIPOLAR"
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        signed = bool(attributes.get("signed", 1))
        # Trunc: input, scale, zero point, width in, [scale out,] width out
        bits = self._width(node, len(node.input) - 1 if node.op_type == "Trunc" else 3)
        if bits == 1:
            return "BIPOLAR" if signed else "BINARY"
        return f"{'INT' if signed else 'UINT'}{bits}"

    def _width(self, node: "onnx.NodeProto", position: int) -> int:
        from onnx import numpy_helper

        name = node.input[position] if 0 < position < len(node.input) else ""
        try:
            array = numpy_helper.to_array(self._tensors[name])
            bits = float(array.item())
        except (KeyError, ValueError, TypeError):
            raise ModelError(f"{_title(node)} takes one constant bit width; '{name}' is none.") from None
        if not 1 <= bits <= 64 or bits != int(bits):
            raise ModelError(f"{_title(node)} takes a whole bit width between 1 and 64; '{name}' is {bits:g}.")
        return int(bits)


def _inferred(model: "onnx.ModelProto") -> "onnx.GraphProto":
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
        if node.domain in _QONNX:
            node.domain, node.op_type = "", "Identity"
            del node.input[1:]
            del node.attribute[:]
    try:
        return shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"the shapes of model '{graph.name}' cannot be inferred: {reason}.") from None


def _fix_batch(value: "onnx.ValueInfoProto") -> None:
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if not size.HasField("dim_value") or size.dim_value < 1:
            if axis:
                raise ModelError(
                    f"a count needs every size but the batch; input '{value.name}' leaves axis {axis} open "
                    f"('{size.dim_param or '?'}')."
                )
            size.dim_value = 1


def _annotations(graph: "onnx.GraphProto") -> Mapping[str, str]:
    """Return the data types that QONNX and FINN write beside tensors."""
    found = {}
    for annotation in graph.quantization_annotation:
        for entry in annotation.quant_parameter_tensor_names:
            if entry.key == "finn_datatype":
                if not _DATA_TYPE.fullmatch(entry.value):
                    raise ModelError(
                        f"tensor '{annotation.tensor_name}' is annotated as '{entry.value}', whose width is not known."
                    )
                found[annotation.tensor_name] = entry.value
    return found


def _type_name(number: int) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else "UNDEFINED"
    return _FLOATS.get(name, name)


def _title(node: "onnx.NodeProto") -> str:
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"node '{node.name or ', '.join(node.output)}' ({kind})"
