"""ONNX: nested models become a Graph; QDQ, QOperator, QONNX and float files can be counted.

`wire` looks at bytes, `operators` says what is known, `shapes` and `types` carry shapes and data types through a file,
`qonnx` reads the quantizers and annotations of QONNX and FINN.
"""

from ...errors import ModelError
from ...graph.model import Graph
from ..products import Products
from .wire import is_model, is_nested

__all__ = ["detect", "load", "products"]


def detect(data: bytes) -> bool:
    """Return whether `data` is an ONNX model: fields of a ModelProto, a graph among them."""
    return is_model(data)


def load(data: bytes, path: str) -> Graph:
    """Return the graph of a nested model. Raises ModelError for any other ONNX file and for anything wrong."""
    from ...graph.file.reader import from_onnx, parse_proto

    nested = is_nested(data, path)
    model = parse_proto(data, path)
    if not nested:
        raise ModelError(
            f"a nested model states its format in metadata 'dqtsim.format'; '{path}' is an ordinary ONNX file: "
            "dqtsim count-ops counts it, and dqtsim quantize makes a float network nested."
        )
    return from_onnx(model)


def products(data: bytes, path: str) -> Products | None:
    """Return what a standard ONNX file multiplies, None for a nested model. Raises ModelError."""
    from ...graph.file.reader import parse_proto
    from .types import products_of

    return None if is_nested(data, path) else products_of(parse_proto(data, path))
