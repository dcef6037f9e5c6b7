"""The plan: types and ranges, proofs that are true and tight, and every refusal in full."""

from itertools import accumulate, permutations, product
from typing import Any

import numpy as np
import pytest

from dqtsim.graph import Graph, GraphBuilder
from dqtsim.ops import Bound, TensorType
from dqtsim.planner import planned_widths
from dqtsim.spec import Nesting, operand, window_operand
from tests.builders import compiled, dense, network

PAIRS = list(product(range(1, 9), repeat=2))


def bound_of(graph: Graph, layer: str = "y") -> tuple[list[int], list[int]]:
    """Return the proven extremes of each output channel of a static layer."""
    (step,) = (step for step in compiled(graph).layer_steps() if step.node.name == layer)
    (bound,) = step.call.bounds.values()
    return bound.lowest.tolist(), bound.highest.tolist()


def extremes(
    weights: list[int], low: int, high: int, z: int, pair: tuple[int, int], rules: Any, n: int
) -> tuple[int, int]:
    """Return what sums of any part of the products can reach, every code of every tap tried."""
    weight_rule, activation_rule = (Nesting(rules[key]) for key in ("weight_rule", "activation_rule"))
    s_w = [operand(w + (1 << (n - 1)), 1 << (n - 1), pair[0], n, weight_rule) for w in weights]
    s_a = [operand(q, z, pair[1], n, activation_rule) for q in range(low, high + 1)]
    return sum(min(0, *(w * a for a in s_a)) for w in s_w), sum(max(0, *(w * a for a in s_a)) for w in s_w)


RULES = [{"weight_rule": w.value, "activation_rule": a} for w, a in product(Nesting, ("TIES_UP", "FLOOR"))]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_bounds_are_what_a_tap_by_tap_search_finds(pair: tuple[int, int]) -> None:
    weights = [[-128, 127, 5], [-1, 0, 1], [64, 31, -97]]
    for rules, z in product(RULES, (0, 7, 128, 255)):
        graph = dense(weights, bits=pair, z_x=z, rules=rules)
        found = [extremes(row, 0, 255, z, pair, rules, 8) for row in weights]
        assert bound_of(graph) == ([low for low, _ in found], [high for _, high in found])


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules.values()))
def test_bounds_are_reached_by_a_prefix_of_a_sum_in_some_order(rules: dict[str, str]) -> None:
    n, weights, z = 3, [-4, 3, 1], 2
    for pair in ((w, a) for w in range(1, n + 1) for a in range(1, n + 1)):
        graph = dense([weights], bits=pair, z_x=z, z_y=0, rules={"master_width": n, **rules})
        rule_w, rule_a = Nesting(rules["weight_rule"]), Nesting(rules["activation_rule"])
        reached = {
            total
            for codes in product(range(1 << n), repeat=3)
            for order in permutations(range(3))
            for total in accumulate(
                operand(weights[i] + 4, 4, pair[0], n, rule_w) * operand(codes[i], z, pair[1], n, rule_a) for i in order
            )
        }
        assert bound_of(graph) == ([min(reached | {0})], [max(reached | {0})])


@pytest.mark.parametrize("activation_rule", ["TIES_UP", "FLOOR"])
def test_bounds_with_windows_are_what_a_tap_by_tap_search_finds(activation_rule: str) -> None:
    weights = [[-128, 127, 5], [64, 31, -97]]
    for z, b in product((0, 7, 128, 255), range(1, 9)):
        for lower in range(9 - b):
            windows = [0, *(lower if width == b else 0 for width in range(1, 9))]
            rules = {"activation_rule": activation_rule}
            graph = dense(weights, bits=(8, b), z_x=z, windows=windows, rules=rules)
            s_a = [window_operand(q, z, b, lower, 8, Nesting(activation_rule)) for q in range(256)]
            least = [sum(min(0, *(w * a for a in s_a)) for w in row) for row in weights]
            most = [sum(max(0, *(w * a for a in s_a)) for w in row) for row in weights]
            assert bound_of(graph) == (least, most)


@pytest.mark.parametrize("lower", range(5))
def test_bounds_take_a_short_range_of_codes_through_its_window(lower: int) -> None:
    """Codes of the whole range reach the ends of every window; those from 100 to 140 do not."""
    b = GraphBuilder("two")
    x = b.input("x", (1, 1), zero_point=128, scale=1.0)
    one: dict[str, Any] = {"row_widths": (8,), "bias": [[0]], "weight": np.full((1, 1), 129, np.uint8)}
    way: dict[str, Any] = {"multiplier": [[1]], "shift": [[0]], "zero_point": 128, "scale": 1.0, "clip": (100, 140)}
    windows = [0, *(lower if width == 4 else 0 for width in range(1, 9))]
    b.output(b.logits("y", b.gemm("first", x, **one, **way), **one, windows=windows))
    ends = [window_operand(q, 128, 4, lower, 8, Nesting.TIES_UP) for q in (100, 140)]
    assert bound_of(b.build([(8, 8), (8, 4)])) == ([ends[0]], [ends[1]])
    assert ends == {0: [-2, 1], 1: [-3, 2], 2: [-7, 3], 3: [-8, 6], 4: [-8, 7]}[lower]


