"""What a model has and what is added to it: pairs of widths, the reference pair, rows, and where it is noted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from .. import __version__
from ..errors import InputError
from ..graph.checks import check_graph
from ..graph.model import BITS, Array, Graph, Node, Widths, freeze
from ..graph.rows import rows_of, window_of
from ..graph.schema import DOMAIN, SCHEMAS
from .fit import Row
from .listing import listed, with_own

# entries of the provenance: the pairs that were added, how, and the rows per width that a model had before
ADDED, BY, BEFORE = "calibrated", "calibrated by", "row widths before"


@dataclass(frozen=True)
class Fitted:
    """What a layer gets: a row for each new pair of widths, and a window for each new width of activations."""

    rows: Mapping[Widths, Row]
    windows: Mapping[int, int]


def named(pair: Widths) -> str:
    """Return 'w8a6' for (8, 6)."""
    return f"w{pair[0]}a{pair[1]}"


def free_layers(graph: Graph) -> list[Node]:
    """Return the layers whose widths can be chosen: neither pinned nor the controller's."""
    return [node for node in graph.nodes if node.name in graph.layers and node.name not in graph.pinned]


def known_pairs(graph: Graph) -> list[Widths]:
    """Return the pairs of widths that the model has been made for, widest last.

    These are its candidates, its own static widths, those that were added before, and those to which its layers give
    rows. Rows per width (B3') belong to no pair, even where they were written as rows of pairs when others were added.
    """
    layers = free_layers(graph)
    found = set(graph.candidates)
    if BITS in graph.initializers:
        static = dict(zip(graph.layers, graph.initializers[BITS].tolist(), strict=True))
        found |= {(b_w, b_a) for b_w, b_a in (static[node.name] for node in layers)}
    text = graph.producer.get(ADDED, "")
    listing = {pair for node in layers for pair in rows_of(node, graph.constants(node)).pairs}
    found |= {pair for pair in listing if BEFORE not in graph.producer or named(pair) in text.split()}
    return sorted(found, key=lambda pair: (sum(pair), pair))


def reference_of(graph: Graph) -> Widths:
    """Return the widest pair of the model, to whose outputs the new pairs are fitted."""
    return known_pairs(graph)[-1]


def check_pairs(graph: Graph, pairs: Sequence[Widths]) -> None:
    """Raise InputError unless rows for `pairs` can be added to the model."""
    n, known, widest = graph.arithmetic.master_width, known_pairs(graph), reference_of(graph)
    if not free_layers(graph):
        raise InputError(f"widths are added to layers that are not pinned; model '{graph.name}' has none.")
    for pair in pairs:
        if not all(1 <= width <= n for width in pair):
            raise InputError(f"widths lie between 1 and the master width {n}; found {named(pair)}.")
        if pair in known:
            raise InputError(
                f"new pairs of widths are added and none is replaced; model '{graph.name}' has {named(pair)} already."
            )
        if pair[0] > widest[0] or pair[1] > widest[1]:
            raise InputError(
                f"new pairs are fitted to the widest that the model has, {named(widest)}; {named(pair)} is wider."
            )


def with_rows(node: Node, constants: Mapping[str, Array], n: int, fitted: Fitted) -> tuple[Node, dict[str, Array]]:
    """Return a layer, its inputs not yet renamed, and its constants by role, with what was fitted."""
    found = dict(constants)
    listing = listed(rows_of(node, constants), n)
    for number, pair in enumerate(fitted.rows, len(constants["bias"])):
        listing = with_own(listing, pair, number)
    for role in ("bias", "multiplier", "shift"):
        if role in constants:
            table = np.concatenate([constants[role], *([getattr(row, role)] for row in fitted.rows.values())])
            found[role] = table[[row for _, row in listing]]
    found["row_pairs"] = np.array([pair for pair, _ in listing], np.int64)
    windows = [window_of(node, constants, width) if width else 0 for width in range(n + 1)]
    for width, lower in fitted.windows.items():
        windows[width] = lower
    if any(windows) or "windows" in node.form:
        found["windows"] = np.array(windows, np.int64)
    schema = SCHEMAS[DOMAIN, node.operator]
    form = tuple(part.name for part in schema.parts if part.name in found)
    kept = schema.attributes_of(form)
    attributes = {name: value for name, value in node.attributes.items() if name in kept}
    return replace(node, form=form, attributes=MappingProxyType(attributes)), found


def with_pairs(graph: Graph, fitted: Mapping[str, Fitted], pairs: Sequence[Widths], pictures: int) -> Graph:
    """Return the model with what was fitted to each layer, checked.

    A controller keeps its candidates, because its logits are counted by them; static widths get the new ones too.
    """
    arrays, nodes = dict(graph.initializers), list(graph.nodes)
    before: set[str] = set()
    for place, old in enumerate(nodes):
        if old.name not in fitted:
            continue
        before |= {",".join(map(str, rows_of(old, graph.constants(old)).widths))} - {""}
        node, constants = with_rows(old, graph.constants(old), graph.arithmetic.master_width, fitted[old.name])
        readers = Counter(name for other in nodes for name in other.inputs)
        inputs = {role: old.operands.get(role, "") for role in _roles(node)}
        for role, array in constants.items():
            if arrays.get(inputs[role]) is array:
                continue
            # a tensor that others read too keeps its values
            if not inputs[role] or readers[inputs[role]] > 1:
                inputs[role] = _free(f"{node.name}.{role}", arrays, nodes)
            arrays[inputs[role]] = freeze(array)
        nodes[place] = replace(node, inputs=tuple(inputs.values()))
    used = {name for node in nodes for name in node.inputs}
    candidates = graph.candidates if graph.dynamic else tuple(sorted({*graph.candidates, *pairs}))
    made = replace(
        graph,
        nodes=tuple(nodes),
        initializers=MappingProxyType({name: array for name, array in arrays.items() if name in used}),
        candidates=candidates,
        producer=MappingProxyType(_noted(graph.producer, pairs, pictures, before)),
    )
    check_graph(made)
    return made


def _noted(producer: Mapping[str, str], pairs: Sequence[Widths], pictures: int, before: set[str]) -> dict[str, str]:
    """Return the provenance with a note of what was added."""
    added = [*producer.get(ADDED, "").split(), *map(named, pairs)]
    counted = f"{pictures} picture{'s' if pictures > 1 else ''}"
    by = f"dqtsim calibrate {__version__}, {' '.join(map(named, pairs))} on {counted}"
    notes = {ADDED: " ".join(added), BY: "; ".join([*filter(None, [producer.get(BY)]), by])}
    if before:
        notes[BEFORE] = " ".join(sorted(before))
    return {**producer, **notes}


def _roles(node: Node) -> list[str]:
    return [entry.name for entry in SCHEMAS[DOMAIN, node.operator].inputs_of(node.form)]


def _free(name: str, arrays: Mapping[str, Array], nodes: Sequence[Node]) -> str:
    """Return the name, or with a number the first one that no tensor has."""
    taken = {*arrays, *(output for node in nodes for output in node.outputs)}
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found
