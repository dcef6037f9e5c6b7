"""One line of a case table: a graph of one operator, codes, and the integers that must come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from dqtsim.graph import Graph

ROUNDINGS = ("TIES_UP", "FLOOR", "TIES_AWAY", "TIES_EVEN")
# -2.5, -1.5, -0.5, 0.5, 1.5, 2.5: where ties go
TIES: Mapping[str, tuple[int, ...]] = {
    "TIES_UP": (-2, -1, 0, 1, 2, 3),
    "FLOOR": (-3, -2, -1, 0, 1, 2),
    "TIES_AWAY": (-3, -2, -1, 1, 2, 3),
    "TIES_EVEN": (-2, -2, 0, 0, 2, 2),
}
# quarters next to a tie: -1.75, -0.75, -0.25, 0.25, 0.75, 1.75
QUARTERS: Mapping[str, tuple[int, ...]] = {
    "TIES_UP": (-2, -1, 0, 0, 1, 2),
    "FLOOR": (-2, -1, -1, 0, 0, 1),
    "TIES_AWAY": (-2, -1, 0, 0, 1, 2),
    "TIES_EVEN": (-2, -1, 0, 0, 1, 2),
}


@dataclass(frozen=True)
class Case:
    """`x`: codes without batch axis. `expect`: the output 'y', flat. `sums`: the accumulators of 'y', flat.

    `target`: what differs from the default target. `narrow`: onnxruntime cannot give these bits, and must say so.
    """

    name: str
    graph: Callable[[], Graph]
    x: npt.ArrayLike
    expect: Sequence[int]
    sums: Sequence[int] | None = None
    target: Mapping[str, Any] = field(default_factory=dict)
    narrow: bool = False


def around(center: int, offsets: Sequence[int]) -> list[int]:
    """Return `center` plus each offset."""
    return [center + offset for offset in offsets]
