"""NestedGemm (A1-A5, B1-B4)."""

from functools import partial

from dqtsim.spec import Rounding
from tests.builders import dense

from .case import ROUNDINGS, TIES, Case, around

TWO = [[1, 2, 3], [-1, 0, 4]]
DIAGONAL = [[int(i == j) for j in range(6)] for i in range(6)]


def widths() -> list[Case]:
    """Return weights 70 and -128 on activations 72 and 127 (codes 200, 255), in units of 64; 70 * 72 = 5040."""
    found = {
        # rules of weights and activations, widths: operands of the weights, of the activations, exponent
        ("TIES_UP", "TIES_UP", 8, 8): ((70, -128), (72, 127), 0),
        ("TIES_UP", "TIES_UP", 4, 4): ((4, -8), (5, 7), 8),
        ("TIES_UP", "TIES_UP", 2, 2): ((1, -2), (1, 1), 12),
        ("TIES_UP", "TIES_UP", 1, 1): ((0, -1), (0, 0), 14),
        ("TIES_UP", "FLOOR", 3, 5): ((2, -4), (9, 15), 8),
        ("FLOOR", "FLOOR", 5, 3): ((8, -16), (2, 3), 8),
        ("MIDPOINT", "TIES_UP", 2, 4): ((3, -3), (5, 7), 9),
        ("MIDPOINT", "FLOOR", 1, 2): ((1, -1), (1, 1), 12),
        ("MIDPOINT", "TIES_UP", 7, 8): ((71, -127), (72, 127), 0),
        ("MIDPOINT", "TIES_UP", 8, 6): ((70, -128), (18, 31), 2),
        ("CENTROID", "TIES_UP", 2, 4): ((3, -3), (5, 7), 9),
        ("CENTROID", "FLOOR", 1, 2): ((1, -1), (1, 1), 12),
        ("CENTROID", "TIES_UP", 7, 8): ((71, -127), (72, 127), 0),
        ("CENTROID", "TIES_UP", 8, 6): ((70, -128), (18, 31), 2),
    }
    cases = []
    for (w, a, b_w, b_a), (s_w, s_a, exponent) in found.items():
        rules = {"weight_rule": w, "activation_rule": a}
        sums = [s_w[0] * s_a[0] + s_w[1] * s_a[1], s_w[0] * s_a[1]]
        graph = partial(dense, [[70, -128], [0, 70]], bits=(b_w, b_a), shift=22, rules=rules)
        taken = 0
        if w in ("MIDPOINT", "CENTROID") and b_w < 8:
            # a weight of 0 is no operand of these: its interval's middle is
            middle = 1
            sums[1] += middle * s_a[0]
            taken = (sum(s_a) * 2 ** (8 - b_a) + 1) // 2 if w == "CENTROID" else 0
        values = [(p * 2**exponent - taken + 2**6) // 2**7 + 128 for p in sums]
        expect = [min(max(y, 0), 255) for y in values]
        cases.append(Case(f"{w} {a} widths {b_w} {b_a}", graph, [200, 255], expect, sums))
    return cases


def requantization() -> list[Case]:
    halves = around(128, (-5, -3, -1, 1, 3, 5))
    cases = []
    for rounding in ROUNDINGS:
        expect = around(128, TIES[rounding])
        graph = partial(dense, DIAGONAL, multiplier=1, shift=1)
        cases.append(Case(f"halves {rounding}", partial(graph, rules={"rounding": rounding}), halves, expect))
        ours = {"rounding": Rounding(rounding)}
        cases.append(Case(f"halves {rounding} by the target", graph, halves, expect, None, ours, rounding != "TIES_UP"))
    return cases


OPERATOR = ("dqtsim", "NestedGemm")
CASES = [
    *widths(),
    *requantization(),
    Case("products", partial(dense, TWO), [129, 130, 131], [142, 139], [14, 11]),
    Case("zero point 0", partial(dense, TWO, z_x=0), [1, 2, 3], [142, 139], [14, 11]),
    Case("extremes low", partial(dense, [[-128] * 3, [127] * 3], shift=24), [0, 0, 0], [224, 33], [49152, -48768]),
    Case("extremes high", partial(dense, [[-128] * 3, [127] * 3], shift=24), [255] * 3, [33, 223], [-48768, 48387]),
    Case(
        "bias, multiplier, shift per channel",
        partial(dense, TWO, bias=[5, -5], multiplier=[1, 3], shift=[0, 1]),
        [129, 130, 131],
        [147, 137],
    ),
    *(
        Case(
            f"bias row of {pair}",
            partial(dense, [[1]], row_widths=(2, 4, 8), bias=[[10], [20], [30]], bits=pair),
            [128],
            [y],
        )
        for pair, y in (((2, 8), 138), ((3, 4), 148), ((8, 5), 158))
    ),
    *(
        Case(
            f"row of pair {pair}",
            partial(dense, [[1]], row_pairs=((2, 8), (4, 4), (8, 2)), bias=[[10], [20], [30]], bits=pair),
            [128],
            [y],
        )
        for pair, y in (((2, 8), 138), ((8, 2), 158), ((4, 4), 148), ((8, 8), 158), ((1, 8), 138))
    ),
    *(
        Case(
            f"window at {b} bits, {j} lower",
            partial(
                dense, [[1, 1]], z_x=0, z_y=0, bits=(8, b), windows=[0, *(j if k == b else 0 for k in range(1, 9))]
            ),
            [20, 100],
            [y],
        )
        for b, j, y in (
            (2, 0, 128),
            (2, 1, 32 + 96),
            (2, 2, 16 + 48),
            (2, 6, 6),
            (4, 2, 20 + 60),
            (7, 1, 120),
            (8, 0, 120),
        )
    ),
    Case(
        "clip", partial(dense, DIAGONAL, clip=(100, 150)), [99, 100, 101, 149, 150, 151], [100, 100, 101, 149, 150, 150]
    ),
    Case("one input", partial(dense, [[127]], z_x=0, z_y=0, shift=22), [255], [253], [32385]),
    Case(
        "bias past its limits",
        partial(dense, [[1], [1]], bias=[128, -129], multiplier=3, shift=2),
        [128],
        [223, 32],
        None,
        {"bias_width": 8},
        True,
    ),
    Case(
        "master width 3 at 2 bits",
        partial(dense, [[1]], z_x=4, z_y=4, bits=(3, 2), rules={"master_width": 3}),
        [7],
        [6],
    ),
]
