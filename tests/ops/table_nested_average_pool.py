"""NestedAveragePool (B6, B6'): padded taps add 0, and count; a multiplier per position, where they do not."""

from functools import partial

from dqtsim.spec import Rounding
from tests.builders import pooled

from .case import ROUNDINGS, TIES, Case, around

average = partial(pooled, kind="average_pool", strides=(1, 1))


def ties() -> list[Case]:
    """Return sums of two codes, halved."""
    cases = []
    for rounding in ROUNDINGS:
        graph = partial(
            average, (1, 1, 12), kernel=(1, 2), strides=(1, 2), multiplier=1, shift=1, zero_point=128, z_x=100
        )
        x = [[[code for offset in (-5, -3, -1, 1, 3, 5) for code in (100 + offset - 2, 102)]]]
        expect = around(128, TIES[rounding])
        cases.append(Case(f"halves {rounding}", partial(graph, rules={"rounding": rounding}), x, expect))
        ours = {"rounding": Rounding(rounding)}
        cases.append(Case(f"halves {rounding} by the target", graph, x, expect, None, ours, rounding != "TIES_UP"))
    return cases


OPERATOR = ("dqtsim", "NestedAveragePool")
CASES = [
    *ties(),
    Case("mean of four", partial(average, (1, 2, 2), kernel=(2, 2), shift=17), [[[10, 20], [30, 41]]], [25]),
    Case("mean of four, up", partial(average, (1, 2, 2), kernel=(2, 2), shift=17), [[[10, 20], [30, 42]]], [26]),
    Case("one tap", partial(average, (1, 1, 3), kernel=(1, 1)), [[[0, 128, 255]]], [0, 128, 255]),
    Case(
        "padded taps count and add 0",
        partial(average, (1, 1, 1), kernel=(2, 2), pads=(1, 1, 1, 1), shift=17, z_x=20, zero_point=20),
        [[[100]]],
        [40] * 4,
    ),
    Case(
        "pads top 1 right 2",
        partial(average, (1, 2, 2), kernel=(2, 3), pads=(1, 0, 0, 2), shift=15),
        [[[1, 2], [4, 8]]],
        [3, 2, 15, 10],
    ),
    Case(
        "pads left 2 bottom 1",
        partial(average, (1, 2, 2), kernel=(2, 3), pads=(0, 2, 1, 0), shift=15),
        [[[1, 2], [4, 8]]],
        [5, 15, 4, 12],
    ),
    Case(
        "thirds, stride 2",
        partial(average, (1, 1, 5), kernel=(1, 3), strides=(1, 2), multiplier=43691, shift=17),
        [[[1, 2, 3, 4, 5]]],
        [2, 4],
    ),
    Case(
        "rows and columns",
        partial(average, (1, 3, 2), kernel=(2, 1), strides=(1, 1)),
        [[[1, 10], [2, 20], [4, 40]]],
        [3, 30, 6, 60],
    ),
    Case("channels apart", partial(average, (2, 1, 2), kernel=(1, 2)), [[[1, 2]], [[30, 40]]], [3, 70]),
    Case("stride past the end", partial(average, (1, 1, 4), kernel=(1, 1), strides=(3, 3)), [[[5, 6, 7, 8]]], [5, 8]),
    Case("clip", partial(average, (1, 1, 3), kernel=(1, 1), clip=(10, 20)), [[[9, 15, 21]]], [10, 15, 20]),
    Case("a multiplier per position", partial(average, (1, 2, 2), kernel=(1, 1), multiplier=[[1, 2], [3, 0]], shift=0),
         [[[5, 6], [7, 8]]], [5, 12, 21, 0]),
    Case("one position", partial(average, (2, 2, 2), kernel=(2, 2), multiplier=[[1 << 15]], shift=17),
         [[[10, 20], [30, 41]], [[1, 2], [3, 4]]], [25, 3]),
    Case("the mean of the taps inside",
         partial(average, (1, 2, 3), kernel=(2, 2), pads=(1, 1, 0, 1), shift=16, z_x=20, zero_point=20,
                 multiplier=[[65535, 1 << 15, 1 << 15, 65535], [1 << 15, 1 << 14, 1 << 14, 1 << 15]]),
         [[[10, 20, 31], [30, 41, 60]]], [10, 15, 26, 31, 20, 25, 38, 46]),
    Case("positions, channels and stride",
         partial(average, (5, 1, 4), kernel=(1, 2), strides=(1, 2), multiplier=[[1, 3]], shift=0),
         [[[c, 1, c, 2]] for c in range(5)], [y for c in range(5) for y in (c + 1, 3 * (c + 2))]),
    Case("positions, 17 channels", partial(average, (17, 2, 1), kernel=(1, 1), multiplier=[[2], [5]], shift=0),
         [[[c], [c]] for c in range(17)], [y for c in range(17) for y in (2 * c, 5 * c)]),
    Case("negative sums", partial(average, (1, 1, 2), kernel=(1, 2), z_x=255, zero_point=255), [[[200, 255]]], [200]),
]  # fmt: skip
