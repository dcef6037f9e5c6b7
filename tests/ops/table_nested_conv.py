"""NestedConv (A1-A5, B1-B4). A 1 x 1 convolution with a weight of 1 shows what happens to codes."""

from functools import partial
from typing import Any

from dqtsim.spec import Nesting, Overflow, Rounding
from tests.builders import conv

from .case import QUARTERS, ROUNDINGS, TIES, Case, around

CODES = (0, 1, 63, 64, 127, 128, 129, 191, 192, 254, 255)
UNIT = [[[[1]]]]
CORNER = [[[[1, 2], [4, 8]]]]  # tells rows from columns and both ends apart
LINE = (1, 1, len(CODES))


def nested(q: int, b: int, rule: str, n: int = 8) -> int:
    """Return the master code that the code of width b stands for: an end or the middle of 2^(n-b) codes."""
    step: int = 2 ** (n - b)
    if rule == "TIES_UP":
        return min((2 * q + step) // (2 * step), (1 << b) - 1) * step
    middle = {"MIDPOINT": step // 2, "CENTROID": (step - 1) // 2}
    return q // step * step + middle.get(rule, 0)


def clipped(y: int) -> int:
    return min(max(y, 0), 255)


# literal: what a code becomes at widths 1, 2, 4
LITERAL = {
    ("TIES_UP", 1): (0, 0, 0, 128, 128, 128, 128, 128, 128, 128, 128),
    ("TIES_UP", 2): (0, 0, 64, 64, 128, 128, 128, 192, 192, 192, 192),
    ("TIES_UP", 4): (0, 0, 64, 64, 128, 128, 128, 192, 192, 240, 240),
    ("FLOOR", 1): (0, 0, 0, 0, 0, 128, 128, 128, 128, 128, 128),
    ("FLOOR", 2): (0, 0, 0, 64, 64, 128, 128, 128, 192, 192, 192),
    ("FLOOR", 4): (0, 0, 48, 64, 112, 128, 128, 176, 192, 240, 240),
    ("MIDPOINT", 1): (64, 64, 64, 64, 64, 192, 192, 192, 192, 192, 192),
    ("MIDPOINT", 2): (32, 32, 32, 96, 96, 160, 160, 160, 224, 224, 224),
    ("MIDPOINT", 4): (8, 8, 56, 72, 120, 136, 136, 184, 200, 248, 248),
    # half a step below, times an activation of 1, rounded down
    ("CENTROID", 1): (63, 63, 63, 63, 63, 191, 191, 191, 191, 191, 191),
    ("CENTROID", 2): (31, 31, 31, 95, 95, 159, 159, 159, 223, 223, 223),
    ("CENTROID", 4): (7, 7, 55, 71, 119, 135, 135, 183, 199, 247, 247),
}


def activations() -> list[Case]:
    """Return every rule, width and kind of zero point, read back on the master grid around z_y."""
    cases = []
    for rule in ("TIES_UP", "FLOOR"):
        for b in range(1, 9):
            for z, z_y in ((128, 128), (0, 0), (7, 100), (200, 50)):
                graph = partial(
                    conv, LINE, UNIT, bits=(8, b), z_x=z, z_y=z_y, rules={"activation_rule": rule, "weight_rule": rule}
                )
                expect = [clipped(z_y + nested(q, b, rule) - nested(z, b, rule)) for q in CODES]
                if (rule, b) in LITERAL and z == z_y:
                    expect = list(LITERAL[rule, b])
                cases.append(Case(f"activations {rule} {b} bits z {z}", graph, [[list(CODES)]], expect))
    return cases


def weights() -> list[Case]:
    """Return every rule and width of weights, as output channels on an activation of 1."""
    cases = []
    for rule in (member.value for member in Nesting):
        for b in range(1, 9):
            graph = partial(conv, (1, 1, 1), [[[[q - 128]]] for q in CODES], bits=(b, 8), rules={"weight_rule": rule})
            expect = [nested(q, b, rule) for q in CODES]
            cases.append(
                Case(f"weights {rule} {b} bits", graph, [[[129]]], LITERAL[rule, b] if b in (1, 2, 4) else expect)
            )
    return cases


def both() -> list[Case]:
    """Return a weight of 70 (code 198) on an activation of 72 (code 200), 4 bits each, in units of 64."""
    found = (
        ("TIES_UP", "TIES_UP", 4 * 5, 4 * 5 * 256 // 64),
        ("FLOOR", "FLOOR", 4 * 4, 4 * 4 * 256 // 64),
        ("MIDPOINT", "TIES_UP", 9 * 5, 9 * 5 * 128 // 64),
        ("MIDPOINT", "FLOOR", 9 * 4, 9 * 4 * 128 // 64),
        ("CENTROID", "TIES_UP", 9 * 5, 89),
        ("CENTROID", "FLOOR", 9 * 4, 72),  # 89.4, and 71.5, a tie
    )
    return [
        Case(
            f"both narrow {w} {a}",
            partial(
                conv,
                (1, 1, 1),
                [[[[70]]]],
                bits=(4, 4),
                z_y=0,
                shift=21,
                rules={"weight_rule": w, "activation_rule": a},
            ),
            [[[200]]],
            [y],
            [p],
        )
        for w, a, p, y in found
    ]


def geometry() -> list[Case]:
    nine, grid = [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], [[[5 * y + x for x in range(1, 6)] for y in range(4)]]
    ones = [[[[1] * 3] * 3]]
    flat: dict[str, Any] = {"z_x": 0, "z_y": 0}
    edges = [97, 145, 97, 145, 217, 145, 97, 145, 97]  # 4, 6 or 9 taps of 193, in eighths
    return [
        Case("window", partial(conv, (1, 3, 3), CORNER, **flat), nine, [61, 76, 106, 121], [61, 76, 106, 121]),
        Case("whole picture", partial(conv, (1, 3, 3), ones, **flat), nine, [45]),
        Case(
            "stride 2, pad 1",
            partial(conv, (1, 3, 3), ones, strides=(2, 2), pads=(1, 1, 1, 1), **flat),
            nine,
            [12, 16, 24, 28],
        ),
        Case(
            "pads top 1 right 2",
            partial(conv, (1, 2, 2), CORNER, pads=(1, 0, 0, 2), **flat),
            [[[1, 2], [3, 4]]],
            [20, 8, 0, 49, 18, 0],
        ),
        Case(
            "pads left 1 bottom 1",
            partial(conv, (1, 2, 2), CORNER, pads=(0, 1, 1, 0), **flat),
            [[[1, 2], [3, 4]]],
            [2 + 24, 49, 6, 3 + 8],
        ),
        Case(
            "padding of another zero point",
            partial(conv, (1, 3, 3), ones, pads=(1, 1, 1, 1), z_x=7, z_y=0, shift=18),
            [[[200] * 3] * 3],
            edges,
        ),
        Case(
            "zeros stay zero under padding at 3 bits",
            partial(conv, (1, 2, 2), [[[[99] * 3] * 3]], pads=(1, 1, 1, 1), z_x=77, z_y=31, bits=(2, 3)),
            [[[77] * 2] * 2],
            [31] * 4,
        ),
        Case(
            "stride (2, 1), dilation (1, 2)",
            partial(conv, (1, 4, 5), CORNER, strides=(2, 1), dilations=(1, 2), **flat),
            grid,
            [95, 110, 125, 245, 255, 255],
            [95, 110, 125, 245, 260, 275],
        ),
        Case(
            "stride (1, 2), dilation (2, 1)",
            partial(conv, (1, 4, 5), CORNER, strides=(1, 2), dilations=(2, 1), **flat),
            grid,
            [145, 175, 220, 250],
        ),
        Case(
            "groups",
            partial(
                conv,
                (4, 1, 1),
                [[[[1]], [[0]]], [[[0]], [[1]]], [[[1]], [[1]]], [[[1]], [[-1]]]],
                z_x=0,
                z_y=10,
                group=2,
            ),
            [[[1]], [[2]], [[3]], [[4]]],
            [11, 12, 17, 9],
        ),
        Case(
            "depthwise",
            partial(conv, (3, 1, 1), [UNIT[0], [[[2]]], [[[3]]]], group=3, **flat),
            [[[10]], [[20]], [[30]]],
            [10, 40, 90],
        ),
        Case(
            "depthwise, two outputs a channel",
            partial(conv, (2, 1, 1), [[[[w]]] for w in (1, 2, 3, 4)], group=2, **flat),
            [[[5]], [[7]]],
            [5, 10, 21, 28],
        ),
        Case(
            "channels before rows",
            partial(conv, (2, 1, 2), [[[[1, 2]], [[4, 8]]], [[[8, 4]], [[2, 1]]]], **flat),
            [[[1, 3]], [[5, 7]]],
            [1 + 6 + 20 + 56, 8 + 12 + 10 + 7],
        ),
    ]


def rows() -> list[Case]:
    """Return which row of B, M, S each pair of widths takes."""
    three: dict[str, Any] = {"row_widths": (2, 4, 8), "z_y": 0}
    by_bias = partial(conv, (1, 1, 1), UNIT, bias=[[10], [20], [30]], **three)
    chosen = {
        (2, 2): 10,
        (1, 8): 10,
        (3, 8): 20,
        (8, 4): 20,
        (5, 6): 30,
        (8, 8): 30,
        (8, 1): 10,
        (4, 4): 20,
        (5, 8): 30,
    }
    cases = [
        Case(f"bias row of {pair}", partial(by_bias, bits=pair), [[[128]]], [b], [0]) for pair, b in chosen.items()
    ]
    scaled = partial(conv, (1, 1, 1), [[[[64]]]], multiplier=[[1], [2], [3]], shift=[[0], [1], [0]], **three)
    cases += [
        Case(f"multiplier and shift row of {b}", partial(scaled, bits=(b, 8)), [[[129]]], [y])
        for b, y in ((2, 64), (4, 64), (8, 192))
    ]
    mixed = {(2, 8): 10, (4, 4): 20, (8, 2): 30, (2, 4): 10, (3, 4): 20, (8, 1): 30, (5, 4): 30, (8, 8): 30, (4, 8): 30}
    by_pair = partial(conv, (1, 1, 1), UNIT, row_pairs=((2, 8), (4, 4), (8, 2)), bias=[[10], [20], [30]], z_y=0)
    cases += [
        Case(f"row of pair {pair}", partial(by_pair, bits=pair), [[[128]]], [b], [0]) for pair, b in mixed.items()
    ]
    own = partial(conv, (1, 1, 1), UNIT, row_pairs=((8, 8), (2, 8), (4, 4)), bias=[[10], [20], [30]], z_y=0)
    cases += [
        Case(f"own row of pair {pair} behind a wide one", partial(own, bits=pair), [[[128]]], [b])
        for pair, b in (((2, 8), 20), ((4, 4), 30), ((8, 8), 10), ((4, 8), 10), ((2, 7), 10))
    ]
    paired = partial(scaled, row_widths=None, row_pairs=((8, 8), (2, 8), (4, 4)))
    cases += [
        Case(f"multiplier and shift row of pair {b}", partial(paired, bits=(b, 8)), [[[129]]], [y])
        for b, y in ((8, 64), (2, 64), (4, 64))
    ]
    last = partial(conv, (1, 1, 1), UNIT, row_widths=(2, 4), bias=[[10], [20]], z_y=0, bits=(8, 8))
    return [*cases, Case("past the last row", last, [[[128]]], [20])]


def lowered(q: int, z: int, b: int, j: int, rule: str) -> int:
    """Return by how many master steps a code is above z where width b is taken j bits lower (A6)."""
    step: int = 2 ** (8 - b - j)
    below = nested(z, b, rule) // 2 ** (8 - b)
    steps = (nested(q, b + j, rule) - nested(z, b + j, rule)) // step
    return int(min(max(steps, -below), (1 << b) - 1 - below) * step)


def windows_of(b: int, j: int) -> list[int]:
    """Return windows that lower width b by j bits, and all others by as many as there are."""
    return [0, *(j if width == b else 8 - width for width in range(1, 9))]


# literal: codes at width 2 (zero point 0) and 4 (zero point 128), 1 and 2 bits lower
LOWERED = {
    ("TIES_UP", 2, 1, 0): (0, 0, 64, 64, 96, 96, 96, 96, 96, 96, 96),
    ("TIES_UP", 2, 2, 0): (0, 0, 48, 48, 48, 48, 48, 48, 48, 48, 48),
    ("FLOOR", 2, 1, 0): (0, 0, 32, 64, 96, 96, 96, 96, 96, 96, 96),
    ("FLOOR", 4, 2, 128): (96, 96, 96, 96, 124, 128, 128, 156, 156, 156, 156),
}


def windows() -> list[Case]:
    """Return every width and four of its windows, read back on the master grid around z_y."""
    cases = []
    for rule in ("TIES_UP", "FLOOR"):
        for b in range(1, 9):
            for j in sorted({0, 1, (8 - b) // 2, 8 - b} & {*range(9 - b)}):
                for z, z_y in ((128, 128), (0, 0), (7, 100), (200, 50)):
                    graph = partial(
                        conv,
                        LINE,
                        UNIT,
                        bits=(8, b),
                        z_x=z,
                        z_y=z_y,
                        windows=windows_of(b, j),
                        rules={"activation_rule": rule, "weight_rule": rule},
                    )
                    expect = [clipped(z_y + lowered(q, z, b, j, rule)) for q in CODES]
                    if (rule, b, j, z) in LOWERED:
                        expect = list(LOWERED[rule, b, j, z])
                    cases.append(Case(f"window {rule} {b} bits {j} lower z {z}", graph, [[list(CODES)]], expect))
    return cases


def padding() -> list[Case]:
    ones: list[Any] = [[[[1] * 3] * 3]]
    two = [[[[1] * 3] * 3, [[-1] * 3] * 3]]
    border: dict[str, Any] = {"pads": (1, 1, 1, 1), "z_x": 10, "z_y": 100}
    outer: dict[str, Any] = {"row_pairs": ((8, 8), (2, 2)), "bias": [[0], [7]]}
    fives = [[[10] * 2] * 2]
    return [
        Case("padding code", partial(conv, (1, 2, 2), ones, padding=[13], **border), fives, [115] * 4, [15] * 4),
        Case("padding code below z", partial(conv, (1, 2, 2), ones, padding=[8], **border), fives, [90] * 4, [-10] * 4),
        Case("padding code z", partial(conv, (1, 2, 2), ones, padding=[10], **border), fives, [100] * 4, [0] * 4),
        Case(
            "padding codes of channels",
            partial(conv, (2, 2, 2), two, padding=[13, 11], **border),
            [*fives, *fives],
            [110] * 4,
            [5 * 3 - 5 * 1] * 4,
        ),
        Case(
            "padding codes of groups",
            partial(conv, (2, 2, 2), [ones[0], ones[0]], group=2, padding=[13, 11], **border),
            [*fives, *fives],
            [115] * 4 + [105] * 4,
        ),
        Case(
            "padding code on one side",
            partial(conv, (1, 2, 2), CORNER, pads=(1, 0, 0, 2), z_x=0, z_y=0, padding=[9]),
            [[[1, 2], [3, 4]]],
            [27 + 20, 27 + 72 + 8, 135, 49, 2 + 18 + 16 + 72, 135],
        ),
        Case(
            "padding code that nothing reads",
            partial(conv, (1, 2, 2), CORNER, z_x=0, z_y=0, padding=[9]),
            [[[1, 2], [3, 4]]],
            [1 + 4 + 12 + 32],
        ),
        Case(
            "padding code at 3 bits",
            partial(conv, (1, 1, 1), ones, pads=(1, 1, 1, 1), z_x=0, z_y=0, bits=(8, 3), padding=[48], shift=20),
            [[[0]]],
            [16],  # 8 taps of 64
            [8 * 2],
        ),
        Case(
            "padding code at 3 bits, 2 lower",
            partial(
                conv,
                (1, 1, 1),
                ones,
                pads=(1, 1, 1, 1),
                z_x=0,
                z_y=0,
                bits=(8, 3),
                padding=[48],
                windows=windows_of(3, 2),
                shift=20,
            ),
            [[[0]]],
            [12],  # 8 taps of 48
            [8 * 6],
        ),
        Case(
            "padding, windows and row pairs",
            partial(conv, (1, 1, 1), ones, bits=(2, 2), padding=[255], windows=windows_of(2, 1), **outer, **border),
            [[[10]]],
            [107],  # weights of 1 are 0 at 2 bits
            [0],
        ),
    ]


def centroid() -> list[Case]:
    """Return windows whose half is taken off: of groups, with borders, where the register wraps or clamps."""
    rules = {"weight_rule": "CENTROID"}
    narrow: dict[str, Any] = {"rules": rules, "bits": (4, 8), "z_x": 0, "z_y": 0}
    ones = [[[[0] * 3] * 3]]  # 8 of 15 steps of 16: 7.5 master steps each
    nine: dict[str, Any] = {"pads": (1, 1, 1, 1), "shift": 15, **narrow}
    picture = [[[1, 2], [3, 5]]]
    four: dict[str, Any] = {**narrow, "group": 2, "multiplier": 1, "shift": 0}
    return [
        # U = 11 everywhere: 11 * 8 - 5.5, the half rounded up
        Case("half of a window", partial(conv, (1, 2, 2), ones, **nine), picture, [82] * 4, [11] * 4),
        Case(
            "half of a window with a border of another code",
            partial(conv, (1, 2, 2), ones, padding=[3], **nine),
            picture,
            [195] * 4,  # U = 26: 26 * 8 - 13
            [26] * 4,
        ),
        Case(
            "half of groups",
            partial(conv, (2, 1, 1), [[[[0]]], [[[16]]], [[[0]]], [[[-128]]]], **four),
            [[[3]], [[6]]],
            [22, 70, 45, 0],  # 7.5 * 3 down, 23.5 * 3 down, 7.5 * 6; 6 * -120.5
            [3, 9, 6, -90],
        ),
        Case(
            "half of narrow activations is exact",
            partial(conv, (1, 1, 2), UNIT, rules=rules, bits=(7, 7), z_x=0, z_y=0, multiplier=1, shift=0),
            [[[2, 6]]],
            [1, 3],  # half a step of weight 0 or 1 is 0.5
            [1, 3],
        ),
        Case(
            "half of activations in a window",
            partial(
                conv,
                (1, 1, 2),
                UNIT,
                rules=rules,
                bits=(4, 4),
                z_x=0,
                z_y=0,
                windows=windows_of(4, 4),
                multiplier=1,
                shift=0,
            ),
            [[[3, 200]]],
            [22, 112],  # 7.5 * 3 down; the code saturates at 15
            [3, 15],
        ),
        Case(
            "no half at the master width",
            partial(conv, (1, 2, 2), ones, **{**nine, "bits": (8, 8)}),
            picture,
            [0] * 4,
            [0] * 4,
        ),
        Case(
            "the half of a sum that wrapped",
            partial(conv, (1, 1, 1), [[[[127]]]], **{**narrow, "z_y": 200}, multiplier=1, shift=4),
            [[[255]]],
            [57],  # -271 * 8 - 128 in sixteenths, below 200
            [15 * 255 - 4096],
            {"accumulator_width": 12, "overflow": Overflow.WRAP},
            True,
        ),
    ]


def requantization() -> list[Case]:
    halves, quarters = around(128, (-5, -3, -1, 1, 3, 5)), around(128, (-7, -3, -1, 1, 3, 7))
    line = (1, 1, 6)
    cases = []
    for rounding in ROUNDINGS:
        for name, codes, shift, table in (("halves", halves, 1, TIES), ("quarters", quarters, 2, QUARTERS)):
            expect = around(128, table[rounding])
            graph = partial(conv, line, UNIT, multiplier=1, shift=shift)
            cases.append(Case(f"{name} {rounding}", partial(graph, rules={"rounding": rounding}), [[codes]], expect))
            ours = {"rounding": Rounding(rounding)}
            refused = rounding != "TIES_UP"
            cases.append(Case(f"{name} {rounding} by the target", graph, [[codes]], expect, None, ours, refused))
        exact = partial(conv, line, UNIT, multiplier=1, shift=0, rules={"rounding": rounding})
        cases.append(Case(f"shift 0 {rounding}", exact, [[halves]], halves))
        down = -1 if rounding == "FLOOR" else 0
        far = partial(conv, (1, 1, 2), UNIT, multiplier=1, shift=62, rules={"rounding": rounding})
        cases.append(Case(f"shift 62 {rounding}", far, [[[0, 255]]], [128 + down, 128]))
        wide = partial(conv, (1, 1, 2), UNIT, multiplier=(1 << 31) - 1, shift=31, rules={"rounding": rounding})
        less = 1 if rounding == "FLOOR" else 0  # 127 - 127 / 2^31
        cases.append(
            Case(
                f"multiplier 2^31 - 1 {rounding}", wide, [[[0, 255]]], [0, 255 - less], target={"multiplier_width": 31}
            )
        )
    extremes = partial(conv, (1, 1, 2), [[[[-128]]], [[[127]]]], shift=22)
    sums = [16384, -16256, -16256, 16129]
    return [
        *cases,
        Case("identity", partial(conv, LINE, UNIT), [[list(CODES)]], list(CODES), around(-128, CODES)),
        Case("extremes", extremes, [[[0, 255]]], [255, 1, 1, 254], sums),
        Case("ReLU", partial(conv, (1, 1, 4), UNIT, clip=(128, 255)), [[[0, 127, 128, 255]]], [128, 128, 128, 255]),
        Case(
            "clip",
            partial(conv, (1, 1, 6), UNIT, clip=(100, 150)),
            [[[99, 100, 101, 149, 150, 151]]],
            [100, 100, 101, 149, 150, 150],
        ),
        Case("clip to one code", partial(conv, (1, 1, 3), UNIT, clip=(7, 7)), [[[0, 128, 255]]], [7, 7, 7]),
        Case(
            "bias, multiplier, shift per channel",
            partial(conv, (1, 1, 1), [UNIT[0]] * 3, bias=[5, -6, 0], multiplier=[1, 3, 5], shift=[0, 1, 2]),
            [[[138]]],
            [143, 134, 141],
        ),
        Case("multiplier 0", partial(conv, (1, 1, 1), UNIT, multiplier=0, z_y=9), [[[255]]], [9]),
        Case(
            "bias at its limits",
            partial(conv, (1, 1, 1), [UNIT[0]] * 3, bias=[127, -128, 0]),
            [[[128]]],
            [255, 0, 128],
            target={"bias_width": 8},
        ),
        Case(
            "bias past its limits",
            partial(conv, (1, 1, 1), [UNIT[0]] * 4, bias=[128, -129, 10**6, -(10**6)], multiplier=3, shift=2),
            [[[128]]],
            [223, 32, 223, 32],  # 95.25 and -96; unsaturated they would be 96 and -97
            None,
            {"bias_width": 8},
            True,
        ),
    ]


def master_widths() -> list[Case]:
    four = partial(conv, (1, 1, 4), UNIT, z_x=8, z_y=8, rules={"master_width": 4})
    two = partial(conv, (1, 1, 4), UNIT, z_x=2, z_y=2, rules={"master_width": 2})
    return [
        Case("master width 4", four, [[[0, 7, 8, 15]]], [0, 7, 8, 15]),
        Case("master width 4 at 2 bits", partial(four, bits=(4, 2)), [[[0, 7, 8, 15]]], [0, 8, 8, 12]),
        Case("master width 2", two, [[[0, 1, 2, 3]]], [0, 1, 2, 3]),
        Case("master width 2 at 1 bit", partial(two, bits=(2, 1)), [[[0, 1, 2, 3]]], [0, 2, 2, 2]),
    ]


OPERATOR = ("dqtsim", "NestedConv")
CASES = [
    *activations(),
    *weights(),
    *both(),
    *geometry(),
    *rows(),
    *windows(),
    *padding(),
    *centroid(),
    *requantization(),
    *master_widths(),
]
