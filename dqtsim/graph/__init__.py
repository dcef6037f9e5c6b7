"""IN: the model file. Frozen dataclasses inside, ONNX with model-local function bodies outside."""

from .builder import GraphBuilder, Tensor
from .checks import check_graph
from .file.reader import from_onnx, load, load_proto
from .file.writer import save, to_onnx
from .model import BITS, Arithmetic, Graph, Node, Quantization, Value, Widths
from .static import with_bits

__all__ = [
    "BITS",
    "Arithmetic",
    "Graph",
    "GraphBuilder",
    "Node",
    "Quantization",
    "Tensor",
    "Value",
    "Widths",
    "check_graph",
    "from_onnx",
    "load",
    "load_proto",
    "save",
    "to_onnx",
    "with_bits",
]
