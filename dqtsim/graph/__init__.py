"""IN: the model file. Frozen dataclasses inside, ONNX with model-local function bodies outside."""

from .bits import with_bits
from .builder import GraphBuilder, Tensor
from .checks import check_graph
from .model import BITS, Arithmetic, Graph, Node, Quantization, Value, Widths
from .reader import from_onnx, load, load_proto
from .writer import save, to_onnx

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
