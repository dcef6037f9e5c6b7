"""Products of lower widths: which blocks take the narrow dot product, and that its 16 bits are always enough."""

import ctypes
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from dqtsim import spec
from dqtsim.engines.native import native
from dqtsim.engines.native.compile import build
from dqtsim.engines.native.emit.tile import BLOCK, VARIANT
from dqtsim.engines.native.ir import I32, Emitter, Record, vector
from dqtsim.engines.native.isa import ISAS, SMALL
from dqtsim.engines.native.memory import Constant, Function, Table, Word
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.proofs import tables
from dqtsim.planner import Plan
from dqtsim.spec import Nesting
from tests import builders
from tests.builders import Array
from tests.vectorkernels import kernel, kernels

from .same import assert_native

AVX2 = next(isa for isa in ISAS if isa.name == "avx2")
only_avx2 = pytest.mark.skipif("avx2" not in kernels(), reason="this machine has no kernel avx2")
Pair = tuple[int, int]
# codes and operands whose two products have the least and the greatest sums of 16 bits, and one more
FITTING: tuple[tuple[int, Pair, Pair], ...] = (
    (32767, (255, 191), (127, 2)),
    (-32768, (255, 128), (-128, -1)),
    (32385, (255, 0), (127, 127)),
    (-255, (255, 255), (127, -128)),
)
TOO_FAR: tuple[tuple[int, Pair, Pair], ...] = ((32768, (254, 255), (127, 2)), (-32769, (255, 129), (-128, -1)))


# ---- the instruction ----

DOT = Record("a", "b", "out")


def emit_dot(module: Any) -> None:
    """Write `dot`, out += a . b."""
    e = Emitter(module, "dot")
    a, b, out = e.unpack(DOT, e.arguments[0], "a", "b", "out")
    lanes = vector(I32, AVX2.lanes)
    e.store(AVX2.dots[SMALL].add(e, e.load(out, lanes), e.load(a, lanes), e.load(b, lanes)), out)
    e.done()


@pytest.fixture(scope="module")
def dot() -> Callable[[Array, Array, Array], list[int]]:
    module = ir.Module()
    emit_dot(module)
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(
        build.load_object(build.compile_module(module, AVX2), ["dot"])["dot"]
    )

    def call(codes: Array, operands: Array, sums: Array) -> list[int]:
        a, b, out = codes.astype(np.uint8), operands.astype(np.int8), sums.astype(np.int32)
        record = DOT.words(function=0, chunks=1, a=address(a), b=address(b), out=address(out))
        words = np.array(record, np.int64)
        function(address(words), 0)
        return [int(value) for value in out]

    return call


def address(array: Array) -> int:
    return int(array.ctypes.data)


def test_who_has_it() -> None:
    """Where vpdpbusd is, nothing is faster, and it is exact."""
    assert [isa.name for isa in ISAS if SMALL in isa.dots] == ["avx2"]


@only_avx2
@pytest.mark.parametrize("second", [0, 1])
def test_sums_of_two_products(dot: Any, second: int) -> None:
    """Exact up to the limits of 16 bits, and no further: that is what has to be proven."""
    for fits, cases in ((True, FITTING), (False, TOO_FAR)):
        for total, codes, operands in cases:
            assert sum(q * w for q, w in zip(codes, operands, strict=True)) == total
            a, b = np.zeros((2, 32), np.int64)
            lane = 4 * np.arange(8) + 2 * second
            for k in range(2):
                a[lane + k], b[lane + k] = codes[k], operands[k]
            expected = total if fits else total - (1 if total > 0 else -1)
            assert dot(a, b, np.arange(8) - 4) == [expected + n - 4 for n in range(8)]
            # both pairs of a lane together need more than 16 bits, and get them
            a[lane + 2 - 4 * second], a[lane + 3 - 4 * second] = codes
            b[lane + 2 - 4 * second], b[lane + 3 - 4 * second] = operands
            assert dot(a, b, np.zeros(8)) == [2 * expected] * 8


@only_avx2
def test_codes_have_no_sign_and_operands_have(dot: Any) -> None:
    random = np.random.default_rng(5)
    for most, least in ((255, -64), (1, -128), (127, -128)):
        codes, operands = random.integers(0, most + 1, 32), random.integers(least, min(-least, 128), 32)
        assert dot(codes, operands, np.zeros(8)) == (codes * operands).reshape(8, 4).sum(1).tolist()


@only_avx2
def test_it_is_that_instruction() -> None:
    module = ir.Module()
    emit_dot(module)
    parsed, machine = build.optimized(module, AVX2)
    found = [line.split()[0] for line in machine.emit_assembly(parsed).splitlines() if line.startswith("\tvp")]
    assert found == ["vpmaddubsw", "vpmaddwd", "vpaddd"]


# ---- the proof ----


