"""Counting a network: every operation, every moved bit, energy and cycles, per node and in total.

Counts are Python ints and exact. The definitions stand in `ops/README.md`; energy is an estimate from a cited table.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import NamedTuple, assert_never

from ..energy import EnergyTable
from ..graph.model import Graph, Widths
from ..graph.rows import rows_of
from ..graph.schema import SCHEMAS, Input
from ..ops.cost import nesting
from ..ops.primitives import Cost, Operation, Primitive, Size
from ..planner import Plan, Step
from ..target import ArrayMode, Target

LAYER, CONTROLLER, OTHER = "layer", "controller", "other"


@dataclass
class Traffic:
    """Bits moved by one node, by kind and width; `weights_kept` is for weights kept nested."""

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
    """The cost of one node in one run."""

    name: str
    operator: str
    kind: str
    widths: Widths | None
    cost: Cost
    traffic: Traffic
    weight_elements: int
    output_elements: int
    accumulator_bits: int
    cycles: int
    energy: dict[str, float]


def count(plan: Plan, bits: Mapping[str, Widths], energy: EnergyTable) -> list[NodeCount]:
    """Return the counts of every node of `plan`, with the layers of `bits` at the widths given there."""
    belongs = controller_nodes(plan.graph) if plan.graph.dynamic else set()
    counts = []
    for step in plan.steps:
        node = step.node
        pair = _widths(plan, step, bits)
        constants = plan.graph.constants(node)
        cost = step.operator.cost(node, step.input_types, constants, step.call.type, plan.machine, pair or (0, 0))
        kind = CONTROLLER if node.name in belongs else LAYER if node.name in plan.graph.layers else OTHER
        traffic = _traffic(plan, step, pair, cost)
        is_layer = bool(step.call.bounds)
        counts.append(
            NodeCount(
                name=node.name,
                operator=node.operator,
                kind=kind,
                widths=pair,
                cost=cost,
                traffic=traffic,
                weight_elements=prod(step.input_types["w"].shape) if is_layer else 0,
                output_elements=prod(step.call.type.shape),
                accumulator_bits=plan.machine.accumulator_width,
                cycles=cycles(step, plan.target, pair) if pair else 0,
                energy=_energy(plan, cost, traffic, energy),
            )
        )
    return counts


def controller_nodes(graph: Graph) -> set[str]:
    """Return the nodes that serve only the decision about widths, including those that compute `bits`."""
    producers = {node.outputs[0]: node.name for node in graph.nodes}
    inputs_of = {node.name: node.inputs for node in graph.nodes}
    widths = {node.operand("widths") for node in graph.nodes if node.name in graph.layers}
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
    output, weight = step.call.type.shape, step.input_types["w"].shape
    group = step.node.integer("group") if "group" in step.node.attributes else 1
    positions, channels, taps = prod(output[2:]), output[1] // group, prod(weight[1:])
    match target.mode:
        case ArrayMode.PARALLEL:
            steps = 1
        case ArrayMode.ACTIVATION_SERIAL:
            steps = b_a
        case ArrayMode.DIGIT_SERIAL:
            steps = -(-b_a // 2) * -(-b_w // 2)
        case _:
            assert_never(target.mode)
    tiles = -(-positions // target.rows) * -(-channels // target.columns)
    return group * tiles * (taps * steps + target.rows + 1)


def kept_nesting(plan: Plan, before: Sequence[Widths] | None, now: Sequence[Widths]) -> Counter[Primitive]:
    """Return the weight nesting of one input if nested weights are kept from the previous input, at widths `before`.

    Only layers whose weight width changed pay. A change to the master width costs nothing, because the master stays in
    memory. Without a previous input every layer below the master width pays.
    """
    total: Counter[Primitive] = Counter()
    steps = {step.node.name: step for step in plan.layer_steps()}
    for row, layer in enumerate(plan.graph.layers):
        if before is None or before[row][0] != now[row][0]:
            elements = prod(steps[layer].input_types["w"].shape)
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


def average_width(bits: Sequence[Widths]) -> Fraction:
    """Return the mean width of weights and activations over the layers, each layer counted once (as eq. 11 does)."""
    return Fraction(sum(b_w + b_a for b_w, b_a in bits), 2 * len(bits))


def storage(plan: Plan) -> dict[str, int]:
    """Return the bits that the network occupies: master weights, and the rows of (B, M, S)."""
    weights = tables = 0
    for step in plan.layer_steps():
        weights += prod(step.input_types["w"].shape) * plan.machine.n
        tables += len(rows_of(step.node, plan.graph.constants(step.node))) * _row_bits(plan, step)
        tables += _padding_bits(plan, step)
    return {"weights": weights, "tables": tables + storage_of_codes(plan)}


def storage_of_codes(plan: Plan) -> int:
    """Return the bits of the non-scalar constants of operators that are not layers: codes (B9), multipliers (B6')."""
    steps = (step for step in plan.steps if step.node.domain and not step.call.bounds)
    return sum(_table_bits(plan, step, entry) for step in steps for entry in _tables_of(step))


def _tables_of(step: Step) -> list[Input]:
    """Return the non-scalar constants of an operator of the domain."""
    schema = SCHEMAS[step.node.domain, step.node.operator]
    return [entry for entry in schema.inputs_of(step.node.form) if entry.constant and entry.shape]


def _table_bits(plan: Plan, step: Step, entry: Input) -> int:
    """Return the bits of one of `_tables_of`."""
    width = plan.target.multiplier_width if entry.name == "multiplier" else plan.machine.n
    return prod(step.input_types[entry.name].shape) * width


def _widths(plan: Plan, step: Step, bits: Mapping[str, Widths]) -> Widths | None:
    if not step.call.bounds:
        return None
    if step.node.name in bits:
        return bits[step.node.name]
    return plan.machine.n, plan.machine.n


def _row_bits(plan: Plan, step: Step) -> int:
    """Return the bits of one row of a layer: a bias, and, if it requantizes, a multiplier and a 6-bit shift."""
    per_channel = plan.target.bias_width
    if step.node.operator != "NestedLogits":
        per_channel += plan.target.multiplier_width + 6
    return step.input_types["w"].shape[0] * per_channel


def _padding_bits(plan: Plan, step: Step) -> int:
    """Return the bits of the padding codes of a layer, if it has any (B1')."""
    return prod(step.input_types["padding"].shape) * plan.machine.n if "padding" in step.node.form else 0


def _bits_of(plan: Plan, dtype: str) -> int:
    return {"uint8": plan.machine.n, "int32": 32, "int64": 64}[dtype]


def _traffic(plan: Plan, step: Step, pair: Widths | None, cost: Cost) -> Traffic:
    traffic, n = Traffic(), plan.machine.n
    if not step.node.domain and step.node.operator not in ("MaxPool",):
        return traffic
    elements_out = prod(step.call.type.shape)
    out_bits = _bits_of(plan, step.call.type.dtype)
    traffic.activations_out[out_bits] += elements_out * out_bits
    if pair:
        weights = prod(step.input_types["w"].shape)
        traffic.weights[n] += weights * n
        traffic.weights_kept[pair[0]] += weights * pair[0]
        traffic.activations_in[n] += prod(step.input_types["x"].shape) * n
        traffic.tables += _row_bits(plan, step) + _padding_bits(plan, step)
    else:
        for entry in SCHEMAS[step.node.domain, step.node.operator].inputs_of(step.node.form):
            if not entry.constant:
                traffic.activations_in[n] += prod(step.input_types[entry.name].shape) * n
        # a multiplier per position is read once; of tables of codes only the entries that are looked up
        multipliers = [entry for entry in _tables_of(step) if entry.name == "multiplier"]
        traffic.tables += sum(_table_bits(plan, step, entry) for entry in multipliers)
    for primitive, times in cost.primitives.items():
        if _is_read(primitive):
            traffic.tables += times * prod(_widths_of(plan, primitive))
    return traffic


class Figure(NamedTuple):
    """The energy of one addition or multiplication of some widths, and whether it is read from the source."""

    operation: str
    bits: tuple[int, ...]
    picojoule: float
    read: bool


def figures(plan: Plan, counts: Iterable[NodeCount], table: EnergyTable) -> list[Figure]:
    """Return every energy figure that the counts use; those that are not read are interpolated."""
    used: set[tuple[str, tuple[int, ...]]] = set()
    for item in counts:
        used |= {("multiply", pair) for pair in item.cost.macs}
        used |= {("add", (plan.target.accumulator_width,)) for _ in item.cost.macs}
        used |= {(name.operation, _widths_of(plan, name)) for name in item.cost.primitives if not _is_read(name)}
    return [_figure(table, operation, bits) for operation, bits in sorted(used)]


def _width(plan: Plan, size: Size) -> int:
    """Return the width in bits of one part of a primitive on the plan's target."""
    match size:
        case Size.CODE:
            return plan.machine.n
        case Size.REGISTER:
            return plan.target.accumulator_width
        case Size.MULTIPLIER:
            return plan.target.multiplier_width
        case Size.PRODUCT:
            return plan.target.accumulator_width + plan.target.multiplier_width
        case _:
            assert_never(size)


def _widths_of(plan: Plan, primitive: Primitive) -> tuple[int, ...]:
    return tuple(_width(plan, size) for size in primitive.sizes)


def _is_read(primitive: Primitive) -> bool:
    """Return whether a primitive reads a table; its energy is then that of the traffic."""
    match primitive.operation:
        case Operation.ADD | Operation.MULTIPLY:
            return False
        case Operation.READ:
            return True
        case _:
            assert_never(primitive.operation)


def _figure(table: EnergyTable, operation: str, bits: tuple[int, ...]) -> Figure:
    if operation == "multiply":
        return Figure(operation, bits, table.multiplication(*bits), table.reads_multiplication(*bits))
    return Figure(operation, bits, table.addition(*bits), table.reads_addition(*bits))


def _energy(plan: Plan, cost: Cost, traffic: Traffic, table: EnergyTable) -> dict[str, float]:
    """Return pJ by consumer: MACs, nesting, everything after the accumulator, and memory."""
    addition = table.addition(plan.target.accumulator_width)
    macs = sum(times * (table.multiplication(b_w, b_a) + addition) for (b_w, b_a), times in cost.macs.items())
    energy = {"macs": macs, "nesting": 0.0, "requantize": 0.0}
    for primitive, times in cost.primitives.items():
        if not _is_read(primitive):
            figure = _figure(table, primitive.operation, _widths_of(plan, primitive))
            energy[primitive.part] += times * figure.picojoule
    activations = sum(traffic.activations_in.values()) + sum(traffic.activations_out.values())
    energy["memory"] = (
        table.traffic(sum(traffic.weights.values()), "weights")
        + table.traffic(activations, "activations")
        + table.traffic(traffic.tables, "tables")
    )
    return energy
