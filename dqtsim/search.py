"""The best static plan under a budget: one pair of widths per layer, from measured sensitivities and counted costs.

A layer's sensitivity to a pair is the increase of the cross entropy of labelled pictures when this layer alone changes
from the widest pair to that pair, measured with the integer engine. Sensitivities are assumed to add up, and costs do
add up, so the best plan is a multiple-choice knapsack problem, which is solved exactly.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from . import switched
from .counting.counts import NodeCount, count
from .energy import EnergyTable
from .errors import InputError
from .graph import with_bits
from .graph.model import Array, Graph, Widths
from .graph.results import meaning, require_scores
from .planner import plan
from .switched import Switched, free_layers
from .target import Target

Table = npt.NDArray[np.float64]
UNITS = ("bits", "MBitOPs", "uJ", "cycles")
_BUDGET = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?(bits|MBitOPs|uJ|cycles)\Z")


@dataclass(frozen=True)
class Budget:
    """An amount of a unit per picture; bits are the average width over all layers."""

    amount: Fraction
    unit: str

    @staticmethod
    def read(text: str) -> "Budget":
        """Return the budget that `text` such as 4.0bits or 120MBitOPs states. Raises InputError."""
        found = _BUDGET.match(text.strip())
        if not found:
            raise InputError(f"a budget is a number and one of {', '.join(UNITS)}, such as 4.0bits; found '{text}'.")
        return Budget(Fraction(found.group(1)), found.group(2))

    def __str__(self) -> str:
        """Return the budget as a user writes it."""
        return f"{float(self.amount):g} {self.unit}"


@dataclass(frozen=True)
class Costs:
    """The cost of a picture in the budget's unit: a `fixed` part, and a part by layer and candidate; exact."""

    fixed: Fraction
    table: tuple[tuple[Fraction, ...], ...]

    def total(self, choice: Sequence[int]) -> Fraction:
        """Return the cost of one candidate per layer."""
        return self.fixed + sum((row[k] for row, k in zip(self.table, choice, strict=True)), Fraction(0))


def rows(graph: Graph, choice: Sequence[int]) -> list[Widths]:
    """Return one pair per layer: its own for a pinned layer, else the candidate whose index `choice` has."""
    return list(switched.rows(graph, graph.candidates, choice))


def costs(
    graph: Graph,
    target: Target,
    energy: EnergyTable,
    unit: str,
    pairs: Sequence[Widths] = (),
    *,
    controller: bool = False,
) -> Costs:
    """Return the cost of each layer at each of `pairs` (default: the candidates), counted as by `count-ops`.

    `fixed` includes the controller of a dynamic `graph` if `controller` is set; in the unit bits it costs nothing.
    Weights count as nested on the fly, so a layer's cost depends on its own widths alone.
    """
    layers, pairs = free_layers(graph), pairs or graph.candidates
    if unit == "bits":
        n = len(graph.layers)
        pinned = sum((Fraction(sum(pair), 2 * n) for pair in graph.pinned.values()), Fraction(0))
        return Costs(pinned, tuple(tuple(Fraction(sum(pair), 2 * n) for pair in pairs) for _ in layers))
    if not controller:
        graph = with_bits(graph, [graph.pinned.get(layer, pairs[0]) for layer in graph.layers])
    compiled = plan(graph, target)
    columns: list[dict[str, Fraction]] = []
    for pair in pairs:
        bits = {layer: graph.pinned.get(layer, pair) for layer in graph.layers}
        columns.append({item.name: _COST[unit](item) for item in count(compiled, bits, energy)})
    fixed = sum((cost for name, cost in columns[0].items() if name not in layers), Fraction(0))
    return Costs(fixed, tuple(tuple(column[layer] for column in columns) for layer in layers))


_COST: dict[str, Callable[[NodeCount], Fraction]] = {
    "MBitOPs": lambda item: Fraction(item.cost.bitops, 10**6),
    "uJ": lambda item: Fraction(sum(item.energy.values())) / 10**6,
    "cycles": lambda item: Fraction(item.cycles),
}


