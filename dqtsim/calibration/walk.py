"""`calibrate`: one walk through the graph; each layer is fitted on what the layers before it give at each new pair."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from math import prod
from operator import add

import numpy as np

from .. import limits, spec
from ..engines.numba.table import compute
from ..engines.registry import check_codes
from ..errors import InputError
from ..graph import with_bits
from ..graph.model import Array, Graph, Widths
from ..graph.rows import rows_of
from ..graph.schema import NESTED_LAYERS
from ..planner import Plan, Step, plan
from ..target import load_target
from .fit import Moments, Row, fit
from .layer import Layer, LayerRun
from .model import Fitted, check_pairs, free_layers, known_pairs, reference_of, with_pairs, with_rows

Progress = Callable[[str], None]
# the most bits that a window is lower (A6), and the samples on which windows are tried
_LOWEST_WINDOW = 2
_TRIED = 16


def calibrate(
    graph: Graph, pairs: Sequence[Widths], samples: Array, threads: int = 1, say: Progress = lambda text: None
) -> Graph:
    """Return the model with rows and windows for new `pairs` of widths; `samples` are codes uint8 (N, ...).

    Every pair of widths that the model has keeps its rows and its windows, so it keeps its bits. What a new pair gets
    is fitted to the model's own outputs at its widest pair, before rounding and clip. `say` gets a line a layer.
    Raises InputError for pairs that cannot be added, for samples that are not the model's or more than can be held.
    """
    wanted = tuple(dict.fromkeys(pairs))
    check_pairs(graph, wanted)
    walk = _Walk(graph, wanted, samples, threads, say)
    check_codes(walk.plan, samples)
    walk.run()
    return with_pairs(graph, walk.fitted, wanted, len(samples))


@dataclass
class _Values:
    """The codes of a tensor uint8 (N, ...): at the reference pair, and at each new one. Equal ones are one array."""

    reference: Array
    new: dict[Widths, Array] = field(default_factory=dict)


class _Walk:
    def __init__(self, graph: Graph, pairs: tuple[Widths, ...], samples: Array, threads: int, say: Progress) -> None:
        self.pairs, self.threads, self.say = pairs, threads, say
        self.reference = reference_of(graph)
        self.static = with_bits(graph, [graph.pinned.get(layer, self.reference) for layer in graph.layers])
        self.free = {node.name for node in free_layers(self.static)}
        # the widest multipliers that a model may have; sums are not narrowed
        self.target = replace(load_target("default"), multiplier_width=31)
        self.plan = plan(self.static, self.target)
        # widths of activations that the model has keep their windows
        known = {width for _, width in known_pairs(graph)}
        self.windowed = sorted({a for _, a in pairs} - known - {graph.arithmetic.master_width})
        self.last = {name: place for place, node in enumerate(self.static.nodes) for name in node.inputs}
        _check_size(self.plan, self.free, self.last, len(samples), len(pairs))
        self.constants: dict[str, Array] = dict(self.static.initializers)
        self.values = {self.static.input.name: _Values(samples, dict.fromkeys(pairs, samples))}
        self.fitted: dict[str, Fitted] = {}

    def run(self) -> None:
        """Fit every layer that is not pinned, in the order of the graph."""
        with ThreadPoolExecutor(self.threads) as self.pool:
            for place, step in enumerate(self.plan.steps):
                self._step(step)
                for name in {*step.node.inputs, *step.node.outputs}:
                    if self.last.get(name, -1) <= place:
                        self.values.pop(name, None)

    def _step(self, step: Step) -> None:
        node = step.node
        own = [name for name in node.inputs if name in self.values]
        if not own:
            self.constants[node.outputs[0]] = compute(step, node.operands_in(self.constants)).output
        elif node.name in self.free:
            self.say(f"fitting {node.name}")
            self.values[node.outputs[0]] = self._fit(self._layer(step), self.values[node.operand("x")])
        else:
            self.values[node.outputs[0]] = self._each(step, own)

    def _each(self, step: Step, own: Sequence[str]) -> _Values:
        """Return what a step without new rows gives; from the same inputs it gives the same array."""
        run = self._run_layer if step.node.operator in NESTED_LAYERS else self._run_operator
        reference = run(step, {name: self.values[name].reference for name in own})
        found = _Values(reference)
        for pair in self.pairs:
            inputs = {name: self.values[name].new[pair] for name in own}
            same = all(array is self.values[name].reference for name, array in inputs.items())
            found.new[pair] = reference if same else run(step, inputs)
        return found

    def _run_operator(self, step: Step, inputs: Mapping[str, Array]) -> Array:
        def one(index: int) -> Array:
            sample = {name: array[index : index + 1] for name, array in inputs.items()}
            output: Array = compute(step, step.node.operands_in({**self.constants, **sample})).output[0]
            return output

        return np.stack(list(self.pool.map(one, range(len(next(iter(inputs.values())))))))

    def _run_layer(self, step: Step, inputs: Mapping[str, Array]) -> Array:
        b_w, b_a = self.constants[step.node.operand("widths")].tolist()
        return self._at(self._layer(step), (b_w, b_a)).codes(inputs[step.node.operand("x")], self.threads)

    def _layer(self, step: Step) -> Layer:
        return Layer(step.node, self.static.constants(step.node), step.input_types["x"].shape, step.call.type.shape)

    def _at(self, layer: Layer, pair: Widths) -> LayerRun:
        return LayerRun(layer, pair, self.static.arithmetic, self.target)

    def _fit(self, layer: Layer, x: _Values) -> _Values:
        """Fit a layer's windows and rows; return its outputs."""
        wide, row = self._at(layer, self.reference), row_of(layer, self.reference)
        windows = self._windows(layer, wide, row, x)
        tried = _with(layer, self.static, Fitted({}, windows))
        runs = {pair: self._at(tried, pair) for pair in self.pairs}

        def one(index: int) -> tuple[Array, list[Moments]]:
            aligned, codes = wide.aligned(x.reference[index : index + 1])
            targets = row.targets(aligned)
            return codes[0], [
                Moments.of(runs[pair].aligned(x.new[pair][index : index + 1])[0], targets) for pair in self.pairs
            ]

        # the first one alone, which compiles; sums are added in the order of the samples, so threads change nothing
        found = [one(0), *self.pool.map(one, range(1, len(x.reference)))]
        rows = {
            pair: fit(reduce(add, (moments[k] for _, moments in found)), row, layer.node.name)
            for k, pair in enumerate(self.pairs)
        }
        self.fitted[layer.node.name] = Fitted(rows, windows)
        if layer.node.outputs[0] not in self.last:
            return _Values(np.stack([codes for codes, _ in found]))
        made = _with(layer, self.static, self.fitted[layer.node.name])
        new = {pair: self._at(made, pair).codes(x.new[pair], self.threads) for pair in self.pairs}
        return _Values(np.stack([codes for codes, _ in found]), new)

    def _windows(self, layer: Layer, wide: LayerRun, row: Row, x: _Values) -> dict[int, int]:
        """Return the window of least error for each new width of activations, at its widest pair."""
        chosen = {}
        n = self.static.arithmetic.master_width
        places = sorted({k * len(x.reference) // _TRIED for k in range(_TRIED)})
        targets = [row.targets(wide.aligned(x.reference[place : place + 1])[0]) for place in places]
        for width in self.windowed:
            pair = max(pair for pair in self.pairs if pair[1] == width)
            errors = []
            for lower in range(min(_LOWEST_WINDOW, n - width) + 1):
                run = self._at(_with(layer, self.static, Fitted({}, {width: lower})), pair)
                sums = [run.aligned(x.new[pair][place : place + 1])[0] for place in places]
                errors.append(reduce(add, map(Moments.of, sums, targets)).least_error(row))
            chosen[width] = errors.index(min(errors))
        return chosen


def row_of(layer: Layer, pair: Widths) -> Row:
    """Return the row that a layer selects at a pair of widths, by the law (B3', B3'')."""
    rows = rows_of(layer.node, layer.constants)
    index = spec.select_pair_row(*pair, rows.pairs) if rows.pairs else spec.select_row(*pair, rows.widths)
    tables = [layer.constants.get(role) for role in ("bias", "multiplier", "shift")]
    bias, multiplier, shift = (None if table is None else table[index] for table in tables)
    assert bias is not None
    return Row(bias, multiplier, shift)


def _with(layer: Layer, graph: Graph, fitted: Fitted) -> Layer:
    """Return a layer with what was fitted."""
    node, constants = with_rows(layer.node, layer.constants, graph.arithmetic.master_width, fitted)
    return Layer(node, constants, layer.x, layer.y)


def _check_size(plan_: Plan, free: set[str], last: Mapping[str, int], samples: int, pairs: int) -> None:
    """Raise InputError if the codes of all samples at all pairs are more than is held at once."""
    x = plan_.graph.input
    held = {x.name: samples * prod(x.shape)}
    # tensors that depend on the input, and those of them that depend on the pair
    live, apart = {x.name}, set[str]()
    for place, step in enumerate(plan_.steps):
        node, name = step.node, step.node.outputs[0]
        if not live & set(node.inputs):
            continue
        live.add(name)
        if node.name in free or apart & set(node.inputs):
            apart.add(name)
        held[name] = samples * prod(step.call.type.shape) * (1 + pairs if name in apart else 1)
        total = sum(held.values())
        if total > limits.CALIBRATION_BYTES:
            raise InputError(
                f"at '{name}' the codes of {samples} pictures at {1 + pairs} pairs of widths are {total:,} bytes, and "
                f"at most {limits.CALIBRATION_BYTES:,} are held; give fewer pictures, or fewer widths at a time."
            )
        held = {other: size for other, size in held.items() if last.get(other, -1) > place}
