"""NestedAdd (B5): one rounding for the sum of two products."""

from functools import partial

from dqtsim.spec import Rounding
from tests.builders import add

from .case import QUARTERS, ROUNDINGS, TIES, Case, around


def ties() -> list[Case]:
    cases = []
    for rounding in ROUNDINGS:
        for name, offsets, shift, table in (
            ("halves", (-5, -3, -1, 1, 3, 5), 1, TIES),
            ("quarters", (-7, -3, -1, 1, 3, 7), 2, QUARTERS),
        ):
            graph = partial(add, 6, z_a=128, z_b=50, z_y=128, shift=shift)
            x = [*around(128 - 9, offsets), *[59] * 6]  # the two parts add up to the offset
            expect = around(128, table[rounding])
            cases.append(Case(f"{name} {rounding}", partial(graph, rounding=Rounding(rounding)), x, expect))
            ours = {"rounding": Rounding(rounding)}
            cases.append(Case(f"{name} {rounding} by the target", graph, x, expect, None, ours, rounding != "TIES_UP"))
    return cases


LARGEST = (1 << 31) - 1
OPERATOR = ("dqtsim", "NestedAdd")
CASES = [
    *ties(),
    Case("sum", partial(add, 3), [1, 2, 3, 10, 20, 30], [11, 22, 33]),
    Case("a half and a half", partial(add, 1, shift=1), [1, 1], [1]),
    Case("clip at the top", partial(add, 3), [255, 255, 128, 255, 0, 127], [255, 255, 255]),
    Case("clip bounds", partial(add, 4, clip=(100, 150)), [98, 99, 75, 76, 1, 1, 75, 75], [100, 100, 150, 150]),
    Case("three zero points", partial(add, 2, z_a=128, z_b=7, z_y=50), [128, 130, 7, 10], [50, 55]),
    Case("signed", partial(add, 2, z_a=128, z_b=128, z_y=128), [0, 100, 255, 100], [127, 72]),
    Case("two factors", partial(add, 2, factors=(3, 5), shift=1), [1, 3, 1, 2], [4, 10]),  # 8 / 2, 19 / 2 is a tie
    Case("factor 0", partial(add, 1, factors=(0, 1)), [255, 9], [9]),
    Case("16-bit factors", partial(add, 1, factors=(65535, 65535), shift=17), [255, 255], [255]),
    Case(
        "31-bit factors",
        partial(add, 1, factors=(LARGEST, LARGEST), shift=32),
        [255, 255],
        [255],
        target={"multiplier_width": 31},
    ),
    Case(
        "31-bit factors, FLOOR",
        partial(add, 1, factors=(LARGEST, LARGEST), shift=32, rounding=Rounding.FLOOR),
        [255, 255],
        [254],
        target={"multiplier_width": 31},
    ),
    Case("parts cancel", partial(add, 1, z_a=255, z_b=0, z_y=3, factors=(40000, 40000), shift=16), [0, 255], [3]),
]
