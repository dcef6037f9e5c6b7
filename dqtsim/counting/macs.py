"""Nodes that multiply and accumulate, by data types, and their sums under the keys of QONNX's `inference_cost`.

Data types have QONNX's names (UINT4, INT8, BIPOLAR, FLOAT32, ...). Counts are dense: zeros are multiplied too.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..frontends.products import width_of


@dataclass(frozen=True)
class MacNode:
    """The products of one node. `weight_elements` is 0 if both operands are computed."""

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
