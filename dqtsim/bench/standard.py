"""A plan in standard operators, so that another runtime can do the same work: the shared parts of all forms.

Codes of all tensors have scale 1, because every ratio of scales is in a layer's M * 2^-S. The weights of a layer are
nested already and put back on the master scale, so that bias, multiplier and shift keep their meaning; activations are
not nested, because that would only cost the other runtime time. In a dynamic model layers have the master width, and
the controller's multiplications stay part of the work.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import spec
from ..errors import InputError
from ..graph.file.bodies import IR_VERSION, OPSET
from ..graph.model import Array, Widths
from ..graph.rows import Rows, rows_of
from ..planner import Plan, Step

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, eq=False)
class StandardLayer:
    """A layer that multiplies and accumulates, at the widths of its plan.

    weights int16 (O, ...): operands in master steps, -128 to 127. bias int32 (O): in products of master steps.
    factor float64 (O): M * 2^-S of the row in use, 1 for logits. z_x, z_y: master zero points, z_y None for logits.
    """

    weights: Array
    bias: Array
    factor: Array
    z_x: int
    z_y: int | None


def layer_of(plan: Plan, step: Step) -> StandardLayer:
    """Return the constants of the nested layer `step`. Raises InputError for a form without a counterpart."""
    machine, node = plan.machine, step.node
    lacking = [part for part in node.form if part in ("windows", "padding")]
    if lacking:
        raise InputError(f"{node.title} has no form in standard operators with {' and '.join(lacking)}.")
    n, rule = machine.n, machine.weight_rule
    constants = plan.graph.constants(node)
    pairs = list(step.call.bounds)
    b_w, b_a = pairs[0] if len(pairs) == 1 else (n, n)
    z_w, exponent = spec.master_zero_point_of_weights(n), spec.exponent(b_w, n, rule)
    if spec.takes_half(b_w, n, rule):
        raise InputError(f"{node.title} has no form in standard operators with {rule} weights of {b_w} bits.")
    values = np.array([spec.operand(q, z_w, b_w, n, rule) << exponent for q in range(1 << n)], np.int16)
    row = row_of(rows_of(node, constants), (b_w, b_a))
    half = 1 << (min(machine.bias_width, 32) - 1)
    bias = np.clip(constants["bias"][row], -half, half - 1).astype(np.int32)
    factor, z_y = np.ones(len(bias)), None
    if "multiplier" in constants:
        factor = np.ldexp(constants["multiplier"][row].astype(np.float64), -constants["shift"][row])
        z_y = int(constants["y_zero_point"])
    return StandardLayer(values[constants["w"]], bias, factor, int(constants["x_zero_point"]), z_y)


def row_of(rows: Rows, pair: Widths) -> int:
    """Return the row of (B, M, S) of a layer at a pair of widths (B3', B3'')."""
    return spec.select_pair_row(*pair, rows.pairs) if rows.pairs else spec.select_row(*pair, rows.widths)


def ratio(constants: Mapping[str, Array], multiplier: str = "multiplier") -> float:
    """Return M * 2^-S of an operator that has one."""
    return float(np.ldexp(float(constants[multiplier]), -int(constants["shift"])))


def mean_ratio(step: Step, constants: Mapping[str, Array]) -> float:
    """Return the value of one step of a window's mean: an average pool's multiplier carries 1 / area (B6)."""
    return ratio(constants) * int(np.prod(step.node.pair("kernel_shape")))


def is_global(step: Step) -> bool:
    """Return whether a pool has one window, which is the whole picture."""
    return not any(step.node.integers("pads")) and step.node.pair("kernel_shape") == step.input_types["x"].shape[2:]


class Form(ABC):
    """A plan written in standard operators for a batch; subclasses say how each nested operator is written."""

    codes: type[np.uint8] | type[np.float32]

    def __init__(self, plan: Plan, batch: int = 1) -> None:
        self.plan = plan
        self.batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._left_out: set[str] = set(plan.graph.initializers)

    def model(self) -> "onnx.ModelProto":
        """Return the ONNX model: codes (N, ...) in, logits as float32 (N, classes) out, the controller's included.

        Raises InputError where an operator mixes the samples of a batch.
        """
        from onnx import helper

        graph = self.plan.graph
        for step in self.plan.steps:
            # the choice of widths multiplies nothing, and nothing here depends on it
            if self._left_out.issuperset(step.node.inputs) or graph.controller in step.node.inputs:
                self._left_out.add(step.node.outputs[0])
            else:
                self._write(step)
        names = [value.name for value in graph.outputs] + [graph.controller] * graph.dynamic
        outputs = [self._value(name) for name in dict.fromkeys(names) if name not in self._left_out]
        made = helper.make_graph(
            self._nodes, graph.name, [self._value(graph.input.name)], outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="dqtsim")

    def constant(self, name: str, array: Any) -> str:
        """Add the initializer `name` if it is new, and return its name."""
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = f"{output}/{operator}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name, domain=domain, **attributes))
        return output

    def constant_codes(self, step: Step, name: str) -> Array:
        """Return the constant codes `name` that `step` joins to others, for each sample of the batch."""
        return np.repeat(self.plan.graph.initializers[name], self.batch, axis=0)

    @abstractmethod
    def conv(self, step: Step, layer: StandardLayer, geometry: Mapping[str, Any]) -> None:
        """Write a NestedConv."""

    @abstractmethod
    def gemm(self, step: Step, layer: StandardLayer) -> None:
        """Write a NestedGemm or, with `layer.z_y` None, a NestedLogits."""

    @abstractmethod
    def add(self, step: Step) -> None:
        """Write a NestedAdd."""

    @abstractmethod
    def multiply(self, step: Step) -> None:
        """Write a NestedMultiply."""

    @abstractmethod
    def average_pool(self, step: Step, geometry: Mapping[str, Any]) -> None:
        """Write a NestedAveragePool; `geometry` is empty if its window is the whole picture."""

    @abstractmethod
    def requantize(self, step: Step) -> None:
        """Write a NestedRequantize."""

    def _write(self, step: Step) -> None:
        node = step.node
        match node.operator:
            case "NestedConv":
                geometry: dict[str, Any] = {key: node.integers(key) for key in ("strides", "pads", "dilations")}
                geometry |= {"group": node.integer("group"), "kernel_shape": step.input_types["w"].shape[2:]}
                self.conv(step, layer_of(self.plan, step), geometry)
            case "NestedGemm" | "NestedLogits":
                self.gemm(step, layer_of(self.plan, step))
            case "NestedAdd":
                self.add(step)
            case "NestedMultiply":
                self.multiply(step)
            case "NestedAveragePool" if not node.form:
                keys = () if is_global(step) else ("kernel_shape", "strides", "pads")
                # the area is that of the whole window, padding included (B6)
                shared = {"count_include_pad": 1} if keys else {}
                self.average_pool(step, {**{key: node.integers(key) for key in keys}, **shared})
            case "NestedRequantize":
                self.requantize(step)
            case "Flatten" | "Reshape" | "Identity":
                shape = self.constant(f"{node.name}/shape", np.array(self._shape(node.outputs[0]), np.int64))
                self.node("Reshape", [node.source, shape], node.outputs[0])
            case _ if node.domain:
                raise InputError(f"{node.title} has no form in standard operators.")
            case _:
                self._copy(step)

    def _copy(self, step: Step) -> None:
        """Write a standard operator as it is: it moves or compares values, codes or not."""
        node = step.node
        axes = [int(axis) for axis in np.ravel(node.attributes.get("axis", ()))]
        if node.operator == "Slice":
            axes = self.plan.graph.constants(node)["axes"].tolist()
        rank = len(self.plan.types[node.source].shape)
        if self.batch > 1 and (
            any(axis % rank == 0 for axis in axes)
            or (node.operator == "Transpose" and node.integers("perm")[0])
            or (node.operator == "Gather" and node.source in self._left_out)
        ):
            raise InputError(f"{node.title} mixes the samples of a batch in other runtimes; use --batch 1.")
        for name in node.inputs:
            if name in self.plan.graph.initializers:
                array = self.plan.graph.initializers[name]
                self.constant(name, self.constant_codes(step, name) if array.dtype == np.uint8 else array)
        attributes: dict[str, Any] = {key: value for key, value in node.attributes.items() if value != "NOTSET"}
        self.node(node.operator, node.inputs, node.outputs[0], **attributes)

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.plan.types[name].shape
        if self.batch > 1 and shape[:1] != (1,):
            raise InputError(f"tensor '{name}' of shape {shape} has no samples in other runtimes; use --batch 1.")
        return (self.batch * shape[0], *shape[1:]) if shape else shape

    def _value(self, name: str) -> "onnx.ValueInfoProto":
        from onnx import helper

        kinds = {"uint8": np.dtype(self.codes), "int32": np.dtype(np.float32), "int64": np.dtype(np.int64)}
        dtype = helper.np_dtype_to_tensor_dtype(kinds[self.plan.types[name].dtype])
        return helper.make_tensor_value_info(name, dtype, self._shape(name))
