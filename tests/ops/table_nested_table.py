"""NestedTable (B9, B9'): any function of one code, by its results, for all channels or one per channel."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from dqtsim.graph import Graph, GraphBuilder
from tests.builders import constants, node, plain, tabled

from .case import Case

REVERSED = range(255, -1, -1)
# a code and its table tell apart: 7 is prime to 256, so every code comes out once
STIRRED = [(7 * q + 3) % 256 for q in range(256)]


def one(shape: Sequence[int], table: npt.ArrayLike, *, n: int = 8) -> Graph:
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


def reshaped(shape: Sequence[int]) -> Graph:
    """Return a table 'y' of codes 'x' (1, 6) that a Reshape made into `shape`."""
    arrays = {"table": np.array(STIRRED, np.uint8), **constants(shape=shape)}
    table_node = replace(node("NestedTable", ["in", "table"], "y"), domain="dqtsim")
    nodes = [node("Reshape", ["x", "shape"], "in", allowzero=0), table_node]
    return plain((6,), nodes, shape, arrays=arrays)


def of_a_constant() -> Graph:
    """Return the codes 'x' (1, 2) and behind them what a table has for two codes that no sample changes."""
    arrays = {"table": np.array(STIRRED, np.uint8), "codes": np.array([[0, 255]], np.uint8)}
    fixed = replace(node("NestedTable", ["codes", "table"], "fixed"), domain="dqtsim")
    return plain((2,), [fixed, node("Concat", ["x", "fixed"], "y", axis=1)], (1, 4), arrays=arrays)


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
    Case("three dimensions", partial(reshaped, (2, 1, 3)), range(6), STIRRED[:6]),
    Case("planes of a flat tensor", partial(reshaped, (1, 3, 2, 1)), range(6), STIRRED[:6]),
    Case("a first dimension of six", partial(reshaped, (6, 1, 1, 1)), range(6), STIRRED[:6]),
    Case("codes that no sample changes", of_a_constant, [1, 2], [1, 2, STIRRED[0], STIRRED[255]]),
    Case("a table per channel", partial(one, (2, 1, 3), [EVERY, list(REVERSED)]), [[[0, 1, 255]], [[0, 1, 255]]],
         [0, 1, 255, 255, 254, 0]),
    Case("a table per channel, one channel", partial(one, (1, 2, 1), [STIRRED]), [[[1], [2]]],
         [STIRRED[1], STIRRED[2]]),
    Case("a table per channel, 5 channels",
         partial(one, (5, 2, 2), [[(q + 40 * c) % 256 for q in EVERY] for c in range(5)]),
         [[[c, 1], [2, 3]] for c in range(5)], [40 * c + q for c in range(5) for q in (c, 1, 2, 3)]),
    Case("a table per channel, 17 channels", partial(one, (17, 1, 2), [[c] * 255 + [c + 100] for c in range(17)]),
         [[[254, 255]]] * 17, [y for c in range(17) for y in (c, c + 100)]),
    Case("a table per channel, flat", partial(one, (11,), [[(q + c) % 256 for q in EVERY] for c in range(11)]),
         range(11), [2 * c for c in range(11)]),
    Case("a table per channel, master width 2", partial(one, (2, 1, 2), [[0, 1, 2, 3], [3, 2, 1, 0]], n=2),
         [[[1, 3]], [[1, 3]]], [1, 3, 2, 0]),
    Case("master width 2", partial(one, (4,), [3, 2, 1, 0], n=2), [0, 1, 2, 3], [3, 2, 1, 0]),
    Case(
        "master width 5",
        partial(one, (3, 1, 1), [(3 * q + 1) % 32 for q in range(32)], n=5),
        [[[0]], [[7]], [[31]]],
        [1, 22, 30],
    ),
]  # fmt: skip
