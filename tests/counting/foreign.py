"""Standard quantized ONNX files of a few nodes: QDQ, QOperator, QONNX. Values do not matter; shapes and types do."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from dqtsim.counting import foreign
from dqtsim.counting.macs import MacNode
from dqtsim.frontends.onnx.types import products_of

QONNX = "qonnx.custom_op.general"
Shape = Sequence[int | str]


def count_foreign(model: onnx.ModelProto) -> tuple[list[MacNode], Counter[str]]:
    """Return what the frontend finds in `model` and the counting makes of it, and the other operators."""
    found = products_of(model)
    return foreign.count_foreign(found), found.others


class Sheet:
    """A graph under construction; tensors are named by the caller or after their node."""

    def __init__(self, shape: Shape, dtype: int = TensorProto.FLOAT) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("input", dtype, shape)]
        self.last = "input"

    def constant(self, shape: Sequence[int], dtype: int = TensorProto.FLOAT, value: float = 1) -> str:
        name = f"constant{len(self.tensors)}"
        if dtype in (TensorProto.INT4, TensorProto.UINT4):
            raw = bytes((int(np.prod(shape)) + 1) // 2)
            self.tensors.append(helper.make_tensor(name, dtype, shape, raw, raw=True))
        else:
            array = np.full(shape, value, helper.tensor_dtype_to_np_dtype(dtype))
            self.tensors.append(onnx.numpy_helper.from_array(array, name))
        return name

    def shape(self, *sizes: int) -> str:
        name = f"constant{len(self.tensors)}"
        self.tensors.append(onnx.numpy_helper.from_array(np.array(sizes, np.int64), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", name: str | None = None, **attributes: Any) -> str:
        label = name or f"{operator.lower()}{len(self.nodes)}"
        output = f"{label}.out"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=label, domain=domain, **attributes))
        self.last = output
        return output

    def quant(self, x: str, bits: float, *, signed: int = 1, scale: float = 1, domain: str = QONNX) -> str:
        parameters = (self.constant((), value=scale), self.constant((), value=0), self.constant((), value=bits))
        return self.node("Quant", x, *parameters, domain=domain, signed=signed, narrow=0, rounding_mode="ROUND")

    def qdq(self, x: str, dtype: int) -> str:
        """Quantize and dequantize per tensor."""
        scale, zero = self.constant(()), self.constant((), dtype, 0)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, scale, zero), scale, zero)

    def weight(self, shape: Sequence[int], dtype: int, axis: int | None = None) -> str:
        """Dequantize a constant, per channel of `axis` where it is given."""
        size = () if axis is None else (shape[axis],)
        parameters = (self.constant(shape, dtype, 0), self.constant(size), self.constant(size, dtype, 0))
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        return self.node("DequantizeLinear", *parameters, **attributes)

    def model(self, opset: int = 21, out: int = TensorProto.FLOAT) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(self.last, out, None)
        graph = helper.make_graph(self.nodes, "sheet", self.inputs, [output], self.tensors)
        domains = sorted({node.domain for node in self.nodes} | {""})
        opsets = [helper.make_opsetid(domain, 1 if domain else opset) for domain in domains]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def save(self, folder: Path, **options: Any) -> Path:
        path = folder / "sheet.onnx"
        onnx.save(self.model(**options), path)
        return path


def tfc(weight_bits: int = 2, bits: int = 2, *, batch: int | str = "N", domain: str = QONNX) -> Sheet:
    """Return a perceptron 784-64-64-64-10 as QONNX's zoo has it: Quant before and after every layer."""
    sheet = Sheet((batch, 784))
    x = sheet.quant("input", bits, domain=domain)
    for index, (inputs, outputs) in enumerate(((784, 64), (64, 64), (64, 64), (64, 10))):
        w = sheet.quant(sheet.constant((inputs, outputs)), weight_bits, domain=domain)
        x = sheet.node("MatMul", x, w, name=f"fc{index}")
        if outputs == 64:
            x = sheet.node("BatchNormalization", x, *(sheet.constant((64,)) for _ in range(4)))
            x = sheet.quant(x, bits, domain=domain)
    sheet.node("Mul", x, sheet.constant(()))
    return sheet
