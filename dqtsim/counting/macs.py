"""Nodes that multiply and accumulate, by data types: the keys of QONNX's `inference_cost`, and plain tables.

Data types have QONNX's names (UINT4, INT8, BIPOLAR, FLOAT32, ...). Counts are dense: zeros are multiplied too.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_NAMED = {"BINARY": 1, "BIPOLAR": 1, "BOOL": 1, "TERNARY": 2}


@dataclass(frozen=True)
class MacNode:
    """What one node multiplies. `weight_elements` is 0 where both operands are computed."""

    name: str
    operator: str
    input_type: str
    weight_type: str
    output_type: str
    macs: int
    weight_elements: int
    output_elements: int

    @property
    def bitops(self) -> int:
        """Return the MACs times both widths."""
        return self.macs * width_of(self.input_type) * width_of(self.weight_type)

    @property
    def weight_bits(self) -> int:
        """Return the bits of the weights."""
        return self.weight_elements * width_of(self.weight_type)


def width_of(data_type: str) -> int:
    """Return the bits of a data type by its name; 0 for a type that has no width, such as STRING."""
    found = re.search("[0-9]+", data_type)
    return _NAMED.get(data_type) or (int(found.group()) if found else 0)


def inference_cost(nodes: Iterable[MacNode]) -> dict[str, Any]:
    """Return the counts under the keys of QONNX's `inference_cost`, input type first, as integers."""
    by_node: dict[str, Counter[str]] = {}
    by_type: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for node in nodes:
        entry = Counter(
            {
                f"op_mac_{node.input_type}_{node.weight_type}": node.macs,
                f"mem_w_{node.weight_type}": node.weight_elements,
                f"mem_o_{node.output_type}": node.output_elements,
            }
        )
        by_node[node.name] = entry
        by_type.setdefault(node.operator, Counter()).update(entry)
        total.update(entry)
    return {
        "total_cost": {**_summed(total), "unsupported": "set()", "discount_sparsity": False},
        "optype_cost": {operator: _summed(entry) for operator, entry in by_type.items()},
        "node_cost": {name: _summed(entry) for name, entry in by_node.items()},
    }


def _summed(entry: Counter[str]) -> dict[str, int]:
    """Return `entry` with its totals, as QONNX computes them from its own keys."""
    out = dict(entry)
    for what in ("w", "o"):
        keys = [key for key in entry if key.startswith(f"mem_{what}_")]
        out[f"total_mem_{what}_bits"] = sum(width_of(key.split("_")[2]) * entry[key] for key in keys)
        out[f"total_mem_{what}_elems"] = sum(entry[key] for key in keys)
    products = {key: key.split("_")[2:] for key in entry if key.startswith("op_mac_")}
    out["total_bops"] = sum(width_of(x) * width_of(w) * entry[key] for key, (x, w) in products.items())
    out["total_macs"] = sum(entry[key] for key in products)
    return out


def print_nodes(console: "Console", nodes: Sequence[MacNode], others: Counter[str], by: str, title: str) -> None:
    """Print a row for each node, operator type or pair of data types, and what multiplies nothing."""
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