def sensitivities(
    runs: Switched,
    images: Array,
    labels: npt.NDArray[np.int64],
    *,
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> Table:
    """Return (layers, candidates): cross entropy with only this layer at this candidate, less that of the widest.

    `runs` has the candidates as its pairs.
    """
    widest = runs.pairs[widest_candidate(runs.own)]
    base = cross_entropy(runs, runs.everywhere(widest), images, labels, threads)[0]
    progress()
    table = np.zeros((len(runs.free), len(runs.pairs)))
    for row, layer in enumerate(runs.free):
        for k, pair in enumerate(runs.pairs):
            if pair != widest:
                choice = runs.alone(layer, pair, widest)
                table[row, k] = cross_entropy(runs, choice, images, labels, threads)[0] - base
                progress()
    return table


def widest_candidate(graph: Graph) -> int:
    """Return the index of the candidate with the most BitOPs."""
    return max(range(len(graph.candidates)), key=lambda k: graph.candidates[k][0] * graph.candidates[k][1])


def cross_entropy(
    runs: Switched,
    choice: Sequence[int],
    images: Array,
    labels: npt.NDArray[np.int64],
    threads: int = 1,
) -> tuple[float, float]:
    """Return the mean cross entropy in nats and the accuracy of `images` at one candidate per layer, integer engine."""
    name = require_scores(runs.own)
    found = meaning(runs.own, name)
    scale = found.scale[0] if found else 1.0
    total, right = 0.0, 0
    for result, label in zip(runs.run(images, choice, threads), labels.tolist(), strict=True):
        logits = result.outputs[name].reshape(-1).astype(np.float64) * scale
        shifted = logits - logits.max()
        total += float(np.log(np.exp(shifted).sum()) - shifted[label])
        right += result.class_index == label
    return total / len(images), right / len(images)


def best_choice(table: Table, priced: Costs, budget: Budget) -> list[int]:
    """Return the candidate of each layer: the least sum of `table` among all choices within `budget`, exactly."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError:
        raise InputError('searching a plan needs SciPy; install it with pip install "dqtsim[plan]".') from None
    layers, candidates = table.shape
    cheapest = priced.total([min(range(candidates), key=row.__getitem__) for row in priced.table])
    if budget.amount < cheapest:
        raise InputError(
            f"a budget must allow the cheapest plan, {float(cheapest):.6g} {budget.unit} per picture; found {budget}."
        )
    room = budget.amount - priced.fixed
    price = np.array([[float(cost / room) if room else 0.0 for cost in row] for row in priced.table])
    one_each = np.kron(np.eye(layers), np.ones(candidates))
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(price.reshape(1, -1), -np.inf, 1)]
    while True:
        found = milp(
            table.reshape(-1),
            integrality=np.ones(table.size),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            raise InputError(f"no plan within {budget} was found: {found.message}.")
        choice = [int(k) for k in found.x.reshape(layers, candidates).argmax(1)]
        if priced.total(choice) <= budget.amount:
            return choice
        # the solver works in floats and may exceed the budget by a rounding error: such an answer is barred
        taken = np.zeros((layers, candidates))
        taken[range(layers), choice] = 1
        constraints.append(LinearConstraint(taken.reshape(1, -1), -np.inf, layers - 1))


def refined(
    start: Sequence[int],
    table: Table,
    priced: Costs,
    budget: Budget,
    measure: Callable[[Sequence[int]], float],
    tries: int,
) -> list[int]:
    """Return the choice with the least `measure` within the budget that is found.

    Sensitivities do not really add up, least of all far from the widest pair. So `start` is first compared with each
    candidate used everywhere, always. Then, up to `tries` measurements besides that of `start`, the best choice so far
    is compared with choices that change one or two layers, the most promising by `table` first, until none is better.
    """
    layers, candidates = table.shape
    best = tuple(start)
    known = {best: measure(best)}

    def better(choice: tuple[int, ...]) -> bool:
        known[choice] = measure(choice)
        return known[choice] < known[best]

    for k in range(candidates):
        everywhere = (k,) * layers
        if everywhere not in known and priced.total(everywhere) <= budget.amount:
            best = everywhere if better(everywhere) else best
    found = True
    while found:
        found = False
        for choice in _neighbours(best, table):
            if len(known) > tries:
                break
            if choice not in known and priced.total(choice) <= budget.amount and better(choice):
                best, found = choice, True
                break
    return list(best)


def _neighbours(choice: Sequence[int], table: Table) -> list[tuple[int, ...]]:
    """Return the choices that differ from `choice` in one or two layers, the least sum of `table` first."""
    layers, candidates = table.shape
    single = [(layer, k) for layer in range(layers) for k in range(candidates) if k != choice[layer]]
    moves = [(move,) for move in single] + [(a, b) for a in single for b in single if a[0] < b[0]]
    found = []
    for move in moves:
        changed = list(choice)
        for layer, k in move:
            changed[layer] = k
        found.append(tuple(changed))
    return sorted(found, key=lambda other: float(table[range(layers), other].sum()))


def as_toml(graph: Graph, choice: Sequence[int], notes: Sequence[str]) -> str:
    """Return a plan file that `--bits` reads; `notes` become comments."""
    lines = [f"# {note}" for note in notes] + ["", "[bits]"]
    for layer, k in zip(free_layers(graph), choice, strict=True):
        w, a = graph.candidates[k]
        quoted = layer.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'"{quoted}" = "w{w}a{a}"')
    return "\n".join(lines) + "\n"