@pytest.mark.parametrize("n", range(2, 9))
def test_the_greatest_byte_of_an_input(n: int) -> None:
    """By the law: a byte is an operand with the nested zero point put back, or that zero point, for the border."""
    top = (1 << n) - 1
    for b, rule, z in product(range(1, n + 1), Nesting, {0, 1, top // 2, top // 2 + 1, top - 1, top}):
        odd = rule in (Nesting.MIDPOINT, Nesting.CENTROID) and b < n
        zero = spec.nest_zero_point(z, b, n, rule) * (2 if odd else 1)
        bytes_ = {spec.operand(q, z, b, n, rule) + zero for q in range(1 << n)} | {zero}
        assert tables.greatest(z, b, n, rule) == max(bytes_)
        assert max(bytes_) == (1 << (b + 1 if odd else b)) - 1


@given(st.lists(st.tuples(*[st.integers(-128, 127)] * 4), min_size=1, max_size=5), st.integers(1, 255))
def test_no_pair_leaves_16_bits_where_all_fit(rows: Sequence[tuple[int, ...]], code: int) -> None:
    part = np.array(rows, np.int8)
    pairs = [row[k : k + 2] for row in rows for k in (0, 2)]
    sums = [p * a + q * b for a, b in pairs for p, q in product((0, code), repeat=2)]
    lowest, highest = tables.pair_sums(part)
    assert (lowest * code, highest * code) == (min(sums), max(sums))
    assert tables.fits_pairs((lowest, highest), code) == (min(sums) >= -32768 and max(sums) <= 32767)


@pytest.mark.parametrize(
    ("sums", "code", "expected"),
    [
        ((0, 217), 151, True),
        ((0, 256), 128, False),
        ((-256, 0), 128, True),
        ((-99, 0), 331, False),
        ((-256, 217), 128, True),
        ((-128, 128), 255, True),
        ((-129, 0), 255, False),
        ((0, 129), 255, False),
        ((-256, 254), 127, True),
    ],
)
def test_the_limits_of_16_bits(sums: Pair, code: int, expected: bool) -> None:
    """In the first four lines the products are 32767, 32768, -32768 and -32769."""
    assert tables.fits_pairs(sums, code) == expected


# ---- layers ----


def chosen(plan: Plan) -> dict[str, dict[Pair, list[str]]]:
    """Return the kernels of the blocks of each layer at each pair of widths."""
    with kernel("avx2"):
        program = native(plan).program

    def records(word: Word, names: Sequence[str]) -> list[dict[str, Word]]:
        assert isinstance(word, Constant)
        table = program.constants[word.number]
        assert isinstance(table, Table) and (word.offset, table.names) == (0, names)
        return [dict(zip(names, record, strict=True)) for record in table.records]

    found = {}
    steps = {step.node.name: step for step in plan.steps}
    for operation in program.operations:
        if isinstance(operation, Operation) and operation.function == "conv":
            pairs = list(steps[operation.step].call.bounds)
            blocks = [records(variant["blocks"], BLOCK) for variant in records(operation.words["variants"], VARIANT)]
            found[operation.step] = {
                pair: [block["function"].name for block in rows if isinstance(block["function"], Function)]
                for pair, rows in zip(pairs, blocks, strict=True)
            }
            assert {len(rows) for rows in found[operation.step].values()} == {operation.words["block_count"]}
    return found


def small(plan: Plan) -> list[bool]:
    """Return which blocks of the only layer take the narrow dot product at its only pair of widths."""
    (layer,) = chosen(plan).values()
    (names,) = layer.values()
    return [name.startswith(SMALL) for name in names]


def assert_exact(plan: Plan, codes: Array, expected: Sequence[bool]) -> None:
    """The blocks take the narrow dot product as expected, and all bits are those of the law."""
    assert small(plan) == list(expected)
    assert_native(plan, codes, names=["avx2"], reference="numba")


@only_avx2
@pytest.mark.parametrize(("sign", "pair"), [(1, (127, 1)), (1, (127, 2)), (-1, (-128, 0)), (-1, (-128, -1))], ids=str)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_operands_decide_at_full_width(sign: int, pair: Pair, at: int) -> None:
    """Codes of 255 by two operands of 128 in all fit, of 129 do not; operands of two pairs never meet."""
    weight = np.zeros((1, 4, 1, 1), np.int64)
    weight[0, at : at + 2, 0, 0] = pair
    graph = builders.conv((4, 1, 3), weight, z_x=0, shift=15 + 7, z_y=128)
    codes = np.zeros((1, 4, 1, 3), np.uint8)
    # pixels of the greatest sum, of the limit of 16 bits, and of one more
    codes[0, at, 0], codes[0, at + 1, 0] = ((255, 255, 254), (255, 191, 255)) if sign > 0 else (
        (255, 255, 255), (255, 128, 129)
    )  # fmt: skip
    sums = codes[0, :, 0].T.astype(np.int64) @ weight[0, :, 0, 0]
    if pair == (127, 2):
        assert sums.tolist() == [32895, 32767, 32768]
    if pair == (-128, -1):
        assert sums.tolist() == [-32895, -32768, -32769]
    assert_exact(builders.compiled(graph), codes, [at == 1 or abs(sum(pair)) == 128])


@only_avx2
def test_unlike_signs_do_not_add() -> None:
    weight = np.array([127, -128, -128, 127]).reshape(1, 4, 1, 1)
    graph = builders.conv((4, 4, 4), weight, z_x=0, shift=15 + 8)
    codes = np.array(list(product((0, 255), repeat=4)), np.uint8).T.reshape(1, 4, 4, 4)
    assert_exact(builders.compiled(graph), codes, [True])


@only_avx2
@pytest.mark.parametrize("bad", [None, 0, 15, 16, 39])
def test_each_block_by_its_own_operands(bad: int | None) -> None:
    random = np.random.default_rng(9)
    weight = random.integers(-64, 65, (40, 12, 3, 3))
    if bad is not None:
        weight[bad, 11, 2, 2], weight[bad, 10, 2, 2] = 127, 2
    graph = builders.conv((12, 5, 6), weight, z_x=255, shift=15 + 13, z_y=99, pads=(1, 1, 1, 1))
    expected = [bad is None or not first <= bad < first + 16 for first in (0, 16, 32)]
    codes = random.integers(0, 256, (1, 12, 5, 6), np.uint8)
    codes[0, :, 2:, 2:] = 255
    assert_exact(builders.compiled(graph), codes, expected)


RULES = [
    {"weight_rule": weight_rule, "activation_rule": activation_rule}
    for weight_rule, activation_rule in product(("TIES_UP", "FLOOR", "MIDPOINT"), ("TIES_UP", "FLOOR"))
]


@only_avx2
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules.values()))
@pytest.mark.parametrize("n", [8, 5])
def test_every_pair_of_widths(rules: dict[str, str], n: int) -> None:
    """Operands and codes of both ends side by side, at each pair of widths; the law says which of them fit."""
    random = np.random.default_rng(n)
    top, middle = (1 << n) - 1, 1 << (n - 1)
    weight = random.integers(-middle, middle, (9, 8, 3, 3))
    weight[:3, :, :2], weight[3:6, :, 1:] = -middle, middle - 1
    codes = random.integers(0, top + 1, (1, 8, 5, 4), np.uint8)
    codes[0, :, 2:] = top
    names = set()
    for b_w, b_a in product(range(1, n + 1), repeat=2):
        w = {spec.operand(q, middle, b_w, n, Nesting[rules["weight_rule"]]) for q in range(1 << n)}
        u = (1 << b_a) - 1
        expected = 2 * min(w) * u >= -32768 and 2 * max(w) * u <= 32767
        graph = builders.conv(
            (8, 5, 4),
            weight,
            bits=(b_w, b_a),
            z_x=(0, middle, top)[(b_w + b_a) % 3],
            z_y=middle,
            shift=15 + n + 1,
            rules={**rules, "master_width": n},
            pads=(1, 0, 1, 2),
        )
        assert_exact(builders.compiled(graph), codes, [expected])
        names.add(expected)
    assert names == ({True, False} if n == 8 else {True})


