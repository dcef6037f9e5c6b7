"""MEANING: one operator, one file, one registration.

Every module of this folder that defines `OPERATOR` or `OPERATORS` is found by itself; there is no list to keep.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ..graph.model import Node
from .operator import (
    Arrays,
    Bound,
    Bounds,
    Call,
    Execute,
    Machine,
    Operator,
    Outcome,
    TensorType,
    Types,
    integers,
    overflow_error,
    refuse_widths,
    scalars,
)

__all__ = [
    "Arrays",
    "Bound",
    "Bounds",
    "Call",
    "Execute",
    "Machine",
    "Operator",
    "Outcome",
    "TensorType",
    "Types",
    "integers",
    "operator_of",
    "operators",
    "overflow_error",
    "refuse_widths",
    "scalars",
]


@cache
def operators() -> dict[tuple[str, str], Operator]:
    """Return every operator by (domain, name)."""
    found: dict[tuple[str, str], Operator] = {}
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for operator in getattr(module, "OPERATORS", ()):
            found[operator.domain, operator.name] = operator
    return found


def operator_of(node: Node) -> Operator:
    """Return the operator of `node`; the graph's checks have refused every other."""
    return operators()[node.domain, node.operator]
