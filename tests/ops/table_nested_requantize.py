"""NestedRequantize (B4): the same values on another grid."""

from functools import partial

from dqtsim.spec import Rounding
from tests.builders import pooled

from .case import QUARTERS, ROUNDINGS, TIES, Case, around

requantize = partial(pooled, kind="requantize")


def ties() -> list[Case]:
    cases = []
    for rounding in ROUNDINGS:
        for name, offsets, shift, table in (
            ("halves", (-5, -3, -1, 1, 3, 5), 1, TIES),
            ("quarters", (-7, -3, -1, 1, 3, 7), 2, QUARTERS),
        ):
            graph = partial(requantize, (6,), z_x=60, zero_point=128, multiplier=1, shift=shift)
            x, expect = around(60, offsets), around(128, table[rounding])
            cases.append(Case(f"{name} {rounding}", partial(graph, rules={"rounding": rounding}), x, expect))
            ours = {"rounding": Rounding(rounding)}
            cases.append(Case(f"{name} {rounding} by the target", graph, x, expect, None, ours, rounding != "TIES_UP"))
    return cases


OPERATOR = ("dqtsim", "NestedRequantize")
CASES = [
    *ties(),
    Case("same grid", partial(requantize, (5,)), [0, 1, 127, 128, 255], [0, 1, 127, 128, 255]),
    Case("another zero point", partial(requantize, (4,), z_x=7, zero_point=128), [0, 7, 8, 255], [121, 128, 129, 255]),
    Case("twice", partial(requantize, (4,), shift=14), [0, 1, 127, 128], [0, 2, 254, 255]),
    Case("half", partial(requantize, (4,), shift=16, z_x=128, zero_point=128), [0, 127, 129, 255], [64, 128, 129, 192]),
    Case("clip", partial(requantize, (4,), clip=(100, 150)), [0, 100, 150, 255], [100, 100, 150, 150]),
    Case("a picture", partial(requantize, (2, 1, 2), zero_point=1), [[[1, 2]], [[3, 4]]], [2, 3, 4, 5]),
    Case("largest multiplier", partial(requantize, (2,), multiplier=65535, shift=16), [0, 255], [0, 255]),
    Case(
        "master width 5",
        partial(requantize, (3,), rules={"master_width": 5}, z_x=16, zero_point=15),
        [0, 16, 31],
        [0, 15, 30],
    ),
]