@pytest.mark.parametrize("group", [1, 2])
def test_bounds_include_the_padding_codes_of_each_channel(group: int) -> None:
    """The input stays between 100 and 110, so that only padding codes reach further."""
    b = GraphBuilder("padded")
    x = b.input("x", (1, 1, 2, 2), zero_point=105, scale=1.0)
    one: dict[str, Any] = {
        "row_widths": (8,),
        "scale": 1.0,
        "bias": [[0] * 2],
        "multiplier": [[1] * 2],
        "shift": [[0] * 2],
    }
    first: Any = {"weight": np.full((2, 1, 1, 1), 129, np.uint8), "zero_point": 105, "clip": (100, 110)}
    x = b.conv("first", x, **first, **one)
    weight = np.array([[130, 127], [120, 129]], np.uint8)[:, : 2 // group].reshape(2, 2 // group, 1, 1)
    second: Any = {"weight": weight, "zero_point": 0, "clip": (0, 255), "pads": (1, 0, 0, 0), "padding": [0, 200]}
    b.output(b.conv("y", x, **second, **one, group=group))
    # operands -5 to 5, or of padding -105 and 95; weights 2, -1, -8, 1
    expected = {1: ([-210 - 95, -40 - 5], [10 + 5, 840 + 95]), 2: ([-210, -8 * 95], [10, 8 * 5])}
    assert bound_of(b.build()) == expected[group]


@pytest.mark.parametrize(("clip", "expected"), [((0, 255), 127), ((128, 140), 12), ((0, 5), 0), ((120, 130), 2)])
def test_bounds_use_the_range_of_the_input(clip: tuple[int, int], expected: int) -> None:
    b = GraphBuilder("two")
    x = b.input("x", (1, 2), zero_point=128, scale=1.0)
    tables = {"weight": np.full((2, 2), 129, np.uint8), "bias": [[0, 0]], "row_widths": (8,)}
    scaled = {"multiplier": [[1, 1]], "shift": [[0, 0]], "zero_point": 128, "scale": 1.0}
    hidden = b.gemm("hidden", x, clip=clip, **tables, **scaled)  # type: ignore[arg-type]
    b.output(b.logits("y", hidden, **tables))  # type: ignore[arg-type]
    graph = b.build()
    assert bound_of(graph)[1] == [2 * expected] * 2
    assert bound_of(graph)[0] == [2 * min(0, clip[0] - 128)] * 2
    assert compiled(graph).types["hidden"] == TensorType("uint8", (1, 2), *clip)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-128, 127, 8), (-129, 127, 9), (-128, 128, 9), (-(1 << 31), 0, 32)],
)
def test_register_width_that_a_bound_needs(low: int, high: int, bits: int) -> None:
    bound = Bound(np.array([0, low]), np.array([high, 0]))
    assert bound.bits == bits
    for width in range(max(bits, 2), 48):
        assert bound.unproven(width).size == 0
    if bits > 2:
        assert bound.unproven(bits - 1).size > 0


def test_types_macs_and_planned_widths_of_a_network() -> None:
    graph = network()
    found = compiled(graph)
    shapes = {
        "x": ("uint8", (1, 3, 6, 6), 0, 255),
        "stem": ("uint8", (1, 4, 6, 6), 0, 255),
        "seen": ("uint8", (1, 4, 2, 2), 0, 255),
        "hidden": ("uint8", (1, 8), 0, 255),
        "scores": ("int32", (1, 9), -(1 << 31), (1 << 31) - 1),
        "bits.choice": ("int64", (3,), 0, 2),
        "bits": ("int64", (4, 2), 2, 8),
        "right": ("uint8", (1, 4, 3, 3), 0, 255),
        "widest": ("uint8", (1, 4, 2, 2), 0, 255),
        "result": ("int32", (1, 3), -(1 << 31), (1 << 31) - 1),
    }
    assert {name: found.types[name] for name in shapes} == {name: TensorType(*entry) for name, entry in shapes.items()}
    macs = {step.node.name: step.macs for step in found.layer_steps()}
    assert macs == {
        "stem": 6 * 6 * 4 * 27,
        "hidden": 8 * 16,
        "scores": 9 * 8,
        "left": 6 * 6 * 4 * 18,
        "right": 3 * 3 * 4 * 16,
        "result": 3 * 16,
    }
    free, master = ((2, 2), (4, 4), (8, 8)), ((8, 8),)
    assert planned_widths(graph) == {
        "stem": master, "hidden": master, "scores": master, "left": free, "right": free, "result": free,
    }  # fmt: skip
    assert planned_widths(network(dynamic=False)) == dict.fromkeys(("stem", "left", "right", "result"), master)


def test_saturated_biases_are_counted() -> None:
    found = compiled(dense([[1]] * 5, bias=[127, 128, -128, -129, 9999]), bias_width=8)
    assert found.saturated_biases == {"y": 3}
    assert compiled(dense([[1]], bias=127), bias_width=8).saturated_biases == {"y": 0}


def test_the_target_decides_the_rounding_unless_it_says_model() -> None:
    from dqtsim.spec import Rounding

    graph = dense([[1]], rules={"rounding": "FLOOR"})
    assert compiled(graph).machine.rounding == Rounding.FLOOR
    assert compiled(graph, rounding=Rounding.TIES_EVEN).machine.rounding == Rounding.TIES_EVEN
