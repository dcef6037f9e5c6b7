"""The counts of a standard model as tables, as JSON and as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...counting.macs import MacNode

if TYPE_CHECKING:
    from rich.console import Console


def print_nodes(console: "Console", nodes: Sequence[MacNode], others: Counter[str], by: str, title: str) -> None:
    """Print a row for each node, operator type or pair of data types, and the operators that multiply nothing."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    keys = {
        "layer": ("node", "operator", "input", "weights"),
        "type": ("operator", "nodes"),
        "width": ("types", "nodes"),
    }
    for position, heading in enumerate((*keys[by], "MACs", "BitOPs", "weight bits")):
        table.add_column(heading, justify="right" if position >= (4 if by == "layer" else 1) else "left")
    if by == "layer":
        for node in nodes:
            table.add_row(node.name, node.operator, node.input_type, node.weight_type, *_sums([node]))
    else:
        for key, members in _groups(nodes, by).items():
            table.add_row(key, str(len(members)), *_sums(members))
    blank = ["", "", ""] if by == "layer" else [str(len(nodes))]
    table.add_row("total", *blank, *_sums(nodes), style="bold")
    console.print(table)
    if others:
        listed = ", ".join(f"{times} {operator}" for operator, times in sorted(others.items()))
        console.print(f"no MACs, not counted: {listed}", style="dim")


def _groups(nodes: Iterable[MacNode], by: str) -> dict[str, list[MacNode]]:
    groups: dict[str, list[MacNode]] = {}
    for node in nodes:
        key = node.operator if by == "type" else f"{node.input_type} x {node.weight_type}"
        groups.setdefault(key, []).append(node)
    return groups


def _sums(nodes: Iterable[MacNode]) -> list[str]:
    rows = [(node.macs, node.bitops, node.weight_bits) for node in nodes]
    return [f"{sum(column):,}" for column in zip(*rows, strict=True)] if rows else ["0", "0", "0"]


def nodes_csv(nodes: Iterable[MacNode]) -> str:
    """Return one line per node."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["node", "operator", "input_type", "weight_type", "macs", "bitops", "weight_bits", "output_elements"]
    )
    for node in nodes:
        types = (node.input_type, node.weight_type)
        writer.writerow(
            [node.name, node.operator, *types, node.macs, node.bitops, node.weight_bits, node.output_elements]
        )
    return text.getvalue()


def nodes_block(nodes: Sequence[MacNode], others: Counter[str]) -> dict[str, Any]:
    """Return our own counts of a standard model as a JSON object."""
    return {
        "total": {
            "macs": sum(node.macs for node in nodes),
            "bitops": sum(node.bitops for node in nodes),
            "weight_bits": sum(node.weight_bits for node in nodes),
        },
        "nodes": [
            {
                "name": node.name,
                "operator": node.operator,
                "input_type": node.input_type,
                "weight_type": node.weight_type,
                "macs": node.macs,
                "bitops": node.bitops,
                "weight_bits": node.weight_bits,
            }
            for node in nodes
        ],
        "without_macs": dict(sorted(others.items())),
    }
