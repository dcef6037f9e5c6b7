"""NestedLogits (B7): A + B, never requantized."""

from functools import partial

from tests.builders import dense

from .case import Case

logits = partial(dense, logits=True)
LIMIT = (1 << 31) - 1 - (1 << 15)  # the largest bias that one tap of 8 bits allows

OPERATOR = ("dqtsim", "NestedLogits")
CASES = [
    Case("products", partial(logits, [[1, 2, 3], [-1, 0, 4]]), [129, 130, 131], [14, 11], [14, 11]),
    Case("bias", partial(logits, [[1], [1], [1]], bias=[1000, -1000, 0]), [0], [872, -1128, -128], [-128] * 3),
    Case("largest", partial(logits, [[127]], bias=LIMIT), [255], [2147467008], [16129]),
    Case("least", partial(logits, [[127]], bias=-LIMIT), [0], [-2147467135], [-16256]),
    Case("aligned at 4 bits", partial(logits, [[70]], bits=(4, 4)), [200], [5120], [20]),
    Case("aligned at 1 bit", partial(logits, [[-128]], bits=(1, 1), z_x=0), [255], [-16384], [-1]),
    Case(
        "MIDPOINT at 2 bits",
        partial(logits, [[70], [-1]], bits=(2, 8), rules={"weight_rule": "MIDPOINT"}),
        [129],
        [96, -32],
        [3, -1],
    ),
    # half a step is 7.5 at 4 bits; both logits lose half a unit, or none
    *(
        Case(
            f"CENTROID at 4 bits by {b_a} bits",
            partial(logits, [[0, 1], [16, 17]], bits=(4, b_a), z_x=0, rules={"weight_rule": "CENTROID"}),
            [21, 40],
            y,
            p,
        )
        for b_a, y, p in ((8, [457, 1433], [61, 183]), (4, [480, 1504], [4, 12]), (7, [465, 1457], [31, 93]))
    ),
    *(
        Case(
            f"bias row of {pair}",
            partial(logits, [[1]], row_widths=(2, 4, 8), bias=[[-7], [0], [7]], bits=pair),
            [128],
            [y],
        )
        for pair, y in (((8, 2), -7), ((1, 1), -7), ((4, 4), 0), ((8, 3), 0), ((8, 8), 7))
    ),
    *(
        Case(
            f"row of pair {pair}",
            partial(logits, [[1]], row_pairs=((2, 8), (4, 4), (8, 2)), bias=[[-7], [0], [7]], bits=pair),
            [128],
            [y],
        )
        for pair, y in (((2, 8), -7), ((8, 2), 7), ((4, 4), 0), ((8, 8), 7), ((1, 8), -7))
    ),
    *(
        Case(
            f"window at {b} bits, {j} lower",
            partial(logits, [[1, 1]], z_x=0, bits=(8, b), windows=[0, *(j if k == b else 0 for k in range(1, 9))]),
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
        "bias past its limits",
        partial(logits, [[1], [1]], bias=[128, -129]),
        [128],
        [127, -128],
        None,
        {"bias_width": 8},
        True,
    ),
]