@only_avx2
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(("bits", "most"), [((8, 8), 64), ((8, 8), 127), ((4, 4), 127), ((6, 7), 127)])
def test_dense_layers(logits: bool, bits: Pair, most: int) -> None:
    random = np.random.default_rng(most)
    weight = random.integers(-most, most + 1, (21, 70))
    weight[3, 68:], weight[4, 68:] = most, -most - 1
    scale: dict[str, Any] = {} if logits else {"shift": 15 + 13}
    graph = builders.dense(weight, logits=logits, bits=bits, z_x=3, **scale)
    codes = random.integers(0, 256, (1, 70), np.uint8)
    codes[0, 60:] = 255
    # 255 by twice -65 is too far, by twice -64 is not
    assert_exact(builders.compiled(graph), codes, [bits != (8, 8), bits != (8, 8) or most == 64])
    if bits == (8, 8) and most == 64:
        fits = builders.dense(np.minimum(np.abs(weight), 64), logits=logits, bits=bits, z_x=3, **scale)
        assert_exact(builders.compiled(fits), codes, [True, True])


@only_avx2
def test_widths_of_one_layer_choose_apart() -> None:
    """Where a controller chooses, each pair of widths has kernels of its own."""
    plan = builders.compiled(builders.network())
    found = chosen(plan)
    assert {len(layer) for layer in found.values()} == {1, 3}
    for name, layer in found.items():
        for (b_w, b_a), names in layer.items():
            assert [name.startswith(SMALL) for name in names] == [b_w + b_a < 16] * len(names), (name, b_w, b_a)
    random = np.random.default_rng(2)
    for _ in range(5):
        assert_native(plan, random.integers(0, 256, (1, *plan.graph.inputs[0].shape[1:]), np.uint8), names=["avx2"])
