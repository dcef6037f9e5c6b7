"""Windows (A6) and padding codes (B1') have a native form, whose bits are those of the law."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.engines.native.check import ProgramError, check
from dqtsim.engines.native.isa import AND, ISAS
from dqtsim.engines.native.lower import one_bit
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.memory import Constant
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.proofs.activations import Activations
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.graph.model import Array
from dqtsim.planner import Plan
from dqtsim.spec import Nesting, Overflow
from tests import builders
from tests.builders import compiled, dense

from .same import assert_native

WINDOWS = [0, 4, 6, 2, 3, 1, 2, 1, 0]
RULES = [Nesting.TIES_UP, Nesting.FLOOR]
LAYERS = {"first": (3, 8, 1), "groups": (6, 8, 2), "depthwise": (32, 32, 32), "wide": (17, 20, 1)}


def conv(kind: str, bits: tuple[int, int], seed: int = 0, **ways: Any) -> Graph:
    """Return a convolution with odd pads; what it takes may have any value."""
    random = np.random.default_rng(seed)
    channels, outputs, group = LAYERS[kind]
    return builders.conv(
        (channels, 5, 6),
        random.integers(-128, 128, (outputs, channels // group, 3, 2)),
        bits=bits,
        bias=random.integers(-5000, 5000, outputs),
        multiplier=random.integers(1 << 15, 1 << 16, outputs),
        shift=19 + bits[0] // 2,
        z_x=int(random.integers(0, 256)),
        z_y=100,
        pads=(1, 0, 2, 1),
        group=group,
        **ways,
    )


def padding(kind: str) -> Array:
    """Return codes that differ between channels."""
    return np.random.default_rng(1).permutation(256)[: LAYERS[kind][0]]


def picture(plan: Plan) -> Array:
    return np.random.default_rng(2).integers(0, 256, plan.graph.input.shape, np.uint8)


def functions(plan: Plan) -> list[str]:
    return [op.function for op in lower(plan, ISAS[-1]).operations if isinstance(op, Operation) and op.step]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", [(4, 4), (8, 1), (1, 1), (7, 2), (8, 7), (8, 8)])
@pytest.mark.parametrize("padded", [False, True])
def test_windows_are_native(kind: str, rule: Nesting, bits: tuple[int, int], padded: bool) -> None:
    codes: dict[str, Any] = {"padding": padding(kind)} if padded else {}
    plan = compiled(conv(kind, bits, windows=WINDOWS, rules={"activation_rule": rule.name}, **codes))
    assert functions(plan)[0] == "window_nest"
    assert_native(plan, picture(plan), reference="spec", threads=(1, 2))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (8, 3)])
def test_padding_without_windows_is_native(kind: str, bits: tuple[int, int]) -> None:
    plan = compiled(conv(kind, bits, padding=padding(kind)))
    assert functions(plan)[0] == "window_nest"
    assert_native(plan, picture(plan), reference="spec", threads=(1, 2))


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("b_a", [1, 3, 5, 8])
def test_windows_of_dense_layers_are_native(logits: bool, b_a: int) -> None:
    weight = np.random.default_rng(3).integers(-128, 128, (11, 37))
    ways: dict[str, Any] = {} if logits else {"shift": 20, "z_y": 99}
    plan = compiled(dense(weight, bits=(8, b_a), logits=logits, windows=WINDOWS, **ways))
    assert_native(plan, picture(plan), reference="spec")


@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH])
@pytest.mark.parametrize("kind", ["first", "depthwise"])
def test_windows_with_registers_that_overflow(overflow: Overflow, kind: str) -> None:
    graph = conv(kind, (8, 5), windows=WINDOWS, padding=padding(kind))
    plan = compiled(graph, accumulator_width=13, overflow=overflow)
    assert_native(plan, picture(plan), reference="spec")


def test_without_windows_nothing_is_new() -> None:
    """Windows that are all 0 are no windows."""
    assert functions(compiled(conv("first", (4, 4), windows=[0] * 9))) == ["nest", "conv"]


def test_padding_codes_of_two_readers_of_a_tensor() -> None:
    """Both borders lie around the same pixels, one after the other; a third has the zero point."""
    random = np.random.default_rng(6)
    b = GraphBuilder("two", candidates=((8, 8), (4, 4)))
    x = b.input("x", (1, 3, 4, 5), zero_point=77, scale=1.0)
    parts = []
    for number, codes in enumerate(([0, 9, 255], None, [255, 255, 7])):
        ways: dict[str, Any] = {"bias": [[0] * 4], "multiplier": [[1 << 15] * 4], "shift": [[23] * 4]}
        ways |= {"row_widths": (8,), "zero_point": 128, "scale": 1.0, "clip": (0, 255), "pads": (1, 1, 1, 1)}
        ways |= {} if codes is None else {"padding": np.array(codes, np.uint8)}
        parts.append(b.conv(f"conv{number}", x, weight=random.integers(0, 256, (4, 3, 3, 3), np.uint8), **ways))
    b.output(b.concat("all", parts))
    plan = compiled(b.build([(8, 8)] * 3))
    assert_native(plan, picture(plan), reference="spec")


def test_layers_with_padding_codes_do_not_count_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The border of counted bits has one bit for all channels; windows move the threshold only."""
    monkeypatch.setattr(one_bit, "can_count", lambda _isa: True)
    counting = next(isa for isa in ISAS if AND in isa.dots)
    rules = {"weight_rule": "TIES_UP"}
    found = []
    ways: dict[str, Any]
    for ways in ({"windows": WINDOWS}, {"windows": WINDOWS, "padding": padding("wide")}):
        program = lower(compiled(conv("wide", (1, 1), rules=rules, **ways)), counting)
        found.append([op.function for op in program.operations if isinstance(op, Operation)])
    assert ["bits" in functions_ for functions_ in found] == [True, False]


