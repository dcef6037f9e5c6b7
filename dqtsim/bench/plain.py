"""The float32 form of a plan: Conv, Gemm, Add, Relu or Clip, pools; nothing is quantized or rounded.

A tensor's values are scale * (q - z). The scales are chosen so that a residual addition is a plain Add, as in the
network before it was quantized: the factors of its two inputs go into the weights of the layers before.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.model import Array
from ..planner import Plan, Step
from .standard import Form, StandardLayer, mean_ratio, ratio


class _Scales:
    """Scales of tensors known up to a factor: sets of tensors, each with its scale relative to the set's root."""

    def __init__(self) -> None:
        self._up: dict[str, tuple[str, float]] = {}

    def find(self, name: str) -> tuple[str, float]:
        """Return (root of the set of `name`, scale of `name` relative to the root)."""
        scale = 1.0
        while name in self._up:
            name, factor = self._up[name]
            scale *= factor
        return name, scale

    def tie(self, a: str, b: str, factor: float) -> None:
        """Require scale of a = factor * scale of b; tensors already tied stay as they are, and 0 ties nothing."""
        (root_a, scale_a), (root_b, scale_b) = self.find(a), self.find(b)
        if root_a != root_b and factor:
            self._up[root_a] = root_b, factor * scale_b / scale_a


class Float(Form):
    """A plan in float32."""

    codes = np.float32

    def __init__(self, plan: Plan, batch: int = 1) -> None:
        super().__init__(plan, batch)
        self._scales = _scales(plan)

    def scale(self, name: str) -> float:
        """Return the real value of one step of the tensor `name`; that of logits is 1."""
        return self._scales.find(name)[1] if self.plan.types[name].dtype == "uint8" else 1.0

    def constant_codes(self, step: Step, name: str) -> Array:
        """Return the real values of constant codes; they are on the grid of what `step` gives."""
        zero_point = self.plan.graph.quantization[step.node.outputs[0]].zero_point
        values = (super().constant_codes(step, name).astype(np.float64) - zero_point) * self.scale(name)
        return values.astype(np.float32)

    def conv(self, step: Step, layer: StandardLayer, geometry: Mapping[str, Any]) -> None:
        """Write a NestedConv."""
        self._activated(step, layer.z_y, "Conv", self._operands(step, layer), **geometry)

    def gemm(self, step: Step, layer: StandardLayer) -> None:
        """Write a NestedGemm or a NestedLogits."""
        self._activated(step, layer.z_y, "Gemm", self._operands(step, layer), transB=1)

    def add(self, step: Step) -> None:
        """Write a NestedAdd."""
        constants = self.plan.graph.constants(step.node)
        y = self.scale(step.node.outputs[0])
        parts = []
        for name in "ab":
            tensor = step.node.operand(name)
            factor = ratio(constants, f"{name}_multiplier") * y / self.scale(tensor)
            parts.append(self._scaled(tensor, factor, f"{step.node.name}/{name}"))
        self._activated(step, int(constants["y_zero_point"]), "Add", parts)

    def multiply(self, step: Step) -> None:
        """Write a NestedMultiply; its factor goes to b, which is the smaller one."""
        constants = self.plan.graph.constants(step.node)
        a, b = (step.node.operand(role) for role in "ab")
        factor = ratio(constants) * self.scale(step.node.outputs[0]) / (self.scale(a) * self.scale(b))
        parts = [a, self._scaled(b, factor, f"{step.node.name}/b")]
        self._activated(step, int(constants["y_zero_point"]), "Mul", parts)

    def average_pool(self, step: Step, geometry: Mapping[str, Any]) -> None:
        """Write a NestedAveragePool."""
        constants = self.plan.graph.constants(step.node)
        x, y = step.node.operand("x"), step.node.outputs[0]
        factor = mean_ratio(step, constants) * self.scale(y) / self.scale(x)
        source = self._scaled(x, factor, f"{step.node.name}/x")
        operator = "AveragePool" if geometry else "GlobalAveragePool"
        self._activated(step, int(constants["y_zero_point"]), operator, [source], **geometry)

    def requantize(self, step: Step) -> None:
        """Write a NestedRequantize: on real values only its clip remains."""
        constants = self.plan.graph.constants(step.node)
        x, y = step.node.operand("x"), step.node.outputs[0]
        factor = ratio(constants) * self.scale(y) / self.scale(x)
        source = self._scaled(x, factor, f"{step.node.name}/x")
        self._activated(step, int(constants["y_zero_point"]), "Identity", [source])

    def _operands(self, step: Step, layer: StandardLayer) -> list[str]:
        name, x = step.node.name, step.node.operand("x")
        factor = layer.factor * self.scale(step.node.outputs[0])
        per_channel = (factor / self.scale(x)).reshape(-1, *[1] * (layer.weights.ndim - 1))
        return [
            x,
            self.constant(f"{name}/w", (layer.weights * per_channel).astype(np.float32)),
            self.constant(f"{name}/b", (layer.bias * factor).astype(np.float32)),
        ]

    def _scaled(self, tensor: str, factor: float, name: str) -> str:
        """Return `tensor` times `factor`; usually that is `tensor` itself."""
        if abs(factor - 1) < 1e-6:
            return tensor
        return self.node("Mul", [tensor, self.constant(f"{name}/factor", np.float32(factor))], name)

    def _activated(
        self, step: Step, zero_point: int | None, operator: str, inputs: list[str], **attributes: Any
    ) -> None:
        """Write an operator, and after it the clip as it remains in a float network: nothing, Relu or Clip."""
        output = step.node.outputs[0]
        top = (1 << self.plan.machine.n) - 1
        low, high = (0, top) if zero_point is None else (step.node.integer("low"), step.node.integer("high"))
        if zero_point is None or (low == 0 < zero_point and high == top):
            self.node(operator, inputs, output, **attributes)
            return
        inner = self.node(operator, inputs, f"{output}/y", **attributes)
        if low == zero_point and high == top:
            self.node("Relu", [inner], output)
            return
        scale = self.scale(output)
        limits = [
            self.constant(f"{output}/{name}", np.float32((limit - zero_point) * scale))
            for name, limit in (("low", low), ("high", high))
        ]
        self.node("Clip", [inner, *limits], output)


def _scales(plan: Plan) -> _Scales:
    scales = _Scales()
    for step in plan.steps:
        node, y = step.node, step.node.outputs[0]
        if step.call.type.dtype != "uint8" or step.call.bounds:
            continue
        constants = plan.graph.constants(node)
        if node.operator == "NestedAdd":
            for name in "ab":
                scales.tie(node.operand(name), y, ratio(constants, f"{name}_multiplier"))
        elif node.operator == "NestedAveragePool" and not node.form:
            scales.tie(node.operand("x"), y, mean_ratio(step, constants))
        elif node.operator == "NestedRequantize":
            scales.tie(node.operand("x"), y, ratio(constants))
        elif node.operator == "NestedMultiply":
            # no scale of the result makes its factor 1 for all scales of its inputs
            continue
        elif node.domain:
            raise InputError(f"{node.title} has no form in standard operators.")
        else:
            for x in node.inputs:
                if x in plan.types and plan.types[x].dtype == "uint8":
                    scales.tie(x, y, 1.0)
    return scales
