"""The int8 forms of a plan: with quantized operators (QLinear), and with quantizers around float ones (QDQ).

Both mean the same; which one is faster depends on the runtime. So does the best type of the weights: int8, or uint8
with the zero point 128. Products are the plan's; requantization is the runtime's own, in float32 with ties to even.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..planner import Plan, Step
from .standard import MICROSOFT, Form, StandardLayer, mean_ratio, ratio


class _Int8(Form):
    codes = np.uint8

    def __init__(self, plan: Plan, batch: int = 1, *, signed_weights: bool = True) -> None:
        super().__init__(plan, batch)
        self._dtype: type[np.int8] | type[np.uint8] = np.int8 if signed_weights else np.uint8
        self._middle = 0 if signed_weights else 128

    def grid(self, scale: float, zero_point: int) -> list[str]:
        """Return the names of a scale and of a zero point of codes."""
        return [
            self.constant(f"scale/{float(scale)!r}", np.float32(scale)),
            self.constant(f"zero_point/{zero_point}", np.uint8(zero_point)),
        ]

    def weights(self, step: Step, layer: StandardLayer) -> list[str]:
        """Return the names of the weights, their scales and zero points, one an output channel."""
        name, channels = step.node.name, len(layer.weights)
        return [
            self.constant(f"{name}/weights", (layer.weights + self._middle).astype(self._dtype)),
            self.constant(f"{name}/scales", layer.factor.astype(np.float32)),
            self.constant(f"{name}/zero_points", np.full(channels, self._middle, self._dtype)),
        ]

    def bias(self, step: Step, layer: StandardLayer) -> str:
        """Return the name of the bias."""
        return self.constant(f"{step.node.name}/bias", layer.bias)

    def codes_by(self, step: Step, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> None:
        """Write the operator that gives the codes of `step`, and a Clip if its clip is narrower than 8 bits."""
        output, limits = step.node.outputs[0], (step.node.integer("low"), step.node.integer("high"))
        if limits == (0, 255):
            self.node(operator, inputs, output, domain, **attributes)
            return
        inner = self.node(operator, inputs, f"{output}/unclipped", domain, **attributes)
        self.node("Clip", [inner, *(self.constant(f"limit/{x}", np.uint8(x)) for x in limits)], output)

    def requantize(self, step: Step) -> None:
        """Write a NestedRequantize."""
        constants = self.plan.graph.constants(step.node)
        x = self.dequantized(step, "x", ratio(constants), int(constants["x_zero_point"]))
        self.quantized(step, x, int(constants["y_zero_point"]))

    def dequantized(self, step: Step, role: str, scale: float, zero_point: int) -> str:
        """Return the name of the input of `step` in `role` as real values."""
        inputs = [step.node.operand(role), *self.grid(scale, zero_point)]
        return self.node("DequantizeLinear", inputs, f"{step.node.name}/{role}")

    def quantized(self, step: Step, value: str, zero_point: int) -> None:
        """Quantize the real values `value` to the codes that `step` gives."""
        self.codes_by(step, "QuantizeLinear", [value, *self.grid(1.0, zero_point)])


class QLinear(_Int8):
    """A plan in QLinearConv and similar operators."""

    def conv(self, step: Step, layer: StandardLayer, geometry: Mapping[str, Any]) -> None:
        """Write a NestedConv."""
        assert layer.z_y is not None
        inputs = [step.node.operand("x"), *self.grid(1.0, layer.z_x), *self.weights(step, layer)]
        inputs += [*self.grid(1.0, layer.z_y), self.bias(step, layer)]
        self.codes_by(step, "QLinearConv", inputs, **geometry)

    def gemm(self, step: Step, layer: StandardLayer) -> None:
        """Write a NestedGemm or a NestedLogits."""
        inputs = [
            step.node.operand("x"),
            *self.grid(1.0, layer.z_x),
            *self.weights(step, layer),
            self.bias(step, layer),
        ]
        if layer.z_y is None:
            self.node("QGemm", inputs, step.node.outputs[0], MICROSOFT, transB=1)
        else:
            self.codes_by(step, "QGemm", [*inputs, *self.grid(1.0, layer.z_y)], MICROSOFT, transB=1)

    def add(self, step: Step) -> None:
        """Write a NestedAdd."""
        constants = self.plan.graph.constants(step.node)
        inputs = []
        for name in "ab":
            scale = ratio(constants, f"{name}_multiplier")
            inputs += [step.node.operand(name), *self.grid(scale, int(constants[f"{name}_zero_point"]))]
        inputs += self.grid(1.0, int(constants["y_zero_point"]))
        self.codes_by(step, "QLinearAdd", inputs, MICROSOFT)

    def multiply(self, step: Step) -> None:
        """Write a NestedMultiply."""
        constants = self.plan.graph.constants(step.node)
        inputs = []
        for name, scale in (("a", ratio(constants)), ("b", 1.0)):
            inputs += [step.node.operand(name), *self.grid(scale, int(constants[f"{name}_zero_point"]))]
        inputs += self.grid(1.0, int(constants["y_zero_point"]))
        self.codes_by(step, "QLinearMul", inputs, MICROSOFT)

    def average_pool(self, step: Step, geometry: Mapping[str, Any]) -> None:
        """Write a NestedAveragePool."""
        constants = self.plan.graph.constants(step.node)
        inputs = [step.node.operand("x"), *self.grid(mean_ratio(step, constants), int(constants["x_zero_point"]))]
        inputs += self.grid(1.0, int(constants["y_zero_point"]))
        operator = "QLinearAveragePool" if geometry else "QLinearGlobalAveragePool"
        self.codes_by(step, operator, inputs, MICROSOFT, channels_last=0, **geometry)


class Qdq(_Int8):
    """A plan in float operators between DequantizeLinear and QuantizeLinear."""

    def conv(self, step: Step, layer: StandardLayer, geometry: Mapping[str, Any]) -> None:
        """Write a NestedConv."""
        assert layer.z_y is not None
        y = self.node("Conv", self._operands(step, layer), f"{step.node.name}/y", **geometry)
        self.quantized(step, y, layer.z_y)

    def gemm(self, step: Step, layer: StandardLayer) -> None:
        """Write a NestedGemm or a NestedLogits."""
        operands = self._operands(step, layer)
        if layer.z_y is None:
            self.node("Gemm", operands, step.node.outputs[0], transB=1)
        else:
            self.quantized(step, self.node("Gemm", operands, f"{step.node.name}/y", transB=1), layer.z_y)

    def add(self, step: Step) -> None:
        """Write a NestedAdd."""
        constants = self.plan.graph.constants(step.node)
        parts = []
        for name in "ab":
            scale = ratio(constants, f"{name}_multiplier")
            parts.append(self.dequantized(step, name, scale, int(constants[f"{name}_zero_point"])))
        self.quantized(step, self.node("Add", parts, f"{step.node.name}/y"), int(constants["y_zero_point"]))

    def multiply(self, step: Step) -> None:
        """Write a NestedMultiply."""
        constants = self.plan.graph.constants(step.node)
        parts = [
            self.dequantized(step, name, scale, int(constants[f"{name}_zero_point"]))
            for name, scale in (("a", ratio(constants)), ("b", 1.0))
        ]
        self.quantized(step, self.node("Mul", parts, f"{step.node.name}/y"), int(constants["y_zero_point"]))

    def average_pool(self, step: Step, geometry: Mapping[str, Any]) -> None:
        """Write a NestedAveragePool."""
        constants = self.plan.graph.constants(step.node)
        x = self.dequantized(step, "x", mean_ratio(step, constants), int(constants["x_zero_point"]))
        operator = "AveragePool" if geometry else "GlobalAveragePool"
        y = self.node(operator, [x], f"{step.node.name}/y", **geometry)
        self.quantized(step, y, int(constants["y_zero_point"]))

    def _operands(self, step: Step, layer: StandardLayer) -> list[str]:
        name = step.node.name
        weights = self.weights(step, layer)
        zeros = self.constant(f"{name}/bias_zero_points", np.zeros(len(layer.bias), np.int32))
        bias = [self.bias(step, layer), weights[1], zeros]
        return [
            self.dequantized(step, "x", 1.0, layer.z_x),
            self.node("DequantizeLinear", weights, f"{name}/w", axis=0),
            self.node("DequantizeLinear", bias, f"{name}/b", axis=0),
        ]


FORMS: Mapping[str, type[_Int8]] = {"QLinear": QLinear, "QDQ": Qdq}