# ---- the codes of an input ----


@given(st.sampled_from(RULES), st.integers(2, 8), st.data())
def test_codes_and_exponents_are_those_of_the_law(rule: Nesting, n: int, data: st.DataObject) -> None:
    top = (1 << n) - 1
    z, codes = data.draw(st.integers(0, top)), data.draw(st.lists(st.integers(0, top), min_size=1, max_size=4))
    windows = (0, *(data.draw(st.integers(0, n - b)) for b in range(1, n + 1)))
    found = Activations(n, rule, z, windows, np.array(codes, np.uint8))
    for b in range(1, n + 1):
        j = windows[b]
        assert found.codes(b).tolist() == [spec.nest_window(q, z, b, j, n, rule) for q in range(top + 1)]
        assert found.border(b).tolist() == [spec.nest_window(q, z, b, j, n, rule) for q in codes]
        assert found.codes(b)[z] == found.zeta(b) == spec.nest_zero_point(z, b, n, rule)
        assert found.greatest(b) == max(found.codes(b))
        assert found.exponent(b) == spec.exponent(b + j, n, rule)


def test_without_padding_the_border_is_the_zero_point() -> None:
    for b, z in product(range(1, 9), (0, 100, 255)):
        found = Activations(8, Nesting.TIES_UP, z, tuple(WINDOWS), None)
        assert found.border(b).tolist() == [found.zeta(b)]
    assert not found.plain
    assert Activations(8, Nesting.TIES_UP, 0, (0,) * 9, None).plain


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ({"border": None}, "has no pixel for its border"),
        ({"n": 3}, "takes codes of 3 bits through windows of [0, 4, 6, 2, 3, 1, 2, 1, 0]"),
        ({"border": Constant(1, 110)}, "reads border from byte 110 to 146 of constant 1, which has 81"),
    ],
)
def test_a_mistake_in_a_window_is_told(words: dict[str, Any], mistake: str) -> None:
    program = lower(compiled(conv("first", (4, 4), windows=WINDOWS)), ISAS[-1])
    operation = next(op for op in program.operations if isinstance(op, Operation) and op.function == "window_nest")
    number = program.operations.index(operation)
    wrong = replace(operation, words={**operation.words, **words})
    operations = (*program.operations[:number], wrong, *program.operations[number + 1 :])
    with pytest.raises(ProgramError) as caught:
        check(replace(program, operations=operations))
    assert str(caught.value) == f"operation {number}, window_nest of 'y', {mistake}."
