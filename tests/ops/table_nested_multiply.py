"""NestedMultiply (B10): a product of two codes, by tensors of one shape and by one code per channel."""

from collections.abc import Sequence
from functools import partial

from dqtsim.graph import Graph, GraphBuilder
from dqtsim.spec import Rounding
from tests.builders import multiply

from .case import QUARTERS, ROUNDINGS, TIES, Case, around


def ties() -> list[Case]:
    cases = []
    for rounding in ROUNDINGS:
        for name, offsets, shift, table in (
            ("halves", (-5, -3, -1, 1, 3, 5), 1, TIES),
            ("quarters", (-7, -3, -1, 1, 3, 7), 2, QUARTERS),
        ):
            graph = partial(multiply, 6, z_a=128, z_b=50, z_y=128, shift=shift)
            x = [*around(128, offsets), *[51] * 6]  # the second factor is 1
            expect = around(128, table[rounding])
            cases.append(Case(f"{name} {rounding}", partial(graph, rounding=Rounding(rounding)), x, expect))
            negative = [*around(128, [-offset for offset in offsets]), *[49] * 6]  # the second factor is -1
            cases.append(
                Case(f"{name} of negatives {rounding}", partial(graph, rounding=Rounding(rounding)), negative, expect)
            )
            ours = {"rounding": Rounding(rounding)}
            cases.append(Case(f"{name} {rounding} by the target", graph, x, expect, None, ours, rounding != "TIES_UP"))
    return cases


def gated(
    shape: Sequence[int], *, z: int = 0, z_gate: int = 0, multiplier: int = 1, shift: int = 0, n: int = 8
) -> Graph:
    """Return a graph that multiplies the codes 'x' of `shape` by the greatest code of each channel."""
    b = GraphBuilder("gated", master_width=n, candidates=((2, 2),))
    x = b.input("x", (1, *shape), zero_point=z, scale=1.0)
    gate = b.max_pool("gate", x, kernel=(shape[1], shape[2]), strides=(1, 1))
    if z_gate != z:
        gate = b.requantize("moved", gate, multiplier=1, shift=0, zero_point=z_gate, scale=1.0, clip=(0, (1 << n) - 1))
    top = (1 << n) - 1
    b.output(b.multiply("y", x, gate, multiplier=multiplier, shift=shift, zero_point=0, scale=1.0, clip=(0, top)))
    return b.build()


def squares(shape: Sequence[int], *, shift: int = 0) -> Graph:
    """Return a graph of the squares of the codes 'x' of `shape`, one rank or another."""
    b = GraphBuilder("squares", candidates=((2, 2),))
    x = b.input("x", (1, *shape), zero_point=100, scale=1.0)
    b.output(b.multiply("y", x, x, multiplier=1, shift=shift, zero_point=3, scale=1.0, clip=(0, 255)))
    return b.build()


LARGEST = (1 << 31) - 1
OPERATOR = ("dqtsim", "NestedMultiply")
CASES = [
    *ties(),
    Case("product", partial(multiply, 3), [1, 2, 3, 10, 20, 30], [10, 40, 90]),
    Case("clip at the top", partial(multiply, 3), [255, 16, 15, 255, 16, 17], [255, 255, 255]),
    Case("clip bounds", partial(multiply, 4, clip=(100, 150)), [9, 10, 15, 15, 11, 10, 10, 11], [100, 100, 150, 150]),
    Case("three zero points", partial(multiply, 3, z_a=128, z_b=7, z_y=50), [128, 130, 126, 9, 9, 9], [50, 54, 46]),
    Case("both negative", partial(multiply, 2, z_a=128, z_b=128, z_y=9), [118, 118, 120, 136], [89, 0]),
    Case("a factor", partial(multiply, 3, multiplier=3, shift=1), [1, 3, 0, 1, 3, 9], [2, 14, 0]),  # 1.5, 13.5
    Case("multiplier 0", partial(multiply, 1, multiplier=0, z_y=9), [255, 255], [9]),
    Case("least product", partial(multiply, 1, z_a=0, z_b=255, z_y=255, shift=8), [255, 0], [1]),  # -254.004
    Case("greatest product", partial(multiply, 1, z_a=255, z_b=255, shift=8), [0, 0], [254]),  # 254.004
    Case("16-bit multiplier", partial(multiply, 1, multiplier=65535, shift=24), [255, 255], [254]),
    Case("16-bit multiplier, shift 61", partial(multiply, 1, multiplier=65535, shift=61), [255, 255], [0]),
    Case("16-bit multiplier, shift 62", partial(multiply, 1, multiplier=65535, shift=62, z_y=7), [255, 255], [7]),
    Case(
        "31-bit multiplier",
        partial(multiply, 1, multiplier=LARGEST, shift=40),
        [255, 255],
        [127],  # 65025 / 512 - a little: 127.002
        target={"multiplier_width": 31},
    ),
    Case("squares of a picture", partial(squares, (1, 2, 3)), [[[100, 101, 99], [90, 116, 80]]],
         [3, 4, 4, 103, 255, 255]),
    Case("squares of 17 channels", partial(squares, (17, 1, 1)), [[[100 + c]] for c in range(17)],
         [min(255, 3 + c * c) for c in range(17)]),
    Case("squares of 37 codes", partial(squares, (37,), shift=4), [100 + c for c in range(37)],
         [3 + (c * c + 8) // 16 for c in range(37)]),
    Case("one code per channel", partial(gated, (2, 2, 2)), [[[1, 2], [3, 4]], [[5, 6], [7, 0]]],
         [4, 8, 12, 16, 35, 42, 49, 0]),
    Case("one code per channel, 5 channels", partial(gated, (5, 1, 2)), [[[c, 1]] for c in range(5)],
         [0, 1, 1, 1, 4, 2, 9, 3, 16, 4]),
    Case("one code per channel, 17 channels", partial(gated, (17, 2, 1), shift=1), [[[c], [2 * c]] for c in range(17)],
         [y for c in range(17) for y in (min(255, c * c), min(255, 2 * c * c))]),
    Case("one code per channel, one pixel", partial(gated, (3, 1, 1)), [[[3]], [[15]], [[16]]], [9, 225, 255]),
    Case("one code per channel, zero points", partial(gated, (1, 1, 3), z=5, z_gate=2), [[[5, 6, 7]]], [0, 2, 4]),
    Case("one code per channel, master width 4", partial(gated, (1, 1, 3), n=4, shift=2), [[[15, 3, 1]]], [15, 11, 4]),
]  # fmt: skip
