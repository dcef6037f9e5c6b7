"""Float ONNX files made in the test, and what onnxruntime gives for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Sizes = Sequence[int | str]
# of the operator's own version, which decides what the file may say; onnxruntime reads all of these
IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}


def file(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    shape: Sizes = ("n", 3, 8, 6),
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    domains: Sequence[str] = (),
) -> Path:
    """Write a file with the input 'x' and outputs of unknown shape."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=IR.get(opset, 10)), path)
    return path


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node whose one output has its name."""
    return helper.make_node(operator, list(inputs), [output], name=attributes.pop("name", ""), **attributes)


def by_onnxruntime(path: Path, x: Array) -> list[Array]:
    """The outputs of a file for the input x, without any optimization."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": x})]
