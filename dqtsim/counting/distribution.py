"""Counts over many pictures: how BitOPs, energy, cycles and widths are distributed when the controller decides.

The counts of a node depend only on its own widths, so every node is counted once for each pair of widths that occurs,
and a picture needs only its widths. Sums are exact (integers and fractions) until a number is shown.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..energy import EnergyTable
from ..graph.model import Widths
from ..ops.primitives import WEIGHT_NESTING, Primitive
from ..planner import Plan
from .counts import CONTROLLER, LAYER, OTHER, NodeCount, average_width, count, kept_nesting

PERCENTILES = (5, 25, 50, 75, 95)
RULE = "nearest rank: the smallest value that at least so many percent of the pictures do not exceed"
KIND_NAMES = {CONTROLLER: "controller", OTHER: "adds, pools, moves"}
Setting = tuple[Widths, ...]
Number = int | Fraction


@dataclass(frozen=True)
class Spread:
    """How a number is distributed over pictures; `deviation` is that of the whole population."""

    sum: Number
    mean: float
    deviation: float
    lowest: Number
    percentiles: Mapping[int, Number]
    highest: Number


@dataclass(frozen=True)
class RowSpread:
    """The cost of one layer, or of the whole network; `width` is None for a row without layers."""

    name: str
    bitops: Spread
    energy: Spread
    cycles: Spread
    width: Spread | None


def spread(times: Mapping[Number, int]) -> Spread:
    """Return the distribution of values, given how many pictures have each (at least one)."""
    pictures = sum(times.values())
    total = sum((value * n for value, n in times.items()), start=0)
    squares = sum((value * value * n for value, n in times.items()), start=0)
    ordered = sorted(times)
    reached, ranks = 0, {}
    waiting = list(PERCENTILES)
    for value in ordered:
        reached += times[value]
        while waiting and 100 * reached >= waiting[0] * pictures:
            ranks[waiting.pop(0)] = value
    return Spread(
        sum=total,
        mean=float(Fraction(total) / pictures),
        deviation=math.sqrt(pictures * squares - total * total) / pictures,
        lowest=ordered[0],
        percentiles=ranks,
        highest=ordered[-1],
    )


class Distribution:
    """The counts of many pictures under one policy; `add` takes the widths that each picture ran at, in order."""

    def __init__(self, plan: Plan, energy: EnergyTable) -> None:
        self.plan = plan
        self.energy = energy
        self.order: list[Setting] = []
        self._counts: dict[Widths, dict[str, NodeCount]] = {}

    def add(self, bits: Setting) -> None:
        """Count one picture."""
        self.order.append(bits)

    @property
    def settings(self) -> Counter[Setting]:
        """Return how many pictures ran at each setting of all widths."""
        return Counter(self.order)

    def histograms(self) -> dict[str, Counter[Widths]]:
        """Return how many pictures ran each layer at which widths."""
        columns = zip(*self.order, strict=True)
        return {layer: Counter(column) for layer, column in zip(self.plan.graph.layers, columns, strict=True)}

    def node_counts(self, bits: Setting) -> list[NodeCount]:
        """Return the counts of every node for a picture that ran at `bits`: those of `counts.count`."""
        layers = dict(zip(self.plan.graph.layers, bits, strict=True))
        first = bits[0] if bits else (self.plan.machine.n,) * 2
        return [self._node(step.node.name, layers.get(step.node.name, first)) for step in self.plan.steps]

    def _node(self, name: str, pair: Widths) -> NodeCount:
        if pair not in self._counts:
            everywhere = dict.fromkeys(self.plan.graph.layers, pair)
            self._counts[pair] = {item.name: item for item in count(self.plan, everywhere, self.energy)}
        return self._counts[pair][name]

    def total(self) -> RowSpread:
        """Return the distribution of the whole network."""
        bitops, energy, cycles, width = (Counter[Number]() for _ in range(4))
        for bits, times in self.settings.items():
            counts = self.node_counts(bits)
            bitops[sum(item.cost.bitops for item in counts)] += times
            energy[Fraction(picojoule(counts))] += times
            cycles[sum(item.cycles for item in counts)] += times
            width[average_width(bits)] += times
        return RowSpread("total", spread(bitops), spread(energy), spread(cycles), spread(width))

    def rows(self) -> list[RowSpread]:
        """Return the distribution of every layer, then of the controller and of all other nodes, if there are any."""
        rows = []
        for layer, chosen in self.histograms().items():
            items = {pair: self._node(layer, pair) for pair in chosen}
            rows.append(
                RowSpread(
                    layer,
                    _weighted(chosen, {pair: item.cost.bitops for pair, item in items.items()}),
                    _weighted(chosen, {pair: Fraction(sum(item.energy.values())) for pair, item in items.items()}),
                    _weighted(chosen, {pair: item.cycles for pair, item in items.items()}),
                    _weighted(chosen, {pair: average_width((pair,)) for pair in items}),
                )
            )
        for kind, name in KIND_NAMES.items():
            members = [item for item in self.node_counts(self.order[0]) if item.kind == kind]
            if members:
                bitops = spread({sum(item.cost.bitops for item in members): len(self.order)})
                energy = spread({Fraction(picojoule(members)): len(self.order)})
                cycles = spread({sum(item.cycles for item in members): len(self.order)})
                rows.append(RowSpread(name, bitops, energy, cycles, None))
        return rows

    def mean_energy(self) -> dict[str, dict[str, float]]:
        """Return the mean pJ of every row of `rows`, by consumer."""
        pictures = len(self.order)
        means: dict[str, dict[str, float]] = {}
        for layer, chosen in self.histograms().items():
            parts = Counter[str]()
            for pair, times in chosen.items():
                parts.update({part: times * pj for part, pj in self._node(layer, pair).energy.items()})
            means[layer] = {part: pj / pictures for part, pj in parts.items()}
        for kind, name in KIND_NAMES.items():
            parts = Counter()
            members = [item for item in self.node_counts(self.order[0]) if item.kind == kind]
            for item in members:
                parts.update(item.energy)
            if members:
                means[name] = dict(parts)
        return means

    def nesting_on_the_fly(self) -> Counter[Primitive]:
        """Return the weight nesting of all pictures if every picture nests the master weights again."""
        total = Counter[Primitive]()
        for bits, times in self.settings.items():
            for item in self.node_counts(bits):
                if item.kind == LAYER:
                    for primitive in WEIGHT_NESTING:
                        total[primitive] += times * item.cost.primitives[primitive]
        return +total

    def nesting_kept(self) -> Counter[Primitive]:
        """Return the weight nesting of all pictures, in order, if nested weights are kept between pictures."""
        total = Counter[Primitive]()
        steps = Counter(zip([None, *self.order], self.order, strict=False))
        for (before, now), times in steps.items():
            for primitive, n in kept_nesting(self.plan, before, now).items():
                total[primitive] += times * n
        return +total


def picojoule(counts: Sequence[NodeCount]) -> float:
    """Return the energy of all nodes, added up as `counts.totals` does."""
    parts = Counter[str]()
    for item in counts:
        parts.update(item.energy)
    return sum(parts.values())


def _weighted(chosen: Counter[Widths], values: Mapping[Widths, Number]) -> Spread:
    times = Counter[Number]()
    for pair, n in chosen.items():
        times[values[pair]] += n
    return spread(times)
