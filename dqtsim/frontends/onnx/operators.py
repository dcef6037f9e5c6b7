"""Which standard operators are known, and what each does to data types. An operator that is not known is an error."""

from typing import TYPE_CHECKING

from ...errors import ModelError, cut
from . import qoperator

if TYPE_CHECKING:
    import onnx


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


STANDARD = ("", "ai.onnx")
# of QONNX
DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
QUANTIZERS = _names("Quant IntQuant BipolarQuant Trunc")
# operator: positions of activation and weight
PRODUCTS = {"Conv": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1), **qoperator.PRODUCTS}
CONVOLUTIONS = ("Conv", *qoperator.CONVOLUTIONS)
# values stay on the grid of the first input
MOVES = _names(
    "Clip DepthToSpace DequantizeLinear Dropout Expand Flatten Gather GatherElements GatherND GlobalMaxPool Identity "
    "MaxPool Pad Relu Reshape Resize Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Upsample"
)
# nothing is multiplied and accumulated; results have the type that ONNX gives them
_WITHOUT_PRODUCTS = _names(
    "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Concat Constant ConstantOfShape Div "
    "DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu GlobalAveragePool Greater GreaterOrEqual HardSigmoid "
    "HardSwish InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Max Mean Min Mish "
    "Mul Neg Not Or PRelu Pow QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Round Selu "
    "Shape Sigmoid Sign Size Softmax Softplus Softsign Sqrt Sub Sum Tanh TopK Where Xor"
)


def check_operators(graph: "onnx.GraphProto") -> None:
    """Raise ModelError unless every operator is known and stands after what it reads."""
    ready = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        standard = node.domain in STANDARD and (
            node.op_type in MOVES or node.op_type in _WITHOUT_PRODUCTS or node.op_type in PRODUCTS
        )
        if not standard and not (node.domain in DOMAINS and node.op_type in QUANTIZERS):
            raise ModelError(
                f"{title(node)} has no count: operator '{cut(node.op_type)}' of domain "
                f"'{cut(node.domain or 'ai.onnx')}' is not known, and nothing is skipped."
            )
        mode = next((a.s.decode(errors="replace") for a in node.attribute if a.name == "mode"), "nearest")
        if node.op_type in ("Resize", "Upsample") and mode != "nearest":
            raise ModelError(f"{title(node)} has no count: mode '{cut(mode)}' multiplies, and only 'nearest' is known.")
        for name in node.input:
            if name not in ready:
                raise ModelError(f"{title(node)} reads '{name}', which no node before it produces.")
        ready.update(node.output)


def title(node: "onnx.NodeProto") -> str:
    """Return how sentences name a node."""
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"node '{cut(node.name or ', '.join(node.output))}' ({cut(kind)})"
