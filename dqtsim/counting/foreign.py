"""Counting a file of standard operators: MACs and BitOPs by the widths that a frontend found there."""

from ..frontends.products import Products
from .macs import MacNode


def count_foreign(found: Products) -> list[MacNode]:
    """Return the cost, for one input, of every node that multiplies; sums are FLOAT32 or INT32, as the operands are."""
    return [
        MacNode(
            name=node.name,
            operator=node.operator,
            input_type=node.input_type,
            weight_type=node.weight_type,
            output_type="FLOAT32" if "FLOAT" in node.input_type + node.weight_type else "INT32",
            macs=node.outputs * node.taps,
            weight_elements=node.weights,
            output_elements=node.outputs,
        )
        for node in found.nodes
    ]
