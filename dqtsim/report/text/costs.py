"""Counts as tables, as JSON (QONNX's keys and our own) and as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...counting.counts import CONTROLLER, LAYER, OTHER, NodeCount, Traffic, figures, storage, storage_of_codes, totals
from ...counting.distribution import KIND_NAMES
from ...counting.macs import MacNode, inference_cost
from ...energy import EnergyTable
from ...ops.primitives import ACTIVATION_SHIFT, COMMON, WEIGHT_NESTING, WEIGHT_SHIFT, Cost
from ...planner import Plan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_KINDS = {LAYER: "layers", **KIND_NAMES}
_COLUMNS = (
    "MACs",
    "BitOPs",
    "weights nested",
    "acts nested",
    "after acc.",
    "traffic",
    "cycles",
    "energy",
    "of it MACs",
)


def after_accumulator(cost: Cost) -> int:
    """Return how many primitives follow the accumulator: alignment, bias, requantization, adds, pools, compares …"""
    return sum(
        times
        for name, times in cost.primitives.items()
        if not name.value.startswith(("weight_nest", "activation_nest"))
    )


def print_layers(
    console: "Console", plan: Plan, counts: Sequence[NodeCount], title: str, energy: EnergyTable | None = None
) -> None:
    """Print a row for each layer, a row for each kind of other nodes, then the total."""
    table = _table(title, "node", "widths", *_COLUMNS)
    for item in counts:
        if item.kind == LAYER:
            _row(table, item.name, _widths_text(item), item.cost, item.traffic, item.cycles, item.energy)
    for kind in (CONTROLLER, OTHER):
        if any(item.kind == kind for item in counts):
            _row(table, _KINDS[kind], "", *totals(counts, kind), style="dim")
    _row(table, "total", "", *totals(counts), style="bold")
    console.print(table)
    _print_notes(console, plan, counts, energy)


def print_by(console: "Console", counts: Sequence[NodeCount], by: str, title: str) -> None:
    """Print totals by operator type or by pair of widths."""
    groups: dict[str, list[NodeCount]] = {}
    for item in counts:
        key = item.operator if by == "type" else _widths_text(item) or "no MACs"
        groups.setdefault(key, []).append(item)
    table = _table(title, "operator" if by == "type" else "widths", "nodes", *_COLUMNS)
    for key, members in groups.items():
        _row(table, key, str(len(members)), *totals(members))
    _row(table, "total", str(len(counts)), *totals(counts), style="bold")
    console.print(table)


def _widths_text(item: NodeCount) -> str:
    from .runs import widths_text

    return widths_text(item.widths) if item.widths else ""


def _table(title: str, *headings: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    return table


def _row(
    table: "Table",
    name: str,
    second: str,
    cost: Cost,
    traffic: Traffic,
    cycle: int,
    energy: dict[str, float],
    style: str = "",
) -> None:
    from .runs import giga

    picojoule = sum(energy.values())
    table.add_row(
        name,
        second,
        f"{sum(cost.macs.values()):,}",
        f"{cost.bitops:,}",
        f"{cost.primitives[WEIGHT_SHIFT]:,}",
        f"{cost.primitives[ACTIVATION_SHIFT]:,}",
        f"{after_accumulator(cost):,}",
        f"{giga(traffic.total)}b",
        f"{cycle:,}",
        f"{picojoule / 1e6:.3g} uJ",
        f"{100 * energy.get('macs', 0.0) / picojoule:.0f} %" if picojoule else "",
        style=style or None,
    )


def _print_notes(console: "Console", plan: Plan, counts: Sequence[NodeCount], energy: EnergyTable | None) -> None:
    """Print the notes below the rows: kept weights, storage, and which energies are read."""
    from .runs import giga

    bits = storage(plan)
    rows = "biases, multipliers, shifts and tables" if storage_of_codes(plan) else "biases, multipliers and shifts"
    console.print("weights nested: on the fly; 0 where nested weights are kept and widths stay", style="dim")
    console.print(
        f"storage: {giga(bits['weights'])}b of weights at {plan.machine.n} bits, {giga(bits['tables'])}b of {rows}; "
        f"target {plan.target.name}",
        style="dim",
    )
    if energy is not None:
        names: dict[bool, list[str]] = {True: [], False: []}
        for figure in figures(plan, counts, energy):
            names[figure.read].append(f"{figure.operation} {'x'.join(map(str, figure.bits))}")
        console.print(
            f"energy {energy.name}: {', '.join(names[True]) or 'nothing'} read from the source, "
            f"{', '.join(names[False]) or 'nothing'} interpolated",
            style="dim",
        )


def as_csv(counts: Sequence[NodeCount]) -> str:
    """Return one line per node with every count: the common ones, then those that belong to an operator of the file."""
    text = io.StringIO()
    own = {primitive for item in counts for primitive in item.cost.primitives} - set(COMMON)
    primitives = [*COMMON, *sorted(own)]
    writer = csv.writer(text, lineterminator="\n")
    moved_names = ("weight_bits", "weight_bits_kept", "activation_in_bits", "activation_out_bits", "table_bits")
    heading = ["node", "operator", "kind", "weight_width", "activation_width", "macs", "bitops"]
    writer.writerow([*heading, *(primitive.value for primitive in primitives), *moved_names, "cycles", "energy_pj"])
    for item in counts:
        pair = item.widths or ("", "")
        traffic = item.traffic
        moved = (traffic.weights, traffic.weights_kept, traffic.activations_in, traffic.activations_out)
        writer.writerow(
            [item.name, item.operator, item.kind, *pair, sum(item.cost.macs.values()), item.cost.bitops]
            + [item.cost.primitives[primitive] for primitive in primitives]
            + [sum(bits.values()) for bits in moved]
            + [traffic.tables, item.cycles, f"{sum(item.energy.values()):.3f}"]
        )
    return text.getvalue()


def own_block(plan: Plan, counts: Sequence[NodeCount], energy: EnergyTable) -> dict[str, Any]:
    """Return our counts as a JSON object: totals, by kind, and per node; integers stay integers."""
    return {
        "energy_table": energy.name,
        "energy_figures": [figure._asdict() for figure in figures(plan, counts, energy)],
        "total": _block(*totals(counts)),
        "by_kind": {_KINDS[kind]: _block(*totals(counts, kind)) for kind in (LAYER, CONTROLLER, OTHER)},
        "storage_bits": storage(plan),
        "nodes": [
            {"name": item.name, "operator": item.operator, "kind": item.kind, "widths": item.widths}
            | _block(item.cost, item.traffic, item.cycles, item.energy)
            for item in counts
        ],
    }


def _block(cost: Cost, traffic: Traffic, cycle: int, energy: dict[str, float]) -> dict[str, Any]:
    kept = {key.value: 0 if key in WEIGHT_NESTING else times for key, times in cost.primitives.items()}
    return {
        "macs": sum(cost.macs.values()),
        "bitops": cost.bitops,
        "macs_by_widths": {f"w{w}a{a}": times for (w, a), times in sorted(cost.macs.items())},
        "operations": {key.value: times for key, times in sorted(cost.primitives.items())},
        "operations_if_widths_stay": kept,
        "traffic_bits": {
            "weights": dict(traffic.weights),
            "weights_kept_nested": dict(traffic.weights_kept),
            "activations_in": dict(traffic.activations_in),
            "activations_out": dict(traffic.activations_out),
            "tables": traffic.tables,
            "total": traffic.total,
        },
        "cycles": cycle,
        "energy_pj": {**energy, "total": sum(energy.values())},
    }


def qonnx_block(counts: Sequence[NodeCount]) -> dict[str, Any]:
    """Return the counts under the keys of QONNX's `inference_cost`: weights are signed, activations unsigned.

    Only nodes with MACs are counted, the controller's included, because QONNX counts only nodes that multiply. As
    there, the output of a node is its accumulators, because requantization is another node.
    """
    return inference_cost(
        MacNode(
            name=item.name,
            operator=item.operator,
            input_type=f"UINT{item.widths[1]}",
            weight_type=f"INT{item.widths[0]}",
            output_type=f"INT{item.accumulator_bits}",
            macs=sum(item.cost.macs.values()),
            weight_elements=item.weight_elements,
            output_elements=item.output_elements,
        )
        for item in counts
        if item.widths
    )
