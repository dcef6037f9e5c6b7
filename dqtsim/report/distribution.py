"""Counts over many pictures: how BitOPs, energy, cycles and widths are distributed when the controller decides.

The counts of a node depend only on its own widths, so every node is counted once for each pair of widths that occurs;
a picture adds its widths and nothing else. Sums are exact, integers and fractions, until a number is shown.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..dataset import Split, read_split
from ..energy import EnergyTable
from ..errors import InputError
from ..graph.model import Graph, Widths
from ..ops.cost import Primitive
from ..planner import Plan
from .counts import CONTROLLER, LAYER, OTHER, WEIGHT_NESTING, NodeCount, count, kept_nesting
from .runs import giga, widths_text

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
    """What one layer, or the whole network, takes; `width` is None for a row without layers."""

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
        """Return the distribution of every layer, then of the controller and of what is no layer where there is any."""
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
        """Return the mean pJ of every row of `rows`, by what takes it."""
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
        """Return the weight nesting of all pictures when every picture nests the master weights anew."""
        total = Counter[Primitive]()
        for bits, times in self.settings.items():
            for item in self.node_counts(bits):
                if item.kind == LAYER:
                    for primitive in WEIGHT_NESTING:
                        total[primitive] += times * item.cost.primitives[primitive]
        return +total

    def nesting_kept(self) -> Counter[Primitive]:
        """Return the weight nesting of all pictures when nested weights stay from one picture to the next, in order."""
        total = Counter[Primitive]()
        steps = Counter(zip([None, *self.order], self.order, strict=False))
        for (before, now), times in steps.items():
            for primitive, n in kept_nesting(self.plan, before, now).items():
                total[primitive] += times * n
        return +total


def average_width(bits: Setting) -> Fraction:
    """Return the mean width of weights and activations over the layers, each layer counted once (as eq. 11 does)."""
    return Fraction(sum(b_w + b_a for b_w, b_a in bits), 2 * len(bits))


def picojoule(counts: Sequence[NodeCount]) -> float:
    """Return the energy of all nodes, added up as `counts.totals` does."""
    parts = Counter[str]()
    for item in counts:
        parts.update(item.energy)
    return sum(parts.values())


def labelled_pictures(graph: Graph, folder: Path, limit: int | None) -> Split:
    """Return the first `limit` test pictures of a data folder whose classes are the model's. Raises InputError."""
    split = read_split(folder, "test")
    if graph.class_names and graph.class_names != split.class_names:
        raise InputError(f"the classes of '{folder}' are {split.class_names}; the model's are {graph.class_names}.")
    return Split(split.images[:limit], split.labels[:limit], split.class_names, split.name)


def _weighted(chosen: Counter[Widths], values: Mapping[Widths, Number]) -> Spread:
    times = Counter[Number]()
    for pair, n in chosen.items():
        times[values[pair]] += n
    return spread(times)


def print_distribution(console: Console, found: Distribution, title: str) -> None:
    """Print how the whole network and each layer are distributed, and what keeping nested weights would save."""
    pictures = len(found.order)
    total = found.total()
    console.print(f"{title}: {pictures:,} pictures, {len(found.settings):,} different settings")
    table = _table("a picture takes", "mean", "deviation", "least", *(f"{p} %" for p in PERCENTILES), "most")
    for name, values, show in _quantities(total):
        points = (values.lowest, *values.percentiles.values(), values.highest)
        table.add_row(name, show(values.mean), show(values.deviation), *(show(point) for point in points))
    console.print(table)
    histograms = found.histograms()
    pairs = sorted({pair for chosen in histograms.values() for pair in chosen})
    chosen_at = [f"{widths_text(pair)} bits" for pair in pairs]
    table = _table("layer", "width", "deviation", *chosen_at, "BitOPs", "deviation", "energy", "deviation", "cycles")
    for row in found.rows():
        shares = histograms.get(row.name)
        table.add_row(
            row.name,
            *([f"{row.width.mean:.3f}", f"{row.width.deviation:.3f}"] if row.width else ["", ""]),
            *(f"{100 * shares[pair] / pictures:.1f} %" if shares else "" for pair in pairs),
            *(giga(round(x)).strip() for x in (row.bitops.mean, row.bitops.deviation)),
            *(f"{x / 1e6:.3g} uJ" for x in (row.energy.mean, row.energy.deviation)),
            f"{row.cycles.mean:,.0f}",
            style=None if shares else "dim",
        )
    console.print(table)
    fly, kept = (sum(part.values()) for part in (found.nesting_on_the_fly(), found.nesting_kept()))
    console.print(
        f"weight nesting {fly / pictures:,.0f} operations a picture on the fly, {kept / pictures:,.0f} if nested "
        "weights are kept from one picture to the next"
    )


def _quantities(row: RowSpread) -> list[tuple[str, Spread, Callable[[Number | float], str]]]:
    shown: list[tuple[str, Spread, Callable[[Number | float], str]]] = [
        ("BitOPs", row.bitops, lambda x: giga(round(x)).strip()),
        ("energy", row.energy, lambda x: f"{float(x) / 1e6:.3g} uJ"),
        ("cycles", row.cycles, lambda x: f"{round(x):,}"),
    ]
    if row.width:
        shown.append(("average width", row.width, lambda x: f"{float(x):.3f}"))
    return shown


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    return table


def distribution_block(found: Distribution) -> dict[str, Any]:
    """Return the distributions as a JSON object; integers stay integers."""
    histograms = found.histograms()
    layers = [
        {"name": row.name, "widths": _by_widths(histograms[row.name]) if row.name in histograms else None} | _block(row)
        for row in found.rows()
    ]
    return {
        "pictures": len(found.order),
        "settings": len(found.settings),
        "percentiles": RULE,
        "total": _block(found.total()),
        "rows": layers,
        "weight_nesting": {
            "on_the_fly": {key.value: n for key, n in sorted(found.nesting_on_the_fly().items())},
            "kept_between_pictures": {key.value: n for key, n in sorted(found.nesting_kept().items())},
        },
    }


def _by_widths(chosen: Counter[Widths]) -> dict[str, int]:
    return {f"w{w}a{a}": times for (w, a), times in sorted(chosen.items())}


def _block(row: RowSpread) -> dict[str, Any]:
    block = {"bitops": _plain(row.bitops), "energy_pj": _plain(row.energy), "cycles": _plain(row.cycles)}
    return block | ({"average_width": _plain(row.width)} if row.width else {})


def _plain(values: Spread) -> dict[str, Any]:
    def number(value: Number) -> int | float:
        return value if isinstance(value, int) else float(value)

    return {
        "sum": number(values.sum),
        "mean": values.mean,
        "deviation": values.deviation,
        "min": number(values.lowest),
        "percentiles": {str(p): number(value) for p, value in values.percentiles.items()},
        "max": number(values.highest),
    }
