"""CENTROID weights run natively: half a master step of every product is taken off the sums, as the law says (B2')."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.native.check import ProgramError, check
from dqtsim.engines.native.isa import AND, ISAS
from dqtsim.engines.native.lower import one_bit
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.memory import Constant
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.proofs.centroid import halved
from dqtsim.engines.native.proofs.variants import has_halves, variants_of
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.graph.model import Array
from dqtsim.planner import Plan
from dqtsim.spec import Overflow, Rounding
from tests import builders
from tests.builders import compiled, dense

from .same import assert_native

RULES = {"weight_rule": "CENTROID"}
# channels, outputs, groups
LAYERS = {
    "few": (3, 5, 1),
    "many": (17, 20, 1),
    "two groups": (8, 6, 2),
    "three groups": (6, 9, 3),
    "depthwise": (40, 40, 40),
    "few depthwise": (3, 3, 3),
    "twice": (6, 12, 6),
}
PAIRS = [(4, 4), (4, 8), (1, 1), (7, 8), (8, 4), (2, 3)]


def conv(kind: str, bits: tuple[int, int], seed: int = 0, **ways: Any) -> Graph:
    """Return a convolution of odd geometry whose codes are spread."""
    random = np.random.default_rng(seed)
    channels, outputs, group = LAYERS[kind]
    taps = channels // group * 6
    return builders.conv(
        (channels, 5, 6),
        random.integers(-128, 128, (outputs, channels // group, 3, 2)),
        **{
            "bits": bits,
            "rules": RULES,
            "bias": random.integers(-5000, 5000, outputs),
            "multiplier": random.integers(1 << 15, 1 << 16, outputs),
            "shift": 22 + taps.bit_length() // 2,
            "z_x": int(random.integers(0, 256)),
            "z_y": 100,
            "pads": (1, 0, 2, 1),
            "strides": (1, 2),
            "dilations": (2, 1),
            "group": group,
            **ways,
        },
    )


def picture(plan: Plan) -> Array:
    return np.random.default_rng(2).integers(0, 256, plan.graph.input.shape, np.uint8)


def functions(plan: Plan) -> list[str]:
    return [op.function for op in lower(plan, ISAS[-1]).operations if isinstance(op, Operation) and op.step]


def assert_taken(plan: Plan, **options: Any) -> None:
    """The halves are taken off natively, but where weights have full width, and all bits are those of the law."""
    (pair,) = next(iter(plan.layer_steps())).call.bounds
    taken = [name.removesuffix("_logits") for name in functions(plan)]
    assert taken[-2:] == ["columns", "centroid"] if pair[0] < 8 else not {"columns", "centroid"} & {*taken}
    assert_native(plan, picture(plan), reference="spec", **options)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bits", PAIRS)
def test_convolutions(kind: str, bits: tuple[int, int]) -> None:
    assert_taken(compiled(conv(kind, bits)), threads=(1, 2))


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("bits", [(4, 4), (4, 8), (8, 8), (1, 2)])
def test_dense_layers(logits: bool, bits: tuple[int, int]) -> None:
    weight = np.random.default_rng(3).integers(-128, 128, (11, 37))
    ways: dict[str, Any] = {} if logits else {"shift": 21, "z_y": 128}
    assert_taken(compiled(dense(weight, bits=bits, logits=logits, rules=RULES, **ways)), threads=(1, 2))


@pytest.mark.parametrize("rounding", Rounding)
def test_roundings(rounding: Rounding) -> None:
    assert_taken(compiled(conv("few", (5, 8), rules={**RULES, "rounding": rounding})))


@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH])
@pytest.mark.parametrize("width", [10, 13])
@pytest.mark.parametrize("kind", ["many", "depthwise", "dense"])
def test_registers_that_overflow(overflow: Overflow, width: int, kind: str) -> None:
    """The register holds P as for MIDPOINT; the halves are taken off afterwards."""
    weight = np.random.default_rng(3).integers(-128, 128, (11, 37))
    dense_ = dense(weight, bits=(4, 8), logits=True, rules=RULES)
    for graph in [dense_] if kind == "dense" else [conv(kind, (4, 8)), conv(kind, (4, 4))]:
        assert_taken(compiled(graph, accumulator_width=width, overflow=overflow))


@pytest.mark.parametrize("kind", ["few", "many", "depthwise", "two groups"])
def test_windows_and_padding_codes(kind: str) -> None:
    """Padded taps count with their operand."""
    codes = np.random.default_rng(1).permutation(256)[: LAYERS[kind][0]]
    for bits in ((4, 5), (4, 8), (7, 1)):
        assert_taken(compiled(conv(kind, bits, windows=[0, 4, 6, 2, 3, 1, 2, 1, 0], padding=codes)))


def test_dynamic_widths() -> None:
    """At full width of the weights the operation passes."""
    plan = compiled(network())
    for seed in range(4):
        codes = np.random.default_rng(seed).integers(0, 256, plan.graph.input.shape, np.uint8)
        assert_native(plan, codes, reference="spec", threads=(1, 2))


def network() -> Graph:
    """Return two convolutions with an addition, whose widths a controller chooses from the picture."""
    random = np.random.default_rng(5)
    b = GraphBuilder("dynamic", weight_rule="CENTROID", candidates=((4, 8), (8, 8), (2, 3)))
    ways: dict[str, Any] = {"bias": [[0] * 6], "multiplier": [[1 << 15] * 6], "shift": [[23] * 6], "row_widths": (8,)}
    ways |= {"zero_point": 128, "scale": 1.0, "clip": (0, 255), "pads": (1, 1, 1, 1)}
    x = b.input("x", (1, 6, 5, 6), zero_point=77, scale=1.0)
    choice: dict[str, Any] = {
        "weight": random.integers(0, 256, (6, 180), np.uint8),
        "bias": [[0] * 6],
        "row_widths": (8,),
    }
    b.control(b.logits("choice", b.flatten("flat", x), controller=True, **choice))
    y = b.conv("first", x, weight=random.integers(0, 256, (6, 6, 3, 3), np.uint8), **ways)
    y = b.conv("second", y, weight=random.integers(0, 256, (6, 6, 3, 3), np.uint8), **ways)
    one: dict[str, Any] = {"multiplier_a": 3, "multiplier_b": 5, "shift": 3, "zero_point": 1, "scale": 1.0}
    b.output(b.add("sum", y, x, clip=(0, 255), **one))
    return b.build()


def test_an_addition_is_not_fused() -> None:
    """Codes change after the convolution; with weights of full width they do not."""
    plan = compiled(network())
    assert "add.narrow" in functions(plan)
    assert not any(has_halves(step) for step in compiled(conv("few", (8, 4))).layer_steps())


def test_layers_do_not_count_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes are needed, to add them."""
    monkeypatch.setattr(one_bit, "can_count", lambda _isa: True)
    counting = next(isa for isa in ISAS if AND in isa.dots)
    ways: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1)}
    for rule, expected in (("MIDPOINT", True), ("CENTROID", False)):
        layer = builders.conv(
            (32, 5, 6), np.ones((16, 32, 3, 2), int), bits=(1, 1), rules={"weight_rule": rule}, **ways
        )
        program = lower(compiled(layer), counting)
        found = [op.function for op in program.operations if isinstance(op, Operation)]
        assert ("bits" in found) == expected


