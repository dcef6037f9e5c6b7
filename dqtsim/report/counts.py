"""Counting a network: every operation, every moved bit, energy and cycles, per node and in total.

Counts are Python ints and exact. The definitions stand in `ops/README.md`; energy is an estimate from a cited table.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ..energy import EnergyTable
from ..graph.model import Graph, Widths
from ..ops.cost import Cost, Primitive, nesting
from ..planner import Plan, Step
from ..target import ArrayMode, Target

WEIGHT_NESTING = (Primitive.WEIGHT_SHIFT, Primitive.WEIGHT_INCREMENT, Primitive.WEIGHT_CLIP, Primitive.WEIGHT_OR)
LAYER, CONTROLLER, OTHER = "layer", "controller", "other"


@dataclass
class Traffic:
    """Bits moved by one node, by what they are and at which width; `weights_kept` is for weights kept nested."""

    weights: Counter[int] = field(default_factory=Counter)
    weights_kept: Counter[int] = field(default_factory=Counter)
    activations_in: Counter[int] = field(default_factory=Counter)
    activations_out: Counter[int] = field(default_factory=Counter)
    tables: int = 0

    def add(self, other: "Traffic") -> None:
        """Add the bits of `other`."""
        for name in ("weights", "weights_kept", "activations_in", "activations_out"):
            getattr(self, name).update(getattr(other, name))
        self.tables += other.tables

    @property
    def total(self) -> int:
        """Return all bits moved when weights are nested on the fly."""
        parts = (self.weights, self.activations_in, self.activations_out)
        return sum(sum(part.values()) for part in parts) + self.tables


@dataclass
class NodeCount:
    """What one node costs in one run."""

    name: str
    operator: str
    kind: str
    widths: Widths | None
    cost: Cost
    traffic: Traffic
    weight_elements: int
    output_elements: int
    output_bits: int
    cycles: int
    energy: dict[str, float]


def count(plan: Plan, bits: Mapping[str, Widths], energy: EnergyTable) -> list[NodeCount]:
    """Return the counts of every node of `plan`, with the layers of `bits` at the widths given there."""
    belongs = controller_nodes(plan.graph)
    counts = []
    for step in plan.steps:
        node = step.node
        pair = _widths(plan, step, bits)
        cost = step.operator.cost(node, step.input_types, step.call.type, plan.machine, pair or (0, 0))
        kind = CONTROLLER if node.name in belongs else LAYER if node.name in plan.graph.layers else OTHER
        traffic = _traffic(plan, step, pair)
        is_layer = bool(step.call.bounds)
        counts.append(
            NodeCount(
                name=node.name,
                operator=node.operator,
                kind=kind,
                widths=pair,
                cost=cost,
                traffic=traffic,
                weight_elements=prod(step.input_types[1].shape) if is_layer else 0,
                output_elements=prod(step.call.type.shape),
                output_bits=_bits_of(plan, step.call.type.dtype),
                cycles=cycles(step, plan.target, pair) if pair else 0,
                energy=_energy(plan, cost, traffic, energy),
            )
        )
    return counts


def controller_nodes(graph: Graph) -> set[str]:
    """Return the nodes that serve only the decision about widths, the plumbing of `bits` included."""
    producers = {node.outputs[0]: node.name for node in graph.nodes}
    inputs_of = {node.name: node.inputs for node in graph.nodes}
    widths = {node.inputs[-1] for node in graph.nodes if node.name in graph.layers}
    data = _above([value.name for value in graph.outputs if value.name != "bits"], producers, inputs_of, stop=widths)
    return {node.name for node in graph.nodes} - data


def _above(
    tensors: Iterable[str], producers: Mapping[str, str], inputs_of: Mapping[str, Sequence[str]], *, stop: set[str]
) -> set[str]:
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        node = producers.get(tensor)
        if node is None or node in found or tensor in stop:
            continue
        found.add(node)
        waiting += inputs_of[node]
    return found


def cycles(step: Step, target: Target, pair: Widths) -> int:
    """Return ceil(P/R) * ceil(N/C) * (K * steps + R + 1) of a layer on the target's R x C array.

    P output positions, N output channels per group, K taps; a step takes 1 cycle (PARALLEL), b_a (ACTIVATION_SERIAL) or
    ceil(b_a/2) * ceil(b_w/2) (DIGIT_SERIAL). Groups run one after another.
    """
    b_w, b_a = pair
    output, weight = step.call.type.shape, step.input_types[1].shape
    group = step.node.integer("group") if "group" in step.node.attributes else 1
    positions, channels, taps = prod(output[2:]), output[1] // group, prod(weight[1:])
    steps = {
        ArrayMode.PARALLEL: 1,
        ArrayMode.ACTIVATION_SERIAL: b_a,
        ArrayMode.DIGIT_SERIAL: -(-b_a // 2) * -(-b_w // 2),
    }[target.mode]
    tiles = -(-positions // target.rows) * -(-channels // target.columns)
    return group * tiles * (taps * steps + target.rows + 1)


def kept_nesting(plan: Plan, before: Sequence[Widths] | None, now: Sequence[Widths]) -> Counter[Primitive]:
    """Return the weight nesting of one input when nested weights are kept from the input `before` it.

    Only layers whose weight width changed pay; without a predecessor every layer below the master width does.
    """
    total: Counter[Primitive] = Counter()
    steps = {step.node.name: step for step in plan.layer_steps()}
    for row, layer in enumerate(plan.graph.layers):
        if before is None or before[row][0] != now[row][0]:
            elements = prod(steps[layer].input_types[1].shape)
            total.update(nesting(elements, now[row][0], plan.machine.n, plan.machine.weight_rule, weights=True))
    return total


def totals(counts: Iterable[NodeCount], kind: str | None = None) -> tuple[Cost, Traffic, int, dict[str, float]]:
    """Return the summed cost, traffic, cycles and energy of the nodes of one kind, or of all."""
    cost, traffic, cycle, energy = Cost(), Traffic(), 0, Counter[str]()
    for item in counts:
        if kind is None or item.kind == kind:
            cost.add(item.cost)
            traffic.add(item.traffic)
            cycle += item.cycles
            energy.update(item.energy)
    return cost, traffic, cycle, dict(energy)


def storage(plan: Plan) -> dict[str, int]:
    """Return the bits that the network occupies: master weights, and the rows of (B, M, S)."""
    weights = tables = 0
    for step in plan.layer_steps():
        weights += prod(step.input_types[1].shape) * plan.machine.n
        rows = len(step.node.integers("row_widths"))
        tables += rows * _row_bits(plan, step)
    return {"weights": weights, "tables": tables}


def _widths(plan: Plan, step: Step, bits: Mapping[str, Widths]) -> Widths | None:
    if not step.call.bounds:
        return None
    if step.node.name in bits:
        return bits[step.node.name]
    return plan.machine.n, plan.machine.n


def _row_bits(plan: Plan, step: Step) -> int:
    """Return the bits of one row of a layer: a bias, and where it requantizes a multiplier and a 6-bit shift."""
    per_channel = plan.target.bias_width
    if step.node.operator != "NestedLogits":
        per_channel += plan.target.multiplier_width + 6
    return step.input_types[1].shape[0] * per_channel


def _bits_of(plan: Plan, dtype: str) -> int:
    return {"uint8": plan.machine.n, "int32": 32, "int64": 64}[dtype]


def _traffic(plan: Plan, step: Step, pair: Widths | None) -> Traffic:
    traffic, n = Traffic(), plan.machine.n
    if not step.node.domain and step.node.operator not in ("MaxPool",):
        return traffic
    elements_out = prod(step.call.type.shape)
    out_bits = _bits_of(plan, step.call.type.dtype)
    traffic.activations_out[out_bits] += elements_out * out_bits
    if pair:
        weights = prod(step.input_types[1].shape)
        traffic.weights[n] += weights * n
        traffic.weights_kept[pair[0]] += weights * pair[0]
        traffic.activations_in[n] += prod(step.input_types[0].shape) * n
        traffic.tables += _row_bits(plan, step)
    else:
        for kind in step.input_types[: 2 if step.node.operator == "NestedAdd" else 1]:
            traffic.activations_in[n] += prod(kind.shape) * n
    return traffic


def _energy(plan: Plan, cost: Cost, traffic: Traffic, table: EnergyTable) -> dict[str, float]:
    """Return pJ by what takes it: MACs, nesting, everything after the accumulator, and memory."""
    register, n = plan.target.accumulator_width, plan.machine.n
    wide = register + plan.target.multiplier_width
    macs = sum(
        times * (table.multiplication(b_w, b_a) + table.addition(register)) for (b_w, b_a), times in cost.macs.items()
    )
    nest = after = 0.0
    for primitive, times in cost.primitives.items():
        if primitive.value.startswith(("weight_nest", "activation_nest")):
            nest += times * table.addition(n)
        elif primitive == Primitive.REQUANTIZE_MULTIPLY:
            after += times * table.multiplication(register, plan.target.multiplier_width)
        elif primitive == Primitive.RESIDUAL_MULTIPLY:
            after += times * table.multiplication(n, plan.target.multiplier_width)
        elif primitive in (Primitive.REQUANTIZE_ADD, Primitive.REQUANTIZE_SHIFT, Primitive.RESIDUAL_ADD):
            after += times * table.addition(wide)
        elif primitive in (Primitive.REQUANTIZE_CLIP, Primitive.COMPARE):
            after += times * table.addition(n)
        else:
            after += times * table.addition(register)
    activations = sum(traffic.activations_in.values()) + sum(traffic.activations_out.values())
    memory = (
        table.traffic(sum(traffic.weights.values()), "weights")
        + table.traffic(activations, "activations")
        + table.traffic(traffic.tables, "tables")
    )
    return {"macs": macs, "nesting": nest, "requantize": after, "memory": memory}
