"""Which layer hurts at which widths: signal to noise of every step, and of the result when one layer alone is narrow.

Two figures, both of the integer engine and both against the same reference, which is the float network or the network
itself at its widest pair:

as it runs: of a step's codes when the whole network runs at a pair. Noise adds up on the way, so this shows where it
rises. alone: of the network's outputs when one layer runs at the pair and all others at the widest. This is what the
layer costs; the one with the least signal to noise hurts most. `search` measures the same runs by cross entropy, which
needs labels.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from .calibration import reference_of
from .errors import InputError
from .fidelity import Fidelity, SignalToNoise, real
from .graph.model import Array, Graph, Quantization, Widths
from .graph.results import meaning, results
from .ops import Outcome
from .planner import Step
from .switched import Switched
from .target import Target

# real values of tensors by name, of one sample uint8 (1, ...): (1, ...), or as many elements in the same order
Reference = Callable[[Array], Mapping[str, Array]]
Progress = Callable[[int, str], AbstractContextManager[Callable[[], None]]]
# these only move codes of an earlier step
_MOVES = ("ArgMax", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Transpose")


@dataclass(frozen=True)
class Sensitivity:
    """The figures of a network over `pictures`, against the float network or against itself at `widest`.

    operators: the operator of each step, in order. running: by pair and step, as it runs; network: the outputs then.
    alone: by pair and free layer, the outputs with this layer at the pair and the others at `widest`. Pairs are from
    the widest to the narrowest; `network` always has `widest`.
    """

    against_float: bool
    pictures: int
    widest: Widths
    operators: Mapping[str, str]
    running: Mapping[Widths, Mapping[str, SignalToNoise]]
    network: Mapping[Widths, Fidelity]
    alone: Mapping[Widths, Mapping[str, Fidelity]]

    def worst(self, pair: Widths) -> str | None:
        """Return the layer that alone costs most at `pair`, the first of equals; None if none costs anything."""
        found = {layer: outputs.ratio.decibel for layer, outputs in self.alone[pair].items()}
        layer = min(found, key=lambda name: found[name])
        return layer if found[layer] < self.network[self.widest].ratio.decibel else None


def widest_first(pairs: Sequence[Widths]) -> tuple[Widths, ...]:
    """Return the distinct pairs, those with most bits first; of two with as many, the one with wider weights."""
    return tuple(sorted(set(pairs), key=lambda pair: (sum(pair), pair[0]), reverse=True))


def _quiet(_total: int, _what: str) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


def measure(
    graph: Graph,
    target: Target,
    pairs: Sequence[Widths],
    pictures: Array,
    reference: Reference | None = None,
    *,
    threads: int = 1,
    progress: Progress = _quiet,
) -> Sensitivity:
    """Measure `graph` at `pairs` on pictures uint8 (N, ...), against `reference`, the tensors of the float network.

    Without a reference: against the network itself at the widest pair that it was made for. Steps that the reference
    lacks are left out. Raises InputError if there is no layer whose widths are free, no other pair than the widest, or
    no output with known real values.
    """
    widest = reference_of(graph)
    narrow = [pair for pair in widest_first(pairs) if pair != widest]
    if reference is None and not narrow:
        w, a = widest
        raise InputError(f"a network is compared with itself at its widest pair; no pair but that, w{w}a{a}, is given.")
    runs = Switched(graph, target, [widest, *narrow])
    whole = _Whole(runs, widest, reference)
    expected = []
    alone = {pair: {layer: Fidelity(pair, runs.own) for layer in runs.free} for pair in narrow}
    with progress(len(pictures) * (len(runs.pairs) + len(narrow) * len(runs.free)), "pictures") as done:
        for index in range(len(pictures)):
            expected.append(whole.add(pictures[index : index + 1], done))
        for pair, layers in alone.items():
            for layer, outputs in layers.items():
                found = runs.run(pictures, runs.alone(layer, pair, widest), threads)
                for result, wanted in zip(found, expected, strict=True):
                    outputs.add(result, wanted)
                    done()
    compared = reference is not None, len(pictures), widest
    return Sensitivity(*compared, whole.operators, whole.running, whole.network, alone)


class _Whole:
    """Runs the whole network at each pair, and compares every step with the reference."""

    def __init__(self, runs: Switched, widest: Widths, reference: Reference | None) -> None:
        graph = runs.own
        self._runs, self._widest, self._reference = runs, widest, reference
        self._outputs = [(value.name, meaning(graph, value.name)) for value in results(graph)]
        if not any(means for _, means in self._outputs):
            raise InputError(f"signal to noise is of real values; no output of model '{graph.name}' has a scale.")
        self._means: dict[str, Quantization] = {}
        for node in graph.nodes:
            found = meaning(graph, node.outputs[0])
            if found is not None and node.operator not in _MOVES:
                self._means[node.outputs[0]] = found
        self.operators: dict[str, str] = {}
        self.running: dict[Widths, dict[str, SignalToNoise]] = {
            pair: {} for pair in runs.pairs if reference is not None or pair != widest
        }
        self.network = {pair: Fidelity(pair, graph) for pair in runs.pairs}

    def add(self, sample: Array, done: Callable[[], None]) -> list[Array]:
        """Count one sample uint8 (1, ...) at every pair; return the reference values of the outputs."""
        wanted = self._own(sample) if self._reference is None else self._reference(sample)
        expected = [wanted[name] for name, _ in self._outputs]
        if self._reference is None:
            done()
        for pair, ratios in self.running.items():

            def compare(step: Step, outcome: Outcome, ratios: dict[str, SignalToNoise] = ratios) -> None:
                tensor = step.node.outputs[0]
                if tensor in self._means and tensor in wanted:
                    self.operators[step.node.name] = step.node.operator
                    ratio = ratios.setdefault(step.node.name, SignalToNoise())
                    ratio.add(real(outcome.output, self._means[tensor]), wanted[tensor])

            result = self._runs.observe(sample, self._runs.everywhere(pair), compare)
            self.network[pair].add(result, expected)
            done()
        return expected

    def _own(self, sample: Array) -> dict[str, Array]:
        """Return the real values of all steps and outputs at the widest pair."""
        found: dict[str, Array] = {}

        def keep(step: Step, outcome: Outcome) -> None:
            tensor = step.node.outputs[0]
            if tensor in self._means:
                found[tensor] = real(outcome.output, self._means[tensor])

        result = self._runs.observe(sample, self._runs.everywhere(self._widest), keep)
        for name, means in self._outputs:
            found[name] = real(result.outputs[name], means) if means else result.outputs[name]
        self.network[self._widest].add(result, [found[name] for name, _ in self._outputs])
        return found
