"""Which pairs of widths can reach each nested layer, and the proof that no other pair can (B8).

README.md, "The tensor `bits`", lists the nodes that may stand between a controller and the widths of a layer. A graph
must have exactly these, with the tables that its metadata state, or it is refused. ArgMax over K candidates gives 0 to
K - 1, so a row of `bits` is always a candidate or a pinned pair.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..errors import ModelError
from .model import BITS, PINNED_BITS, Array, Graph, Node, Widths
from .schema import NESTED_LAYERS

DECISION = "a controller decides by Reshape, ArgMax and Gather, and Concat and Gather put the pinned layers in"

Sources = Mapping[str, Node]


def reachable_widths(graph: Graph) -> dict[str, tuple[Widths, ...]]:
    """Return the pairs of widths that can reach each nested layer, by its name.

    Raises ModelError if the nodes and tables that make the widths are not those of README.md.
    """
    sources = {output: node for node in graph.nodes for output in node.outputs}
    _check_origin(graph, sources)
    _check_table(graph, BITS, len(graph.layers))
    _check_table(graph, PINNED_BITS, len(graph.pinned))
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    rows = {layer: row for row, layer in enumerate(graph.layers)}
    found: dict[str, tuple[Widths, ...]] = {}
    for node in graph.nodes:
        if node.operator not in NESTED_LAYERS:
            continue
        row = rows.get(node.name)
        if row is None:
            _check_master(graph, node)
            n = graph.arithmetic.master_width
            found[node.name] = ((n, n),)
            continue
        widths = node.operand("widths")
        if readers[widths] > 1 or not _gathers_row(graph, node.name, row, sources.get(widths)):
            tables = f"'{BITS}' or '{PINNED_BITS}'" if graph.controller else f"'{BITS}'"
            raise ModelError(
                f"{node.title} takes its widths from its own Gather (axis 0) of its row of {tables}; '{widths}' is "
                f"none."
            )
        found[node.name] = _pairs(graph, node.name, row)
    if graph.controller:
        _check_decision(graph, sources)
    return found


def _pairs(graph: Graph, layer: str, row: int) -> tuple[Widths, ...]:
    if not graph.controller:
        b_w, b_a = graph.initializers[BITS][row].tolist()
        return ((b_w, b_a),)
    return (graph.pinned[layer],) if layer in graph.pinned else graph.candidates


def _check_origin(graph: Graph, sources: Sources) -> None:
    """Refuse `bits` unless it is an initializer (no controller) or is computed from a controller's logits."""
    if graph.controller and (graph.controller not in sources or BITS in graph.initializers):
        raise ModelError(
            f"metadata 'dqtsim.controller' names the tensor from which the nodes compute '{BITS}'; "
            f"'{graph.controller}' is none."
        )
    if graph.layers and not graph.controller and BITS not in graph.initializers:
        found = sources[BITS].title if BITS in sources else "nothing"
        raise ModelError(
            f"'{BITS}' is an initializer where metadata 'dqtsim.controller' is empty; {found} gives it here."
        )


def _check_table(graph: Graph, name: str, rows: int) -> None:
    array = graph.initializers.get(name)
    if array is None:
        return
    if array.dtype != np.int64 or array.shape != (rows, 2):
        raise ModelError(f"initializer '{name}' is int64 of shape {(rows, 2)}; found {array.dtype} {array.shape}.")
    n = graph.arithmetic.master_width
    if array.size and not 1 <= int(array.min()) <= int(array.max()) <= n:
        raise ModelError(
            f"initializer '{name}' holds widths of 1 to {n}; found {int(array.min())} to {int(array.max())}."
        )


def _check_master(graph: Graph, node: Node) -> None:
    n, widths = graph.arithmetic.master_width, node.operand("widths")
    if widths not in graph.initializers or graph.initializers[widths].tolist() != [n, n]:
        raise ModelError(
            f"{node.title} is no entry of metadata 'dqtsim.layers', so its widths are an initializer [{n}, {n}]; "
            f"'{widths}' is none."
        )


def _gathers_row(graph: Graph, layer: str, row: int, source: Node | None) -> bool:
    """Return whether `source` takes row `row` of `bits`, or, ahead of a controller, the pinned pair of `layer`."""
    if source is None or source.operator != "Gather" or source.attributes.get("axis") != 0:
        return False
    table, index = source.operand("data"), graph.constant(source, "indices")
    if index is None or index.shape != ():
        return False
    if graph.controller and table == PINNED_BITS and layer in graph.pinned and table in graph.initializers:
        pairs = graph.initializers[table]
        return 0 <= int(index) < len(pairs) and bool(pairs[int(index)].tolist() == list(graph.pinned[layer]))
    return table == BITS and int(index) == row


