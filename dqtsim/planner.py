"""COMPILE: a graph on a target becomes an ordered list of calls, each with its types and its proofs.

The plan decides everything that can be decided without a picture: shapes and ranges of all tensors, whether the model
fits the target's registers, and how large the accumulators of each layer can get at every pair of widths at which it
may run (B1). The kernels take their fast path only where this proves that no register can overflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from .errors import ModelError, TargetError
from .graph.model import Arithmetic, Array, Graph, Node, Widths
from .graph.schema import NESTED_LAYERS
from .graph.widths import reachable_widths
from .ops import Bound, Bounds, Call, Machine, Operator, TensorType, operator_of
from .ops.nested import layer_bound
from .target import Target


@dataclass(frozen=True)
class Step:
    """One node, ready to run: its operator, its call, and its input types by role."""

    operator: Operator
    call: Call
    input_types: Mapping[str, TensorType]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the node but not its operator: another process has the same operators."""
        return _step, (self.call, dict(self.input_types))

    @property
    def node(self) -> Node:
        """Return the node."""
        return self.call.node

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of one execution, padded taps included."""
        return self.operator.macs(self.node, self.input_types, self.call.type)


def _step(call: Call, input_types: dict[str, TensorType]) -> Step:
    """Return a step from its pickled parts."""
    return Step(operator_of(call.node), call, input_types)


@dataclass(frozen=True, eq=False)
class Plan:
    """A graph compiled for a target: a value, which can be printed, compared and pickled, with the same bits anywhere.

    `types` maps every tensor to its type. A plan holds nothing of the engines that run it.
    """

    graph: Graph
    target: Target
    machine: Machine
    steps: tuple[Step, ...]
    types: Mapping[str, TensorType]
    saturated_biases: Mapping[str, int]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the plan without the values that were computed from it later."""
        return Plan, (self.graph, self.target, self.machine, self.steps, self.types, self.saturated_biases)

    def __eq__(self, other: object) -> bool:
        """Return whether another plan has an equal graph and an equal target; everything else follows from these."""
        if not isinstance(other, Plan):
            return NotImplemented
        return self.target == other.target and self.graph == other.graph

    def __hash__(self) -> int:
        """Return a hash of graph and target."""
        return hash((self.graph, self.target))

    def __repr__(self) -> str:
        """Return one line."""
        return (
            f"<Plan of '{self.graph.name}' for target '{self.target.name}': {len(self.steps)} steps, "
            f"{self.total_macs:,} MACs>"
        )

    def layer_steps(self) -> list[Step]:
        """Return the steps that multiply and accumulate, the controller's included, in execution order."""
        return [step for step in self.steps if step.call.bounds]

    @cached_property
    def macs(self) -> Mapping[str, int]:
        """Multiply-accumulates of each layer, the controller's included."""
        return {step.node.name: step.macs for step in self.layer_steps()}

    @cached_property
    def total_macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(self.macs.values())

    def widest(self) -> dict[str, Widths]:
        """Return for each layer the pair of widths with the largest product among those at which it may run."""
        planned = {step.node.name: step.call.bounds for step in self.layer_steps()}
        return {layer: max(planned[layer], key=lambda pair: pair[0] * pair[1]) for layer in self.graph.layers}

    def proven(self) -> bool:
        """Return whether no accumulator can leave its register, at any of the planned widths."""
        width = self.machine.accumulator_width
        return all(not b.unproven(width).size for step in self.layer_steps() for b in step.call.bounds.values())


def plan(graph: Graph, target: Target) -> Plan:
    """Compile `graph` for `target`.

    Raises ModelError if shapes do not fit together, TargetError if the model needs more than the target has.
    """
    machine = machine_of(graph.arithmetic, target)
    types: dict[str, TensorType] = {
        value.name: TensorType(value.dtype, value.shape, 0, (1 << machine.n) - 1) for value in graph.inputs
    }
    types |= {name: _constant_type(array) for name, array in graph.initializers.items()}
    planned = planned_widths(graph)
    steps = []
    saturated = {}
    for node in graph.nodes:
        operator = operator_of(node)
        inputs = node.operands_in(types)
        constants = graph.constants(node)
        out = operator.infer(node, inputs, constants)
        bounds: Mapping[Widths, Bound] = {}
        if node.operator in NESTED_LAYERS:
            bounds = _bounds(node, constants, inputs["x"], planned[node.name], machine)
            saturated[node.name] = _count_saturated(constants["bias"], machine)
        if node.operator == "Concat":
            _check_concat(graph, node)
        _check_multipliers(graph, node, target)
        types[node.outputs[0]] = out
        steps.append(Step(operator, Call(node, machine, out, bounds), inputs))
    for value in graph.outputs:
        found = types[value.name]
        if (found.dtype, found.shape) != (value.dtype, value.shape):
            raise ModelError(
                f"output '{value.name}' is declared as {value.dtype} {value.shape}; its node gives "
                f"{found.dtype} {found.shape}."
            )
    return Plan(graph, target, machine, tuple(steps), types, saturated)


def machine_of(rules: Arithmetic, target: Target) -> Machine:
    """Return the arithmetic of a model with these rules on `target`."""
    return Machine(
        n=rules.master_width,
        weight_rule=rules.weight_rule,
        activation_rule=rules.activation_rule,
        rounding=target.rounding or rules.rounding,
        accumulator_width=target.accumulator_width,
        overflow=target.overflow,
        tap_order=target.tap_order,
        bias_width=target.bias_width,
        target=target.name,
    )


def planned_widths(graph: Graph) -> dict[str, tuple[Widths, ...]]:
    """Return the pairs of widths at which each nested layer may run, by layer name: all pairs that can reach it.

    Raises ModelError if other than the documented nodes compute the widths, or if a pair does not exist.
    """
    planned = reachable_widths(graph)
    for name, pairs in planned.items():
        for pair in pairs:
            if not all(1 <= width <= graph.arithmetic.master_width for width in pair):
                raise ModelError(
                    f"{graph.node(name).title} runs at widths between 1 and {graph.arithmetic.master_width}; "
                    f"metadata name the pair {pair}."
                )
    return planned


def _bounds(
    node: Node, constants: Mapping[str, Array], x: TensorType, pairs: Sequence[Widths], machine: Machine
) -> Bounds:
    return Bounds(pairs, partial(layer_bound, node, constants, x.low, x.high, machine))


def _constant_type(array: Array) -> TensorType:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    return TensorType(array.dtype.name, array.shape, low, high)


def _count_saturated(bias: Array, machine: Machine) -> int:
    half = 1 << (machine.bias_width - 1)
    return int(np.count_nonzero((bias < -half) | (bias >= half)))


def _check_concat(graph: Graph, node: Node) -> None:
    known = {name: graph.quantization[name] for name in node.inputs if name in graph.quantization}
    if len(set(known.values())) > 1:
        first, second = list(known)[:2]
        raise ModelError(
            f"{node.title} joins codes of one scale and zero point; '{first}' has {known[first].scale[0]:g} and "
            f"{known[first].zero_point}, '{second}' has {known[second].scale[0]:g} and {known[second].zero_point}."
        )


def _check_multipliers(graph: Graph, node: Node, target: Target) -> None:
    for role, name in node.operands.items():
        if not role.endswith("multiplier"):
            continue
        needed = int(graph.initializers[name].max()).bit_length()
        if needed > target.multiplier_width:
            raise TargetError(
                f"target '{target.name}' has a multiplier of {target.multiplier_width} bits; '{name}' of {node.title} "
                f"needs {needed}."
            )
