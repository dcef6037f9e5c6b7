"""One plan of a network that runs each sample at widths of its own: whoever tries many settings compiles once.

The pairs of widths are switched by codes that come with a sample. They are seen by a controller (B8) that does nothing
but repeat them, so the plan is that of an ordinary dynamic model, and every engine runs it. Its input is the sample
and, below its rows, one code for each free layer and pair; the first nodes take the two apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from .engines.registry import engine, run
from .engines.result import Observer, Result
from .errors import InputError
from .graph import with_bits
from .graph.checks import check_graph
from .graph.decide import decide
from .graph.model import BITS, PINNED_BITS, Array, Graph, Node, Value, Widths, freeze
from .graph.schema import DOMAIN
from .planner import plan
from .target import Target

# names that the nodes of the switch have; a network's own names begin otherwise
_PREFIX = "switch"


def free_layers(graph: Graph) -> list[str]:
    """Return the layers whose widths a plan may choose."""
    return [layer for layer in graph.layers if layer not in graph.pinned]


def rows(graph: Graph, pairs: Sequence[Widths], choice: Sequence[int]) -> tuple[Widths, ...]:
    """Return one pair per layer: its own for a pinned layer, else the one of `pairs` whose index `choice` has."""
    chosen = dict(zip(free_layers(graph), choice, strict=True))
    return tuple(graph.pinned[layer] if layer in graph.pinned else pairs[chosen[layer]] for layer in graph.layers)


class Switched:
    """A graph on a target, ready to run with each free layer at any of `pairs`; pinned layers keep their widths.

    `own` is the graph without what chose its widths, at the first pair.
    Raises InputError without a free layer, and what planning raises.
    """

    def __init__(self, graph: Graph, target: Target, pairs: Sequence[Widths]) -> None:
        self.pairs, self.free = tuple(pairs), free_layers(graph)
        if not self.free:
            raise InputError(f"widths are those of layers that are not pinned; model '{graph.name}' has none.")
        self.own = with_bits(graph, rows(graph, self.pairs, [0] * len(self.free)))
        self.plan = plan(_with_switch(self.own, self.pairs, self.free), target)
        self._top = (1 << graph.arithmetic.master_width) - 1

    def everywhere(self, pair: Widths) -> list[int]:
        """Return the choice of one pair for all free layers."""
        return [self.pairs.index(pair)] * len(self.free)

    def alone(self, layer: str, pair: Widths, others: Widths) -> list[int]:
        """Return the choice of `pair` for one free layer and of `others` for all other free layers."""
        choice = self.everywhere(others)
        choice[self.free.index(layer)] = self.pairs.index(pair)
        return choice

    def run(self, samples: Array, choice: Sequence[int], threads: int = 1) -> Iterator[Result]:
        """Yield the results of samples uint8 (N, ...), in order, with one pair per free layer, by its index."""
        expected = rows(self.own, self.pairs, choice)
        for result in run(self.plan, self._codes(samples, choice), threads=threads):
            assert result.bits == expected
            yield result

    def observe(self, sample: Array, choice: Sequence[int], observer: Observer) -> Result:
        """Return the result of one sample uint8 (1, ...); `observer` sees every step."""
        return engine(self.plan)(self._codes(sample, choice), [observer])

    def _codes(self, samples: Array, choice: Sequence[int]) -> Array:
        """Return the samples with the codes of their switch below."""
        shape = self.plan.graph.input.shape[1:]
        own = self.own.input.shape[1:]
        if samples.dtype != np.uint8 or samples.shape[1:] != own:
            raise InputError(
                f"the model takes codes of dtype uint8 and shape (N, {', '.join(map(str, own))}); "
                f"found {samples.dtype} {samples.shape}."
            )
        axis = _axis(own)
        below = np.zeros((*shape[:axis], shape[axis] - own[axis], *shape[axis + 1 :]), np.uint8)
        flat = below.reshape(-1)
        flat[[layer * len(self.pairs) + k for layer, k in enumerate(choice)]] = self._top
        every = np.broadcast_to(below, (len(samples), *below.shape))
        return np.concatenate([samples, every], axis=axis + 1)


def _axis(shape: Sequence[int]) -> int:
    """Return the axis along which codes are added to samples of this shape: rows of a picture."""
    return 1 if len(shape) == 3 else 0


def _with_switch(static: Graph, pairs: Sequence[Widths], free: Sequence[str]) -> Graph:
    """Return a static graph with its widths chosen among `pairs` by codes below its samples."""
    own, n = static.input, static.arithmetic.master_width
    axis, count = _axis(own.shape[1:]) + 1, len(free) * len(pairs)
    in_a_row = int(np.prod(own.shape)) // own.shape[axis]
    more = -(-count // in_a_row)
    whole = Value(f"{_PREFIX}.input", "uint8", (*own.shape[:axis], own.shape[axis] + more, *own.shape[axis + 1 :]))
    # logit i is code i: weights are one step on the diagonal, and 0
    weight = np.full((count, more * in_a_row), 1 << (n - 1), np.uint8)
    np.fill_diagonal(weight, (1 << (n - 1)) + 1)
    arrays: dict[str, Array] = {
        f"{_PREFIX}.axes": np.array([axis], np.int64),
        f"{_PREFIX}.steps": np.array([1], np.int64),
        f"{_PREFIX}.zero": np.array([0], np.int64),
        f"{_PREFIX}.end": np.array([own.shape[axis]], np.int64),
        f"{_PREFIX}.last": np.array([whole.shape[axis]], np.int64),
        f"{_PREFIX}.weight": weight,
        f"{_PREFIX}.zero_point": np.array(0, np.uint8),
        f"{_PREFIX}.bias": np.zeros((1, count), np.int64),
        f"{_PREFIX}.widths": np.array([n, n], np.int64),
    }
    logits = f"{_PREFIX}.logits"
    taken, below, flat = own.name, f"{_PREFIX}.below", f"{_PREFIX}.codes"
    nodes = [
        _node(f"{_PREFIX}.sample", "Slice", ("input", "zero", "end", "axes", "steps"), taken),
        _node(below, "Slice", ("input", "end", "last", "axes", "steps"), below),
        _node(flat, "Flatten", ("below",), flat, axis=1),
        replace(
            _node(logits, "NestedLogits", ("codes", "weight", "zero_point", "bias", "widths"), logits),
            domain=DOMAIN,
            attributes=MappingProxyType({"row_widths": (n,)}),
        ),
    ]
    decision, tables = decide(logits, count, static.layers, free, list(static.pinned), pairs)
    if static.pinned:
        tables[PINNED_BITS] = np.array(list(static.pinned.values()), np.int64)
    kept = {name: array for name, array in static.initializers.items() if name != BITS}
    constants = {**kept, **{name: freeze(array) for name, array in {**arrays, **tables}.items()}}
    made = replace(
        static,
        inputs=(whole,),
        outputs=(*static.outputs, Value(BITS, "int64", (len(static.layers), 2))),
        nodes=(*nodes, *decision, *static.nodes),
        initializers=MappingProxyType(constants),
        candidates=tuple(pairs),
        controller=logits,
    )
    check_graph(made)
    return made


def _node(name: str, operator: str, inputs: Sequence[str], output: str, **attributes: int) -> Node:
    operands = tuple(f"{_PREFIX}.{role}" for role in inputs)
    return Node(name, "", operator, operands, (output,), MappingProxyType(dict(attributes)))