def _check_decision(graph: Graph, sources: Sources) -> None:
    """Refuse nodes and tables between the controller's logits and `bits` that are not those of README.md."""
    chosen = BITS
    if graph.pinned:
        last = _made_by(sources, BITS, "Gather", axis=0)
        both = _made_by(sources, last.operand("data"), "Concat", axis=0)
        if len(both.inputs) != 2 or both.operand("inputs.0") != PINNED_BITS:
            joined = ", ".join(f"'{name}'" for name in list(both.operands.values())[:3])
            raise ModelError(f"{DECISION}; {both.title} joins '{PINNED_BITS}' and the chosen pairs; found {joined}.")
        _check_constant(
            graph,
            last.operand("indices"),
            _order(graph, last.operand("indices")),
            f"'{BITS}' has one row per entry of metadata 'dqtsim.layers', in that order",
        )
        chosen = both.operand("inputs.1")
    gather = _made_by(sources, chosen, "Gather", axis=0)
    _check_constant(
        graph,
        gather.operand("data"),
        np.array(graph.candidates, np.int64),
        "a controller chooses among the pairs of metadata 'dqtsim.candidates'",
    )
    choice = _made_by(sources, gather.operand("indices"), "ArgMax", axis=1, keepdims=0, select_last_index=0)
    table = _made_by(sources, choice.operand("data"), "Reshape")
    _check_constant(
        graph,
        table.operand("shape"),
        np.array([len(graph.layers) - len(graph.pinned), len(graph.candidates)], np.int64),
        "a controller's logits are one row per layer without pinned widths, one column per candidate",
    )
    if table.operand("data") != graph.controller:
        raise ModelError(
            f"metadata 'dqtsim.controller' names the tensor from which the nodes compute '{BITS}'; "
            f"'{graph.controller}' is none."
        )


def _made_by(sources: Sources, tensor: str, operator: str, **attributes: int) -> Node:
    """Return the node that gives `tensor`; it must have this operator and these attributes."""
    node = sources.get(tensor)
    if node is None or node.operator != operator or any(node.attributes.get(k) != v for k, v in attributes.items()):
        options = ", ".join(f"{key} {value}" for key, value in attributes.items())
        found = "no node gives it" if node is None else f"{node.title} gives it"
        if node is not None and node.operator == operator:
            found += " with " + ", ".join(f"{key} {node.attributes.get(key)}" for key in attributes)
        raise ModelError(f"{DECISION}; '{tensor}' comes from {operator}{options and f' ({options})'}, but {found}.")
    return node


def _check_constant(graph: Graph, name: str, expected: Array, rule: str) -> None:
    """Refuse an initializer `name` other than `expected`, int64; `rule` begins the sentence."""
    array = graph.initializers.get(name)
    if array is None:
        raise ModelError(f"{rule}; '{name}' is no initializer.")
    if array.dtype != expected.dtype or array.shape != expected.shape:
        raise ModelError(
            f"{rule}; initializer '{name}' is {array.dtype} {array.shape} instead of {expected.dtype} {expected.shape}."
        )
    for entry, (found, wanted) in enumerate(zip(array.tolist(), expected.tolist(), strict=True)):
        if found != wanted:
            raise ModelError(f"{rule}; entry {entry} of initializer '{name}' is {found} instead of {wanted}.")


def _order(graph: Graph, name: str) -> Array:
    """Return the `bits.order` that `name` should hold: the row of each layer among pinned and chosen rows.

    Layers without pinned widths stand in the order of the metadata. A pinned one may use any row that holds its pair.
    """
    found = graph.initializers.get(name, np.zeros(0, np.int64)).reshape(-1)
    rows = [tuple(row) for row in graph.initializers[PINNED_BITS].tolist()] if PINNED_BITS in graph.initializers else []
    first = {pair: place for place, pair in reversed(list(enumerate(rows)))}
    places: list[int] = []
    free = len(graph.pinned)
    for number, layer in enumerate(graph.layers):
        if layer not in graph.pinned:
            places.append(free)
            free += 1
            continue
        pair = graph.pinned[layer]
        if pair not in first:
            raise ModelError(
                f"initializer '{PINNED_BITS}' holds the pairs of metadata 'dqtsim.pinned'; {pair} of layer '{layer}' "
                f"is not among them."
            )
        given = int(found[number]) if number < len(found) else -1
        places.append(given if 0 <= given < len(rows) and rows[given] == pair else first[pair])
    return np.array(places, np.int64)
