"""Widths: the value of `--bits` becomes the rows of the tensor `bits`."""

import re
from collections.abc import Mapping
from typing import Any

from . import limits
from .errors import WidthError, cut, listed, reason
from .graph import with_bits
from .graph.model import Graph, Widths

DYNAMIC = "dynamic"
_PAIR = re.compile(r"(?:([0-9]{1,9})|w([0-9]{1,9})a([0-9]{1,9}))\Z")
_EXPECTED = "a width such as 4, or a pair such as w4a8"


def carried_policy(graph: Graph) -> str:
    """Return how `graph` itself decides its widths: 'dynamic' or 'static'."""
    return DYNAMIC if graph.dynamic else "static"


def apply_bits(graph: Graph, spec: str | None) -> tuple[Graph, str]:
    """Return (graph with the widths that `spec` asks for, name of the policy).

    spec: None (what the model carries), 'dynamic' (its controller), '4' or 'w4a8' (every layer that is not pinned), a
    comma list with one entry per layer, or a .json or .toml plan file.
    Raises WidthError.
    """
    if spec is None:
        return graph, carried_policy(graph)
    if spec == DYNAMIC:
        if not graph.dynamic:
            raise WidthError(f"dynamic widths need a controller; model '{graph.name}' has none.")
        return graph, DYNAMIC
    return with_bits(graph, rows_of(graph, spec)), spec


def rows_of(graph: Graph, spec: str) -> list[Widths]:
    """Return one pair per layer of `graph` for a static `spec`; pinned layers keep theirs unless they are named."""
    if spec.endswith((".json", ".toml")):
        return _rows_of_plan(graph, _read_plan(spec), f"plan file '{spec}'")
    entries = spec.split(",")
    if len(entries) == 1:
        pair = _pair(graph, entries[0], "--bits")
        return [graph.pinned.get(layer, pair) for layer in graph.layers]
    if len(entries) != len(graph.layers):
        raise WidthError(
            f"a list of widths has one entry per layer, {len(graph.layers)} for model '{graph.name}' "
            f"({_layers(graph)}); --bits has {len(entries)}."
        )
    return [_pair(graph, entry, f"--bits, layer '{layer}'") for layer, entry in zip(graph.layers, entries, strict=True)]


def _rows_of_plan(graph: Graph, plan: Mapping[str, Any], where: str) -> list[Widths]:
    unknown = [name for name in plan if name not in graph.layers and name != "default"]
    if unknown:
        raise WidthError(f"{where} names layer '{cut(unknown[0])}'; model '{graph.name}' has {_layers(graph)}.")
    rows = []
    for layer in graph.layers:
        if layer in plan:
            rows.append(_pair(graph, plan[layer], f"{where}, layer '{layer}'"))
        elif layer in graph.pinned:
            rows.append(graph.pinned[layer])
        elif "default" in plan:
            rows.append(_pair(graph, plan["default"], f"{where}, entry 'default'"))
        else:
            raise WidthError(f"{where} gives every layer its widths or a 'default'; layer '{layer}' has none.")
    return rows


def _layers(graph: Graph) -> str:
    return listed([cut(layer) for layer in graph.layers])


def _read_plan(path: str) -> Mapping[str, Any]:
    try:
        text = limits.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise WidthError(f"the plan file '{path}' cannot be read: {reason(error)}.") from None
    try:
        tree = limits.json_tree(text) if path.endswith(".json") else limits.toml_tree(text)
    except ValueError as error:
        kind = "JSON" if path.endswith(".json") else "TOML"
        raise WidthError(f"the plan file '{path}' is not {kind}: {str(error).rstrip('.')}.") from None
    table = tree.get("bits") if isinstance(tree, dict) else None
    if not isinstance(table, dict):
        raise WidthError(f"the plan file '{path}' holds a table 'bits' from layer names to widths; found none.")
    return table


def _pair(graph: Graph, entry: Any, where: str) -> Widths:
    n = graph.arithmetic.master_width
    match entry:
        case str():
            found = _PAIR.match(entry.strip())
            if not found:
                raise WidthError(f"{where}: expected {_EXPECTED}; found '{cut(entry)}'.")
            both = found.group(1)
            pair = (int(both), int(both)) if both else (int(found.group(2)), int(found.group(3)))
        case int() if type(entry) is int:
            pair = (entry, entry)
        case [int() as w, int() as a] if type(w) is int and type(a) is int:
            pair = (w, a)
        case _:
            raise WidthError(f"{where}: expected {_EXPECTED}; found {cut(repr(entry))}.")
    if not all(1 <= width <= n for width in pair):
        raise WidthError(f"{where}: widths lie between 1 and the master width {n}; found '{cut(entry)}'.")
    return pair
