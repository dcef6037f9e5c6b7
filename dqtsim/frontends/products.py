"""What a file of standard operators multiplies: data types by QONNX's names, and shapes.

Names are UINT4, INT8, BIPOLAR, FLOAT32, ...; a frontend finds them, `counting` counts with them.
"""

import re
from collections import Counter
from dataclasses import dataclass

_NAMED = {"BINARY": 1, "BIPOLAR": 1, "BOOL": 1, "TERNARY": 2}
DATA_TYPE = re.compile("U?INT[1-9][0-9]?|BINARY|BIPOLAR|TERNARY|FLOAT(16|32)|FIXED<[0-9]+,[0-9]+>|SCALEDINT<[0-9]+>")


@dataclass(frozen=True)
class Product:
    """A node that multiplies and accumulates: `taps` products for each output.

    `weights` is how many elements the weights have, 0 where both operands are computed.
    """

    name: str
    operator: str
    input_type: str
    weight_type: str
    outputs: int
    taps: int
    weights: int


@dataclass(frozen=True)
class Products:
    """All that a network multiplies for one input, and how many nodes of each other operator it has."""

    network: str
    nodes: tuple[Product, ...]
    others: Counter[str]


def width_of(data_type: str) -> int:
    """Return the bits of a data type by its name; 0 for a type that has no width, such as STRING."""
    found = re.search("[0-9]+", data_type)
    return _NAMED.get(data_type) or (int(found.group()) if found else 0)