def test_a_layer_whose_sums_32_bits_might_not_hold_is_left_to_a_fallback() -> None:
    """P fits, but not P at the master's scale."""
    far = dense(np.full((1, 600000), -128), bits=(2, 8), z_x=0, rules=RULES, shift=40)
    (step,) = compiled(far, accumulator_width=40).layer_steps()
    constants = {role: far.initializers[name] for role, name in step.node.operands.items() if name in far.initializers}
    assert variants_of(step, constants) is None


@pytest.mark.parametrize(("taps", "fits"), [(1 << 23, True), (9 << 20, False)])
def test_sums_of_codes_are_proven_to_fit_32_bits(taps: int, fits: bool) -> None:
    layer = dense([[1, 1]], bits=(4, 8), rules=RULES)
    (step,), known = compiled(layer).layer_steps(), layer.initializers
    constants = {role: known[name] for role, name in step.node.operands.items() if name in known}
    constants["w"] = np.zeros((1, taps), np.uint8)
    assert (halved(step, (4, 8), step.call.bounds[4, 8], constants) is not None) == fits


# ---- mistakes ----


@pytest.mark.parametrize(
    ("function", "words", "mistake"),
    [
        ("columns", {"copies": 9}, "writes 9 columns of 1"),
        ("columns", {"nested": None}, "reads an input at None"),
        ("centroid", {"stride": 1000}, "reads sums from byte 0 to 11032 of buffer 4, which has 384"),
        (
            "centroid",
            {"columns": Constant(99)},
            "takes columns from Constant(number=99, offset=0); there are 15 constants",
        ),
        ("centroid", {"vectors": 3}, "reads parameters from byte 0 to 240 of constant 11, which has 160"),
        ("centroid", {"tap_count": 99}, "reads taps from byte 0 to 792 of constant 14, which has 48"),
    ],
)
def test_a_mistake_is_told(function: str, words: dict[str, Any], mistake: str) -> None:
    program = lower(compiled(conv("few", (4, 4))), ISAS[-1])
    operation = next(op for op in program.operations if isinstance(op, Operation) and op.function == function)
    number = program.operations.index(operation)
    wrong = replace(operation, words={**operation.words, **words})
    operations = (*program.operations[:number], wrong, *program.operations[number + 1 :])
    with pytest.raises(ProgramError) as caught:
        check(replace(program, operations=operations))
    assert str(caught.value) == f"operation {number}, {function} of 'y', {mistake}."
