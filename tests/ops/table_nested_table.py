"""NestedTable (B9): any function of one code, by its results."""

from collections.abc import Sequence
from functools import partial

from dqtsim.graph import Graph, GraphBuilder
from tests.builders import tabled

from .case import Case

REVERSED = range(255, -1, -1)
# a code and its table tell apart: 7 is prime to 256, so every code comes out once
STIRRED = [(7 * q + 3) % 256 for q in range(256)]


def one(shape: Sequence[int], table: Sequence[int], *, n: int = 8) -> Graph:
    """Return a graph of one table 'y' on codes 'x' of shape `shape`."""
    b = GraphBuilder("one", master_width=n, candidates=((2, 2),))
    x = b.input("x", (1, *shape), zero_point=0, scale=1.0)
    b.output(tabled(b, "y", x, table))
    return b.build()


def folded() -> Graph:
    """Return a table between two others: what it reaches is what the first one gives."""
    b = GraphBuilder("three", candidates=((2, 2),))
    x = b.input("x", (1, 4), zero_point=0, scale=1.0)
    low = tabled(b, "low", x, [q // 16 for q in range(256)])
    b.output(tabled(b, "y", tabled(b, "moved", low, STIRRED), REVERSED))
    return b.build()


def table_of(low: int, high: int) -> list[int]:
    """Return a table that has only two values, one code apart."""
    return [low if q % 2 else high for q in range(256)]


EVERY = list(range(256))
OPERATOR = ("dqtsim", "NestedTable")
CASES = [
    Case("identity", partial(one, (256,), EVERY), EVERY, EVERY),
    Case("reversed", partial(one, (256,), REVERSED), EVERY, list(REVERSED)),
    Case("every code once", partial(one, (256,), STIRRED), EVERY, STIRRED),
    Case("constant", partial(one, (4,), [77] * 256), [0, 1, 128, 255], [77] * 4),
    Case("least and greatest code", partial(one, (4,), table_of(0, 255)), [0, 1, 254, 255], [255, 0, 255, 0]),
    Case("one element", partial(one, (1,), STIRRED), [255], [STIRRED[255]]),
    Case("one pixel", partial(one, (1, 1, 1), REVERSED), [[[200]]], [55]),
    Case(
        "3 channels", partial(one, (3, 1, 2), REVERSED), [[[0, 1]], [[2, 3]], [[4, 5]]], [255, 254, 253, 252, 251, 250]
    ),
    Case(
        "5 channels",
        partial(one, (5, 2, 1), STIRRED),
        [[[c], [c + 9]] for c in range(5)],
        [STIRRED[q] for c in range(5) for q in (c, c + 9)],
    ),
    Case("17 channels", partial(one, (17, 1, 1), REVERSED), [[[q]] for q in range(17)], [255 - q for q in range(17)]),
    Case("a table after tables", folded, [0, 16, 128, 255], [255 - STIRRED[q] for q in (0, 1, 8, 15)]),
    Case("master width 2", partial(one, (4,), [3, 2, 1, 0], n=2), [0, 1, 2, 3], [3, 2, 1, 0]),
    Case(
        "master width 5",
        partial(one, (3, 1, 1), [(3 * q + 1) % 32 for q in range(32)], n=5),
        [[[0]], [[7]], [[31]]],
        [1, 22, 30],
    ),
]
