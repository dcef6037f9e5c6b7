"""Counts as a person reads them, as JSON (QONNX's keys and our own) and as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ..ops.cost import Cost, Primitive
from ..planner import Plan
from .counts import CONTROLLER, LAYER, OTHER, WEIGHT_NESTING, NodeCount, Traffic, storage, totals
from .runs import giga, widths_text

_KINDS = {LAYER: "layers", CONTROLLER: "controller", OTHER: "adds, pools, moves"}


def after_accumulator(cost: Cost) -> int:
    """Return how many primitives follow the accumulator: alignment, bias, requantization, adds, pools, compares."""
    return sum(
        times
        for name, times in cost.primitives.items()
        if not name.value.startswith(("weight_nest", "activation_nest"))
    )


def nested(cost: Cost) -> int:
    """Return how many shifts nesting on the fly takes, weights and activations together."""
    return cost.primitives[Primitive.WEIGHT_SHIFT] + cost.primitives[Primitive.ACTIVATION_SHIFT]


def print_layers(console: Console, plan: Plan, counts: Sequence[NodeCount], title: str) -> None:
    """Print a row for each layer, then what is not a layer in one row each, then the total."""
    table = _table(title, "node", "widths", *_COLUMNS)
    for item in counts:
        if item.kind == LAYER:
            pair = widths_text(item.widths) if item.widths else ""
            _row(table, item.name, pair, item.cost, item.traffic, item.cycles, item.energy)
    for kind in (CONTROLLER, OTHER):
        if any(item.kind == kind for item in counts):
            _row(table, _KINDS[kind], "", *totals(counts, kind), style="dim")
    _row(table, "total", "", *totals(counts), style="bold")
    console.print(table)
    _print_storage(console, plan)


def print_by(console: Console, counts: Sequence[NodeCount], by: str, title: str) -> None:
    """Print totals by operator type or by pair of widths."""
    groups: dict[str, list[NodeCount]] = {}
    for item in counts:
        key = item.operator if by == "type" else widths_text(item.widths) if item.widths else "no MACs"
        groups.setdefault(key, []).append(item)
    table = _table(title, "operator" if by == "type" else "widths", "nodes", *_COLUMNS)
    for key, members in groups.items():
        cost, traffic, cycle, energy = totals(members)
        if cost.macs or cost.primitives or traffic.total:
            _row(table, key, str(len(members)), cost, traffic, cycle, energy)
    _row(table, "total", str(len(counts)), *totals(counts), style="bold")
    console.print(table)


_COLUMNS = ("MACs", "BitOPs", "nested", "after acc.", "traffic", "cycles", "energy", "of it MACs")


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    return table


def _row(
    table: Table,
    name: str,
    second: str,
    cost: Cost,
    traffic: Traffic,
    cycle: int,
    energy: dict[str, float],
    style: str = "",
) -> None:
    picojoule = sum(energy.values())
    table.add_row(
        name,
        second,
        f"{sum(cost.macs.values()):,}",
        f"{cost.bitops:,}",
        f"{nested(cost):,}",
        f"{after_accumulator(cost):,}",
        f"{giga(traffic.total)}b",
        f"{cycle:,}",
        f"{picojoule / 1e6:.3g} uJ",
        f"{100 * energy.get('macs', 0.0) / picojoule:.0f} %" if picojoule else "",
        style=style or None,
    )


def _print_storage(console: Console, plan: Plan) -> None:
    bits = storage(plan)
    console.print(
        f"storage {giga(bits['weights'])}b of weights at {plan.machine.n} bits, {giga(bits['tables'])}b of biases, "
        f"multipliers and shifts; target {plan.target.name}"
    )


def as_csv(counts: Sequence[NodeCount]) -> str:
    """Return one line per node with every count."""
    text = io.StringIO()
    names = [primitive.value for primitive in Primitive]
    writer = csv.writer(text, lineterminator="\n")
    moved_names = ("weight_bits", "weight_bits_kept", "activation_in_bits", "activation_out_bits", "table_bits")
    heading = ["node", "operator", "kind", "weight_width", "activation_width", "macs", "bitops"]
    writer.writerow([*heading, *names, *moved_names, "cycles", "energy_pj"])
    for item in counts:
        pair = item.widths or ("", "")
        traffic = item.traffic
        moved = (traffic.weights, traffic.weights_kept, traffic.activations_in, traffic.activations_out)
        writer.writerow(
            [item.name, item.operator, item.kind, *pair, sum(item.cost.macs.values()), item.cost.bitops]
            + [item.cost.primitives[Primitive(name)] for name in names]
            + [sum(bits.values()) for bits in moved]
            + [traffic.tables, item.cycles, f"{sum(item.energy.values()):.3f}"]
        )
    return text.getvalue()


def own_block(plan: Plan, counts: Sequence[NodeCount]) -> dict[str, Any]:
    """Return our counts as a JSON object: totals, by kind, and per node; integers stay integers."""
    return {
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
    """Return the counts under the keys of QONNX's `inference_cost`, dense: weights are signed, activations unsigned.

    Only nodes with MACs take part, the controller's included, as QONNX counts only what multiplies.
    """
    by_node: dict[str, dict[str, int]] = {}
    by_type: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for item in counts:
        if item.widths is None:
            continue
        w, a = item.widths
        entry = {
            f"op_mac_UINT{a}_INT{w}": sum(item.cost.macs.values()),
            f"mem_w_INT{w}": item.weight_elements,
            f"mem_o_INT{item.output_bits}"
            if item.output_bits == 32
            else f"mem_o_UINT{item.output_bits}": item.output_elements,
        }
        by_node[item.name] = entry
        by_type.setdefault(item.operator, Counter()).update(entry)
        total.update(entry)
    return {
        "total_cost": {**summed(total), "unsupported": "set()", "discount_sparsity": False},
        "optype_cost": {operator: summed(entry) for operator, entry in by_type.items()},
        "node_cost": {name: summed(entry) for name, entry in by_node.items()},
    }


def summed(entry: Counter[str] | dict[str, int]) -> dict[str, int]:
    """Return `entry` with its totals, as QONNX computes them from its own keys."""
    out = {key: int(value) for key, value in entry.items()}
    for what in ("w", "o"):
        keys = [key for key in entry if key.startswith(f"mem_{what}_")]
        out[f"total_mem_{what}_bits"] = sum(_width(key.split("_")[-1]) * entry[key] for key in keys)
        out[f"total_mem_{what}_elems"] = sum(entry[key] for key in keys)
    macs = [key for key in entry if key.startswith("op_mac_")]
    out["total_bops"] = sum(_width(key.split("_")[2]) * _width(key.split("_")[3]) * entry[key] for key in macs)
    out["total_macs"] = sum(entry[key] for key in macs)
    return out


def _width(dtype: str) -> int:
    return {"BIPOLAR": 1, "BINARY": 1, "TERNARY": 2}.get(dtype) or int("".join(filter(str.isdigit, dtype)))
