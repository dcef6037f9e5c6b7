"""Every kernel alone, against literal integers and against the law; `test_<file>_<function>` names what it tests."""

from collections.abc import Sequence
from importlib import import_module
from itertools import product
from pkgutil import iter_modules
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.engines import numba
from dqtsim.engines.numba import add, decision, mac, multiply, nest, pool, requantize
from dqtsim.numbers import of_overflow, of_rounding, of_tap_order
from dqtsim.spec import Flags, Nesting, Overflow, Rounding, TapOrder
from dqtsim.spec.multiply import multiply as law_of_products

ROUNDINGS = list(Rounding)
I32, I64, U8 = np.int32, np.int64, np.uint8


def array(values: Any, dtype: Any = I64) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


def kernel_functions() -> set[str]:
    """Return '<file>_<function>' of everything that a kernel file defines for others.

    The files that give operators to kernels are tested by the tables of cases.
    """
    found = set()
    for info in iter_modules(numba.__path__):
        if info.name in ("table", "layers", "codes"):
            continue
        module = import_module(f"{numba.__name__}.{info.name}")
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
                found.add(f"{info.name}_{name}")
    return found - {"compile_kernel"}


def test_every_kernel_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert kernel_functions() - tested == set()
    assert len(kernel_functions()) >= 16


@pytest.mark.parametrize("n", range(2, 9))
def test_nest_operand_table(n: int) -> None:
    top, half = (1 << n) - 1, 1 << (n - 1)
    for rule, b in product(Nesting, range(1, n + 1)):
        for z in {0, 1, min(7, top), half - 1, half, half + 1, top - 1, top}:
            table = nest.operand_table(z, b, n, rule)
            assert table.dtype == I32
            assert table.tolist() == [spec.operand(q, z, b, n, rule) for q in range(1 << n)]


def test_nest_nested() -> None:
    codes = array(range(256), I32)
    for b, rule in product(range(1, 9), Nesting):
        found = nest.nested(codes, b, 8, rule)
        assert found.dtype == I32
        assert found.tolist() == [spec.nest(q, b, 8, rule) for q in range(256)]


def test_nest_window_table() -> None:
    assert nest.window_table(0, 2, 2, 8, Nesting.FLOOR)[[0, 15, 16, 47, 48, 255]].tolist() == [0, 0, 1, 2, 3, 3]
    for n, rule in product((2, 5, 8), (Nesting.TIES_UP, Nesting.FLOOR)):
        for b, z in product(range(1, n + 1), (0, 1, 1 << (n - 1), (1 << n) - 1)):
            for j in range(n - b + 1):
                table = nest.window_table(z, b, j, n, rule)
                assert table.dtype == I32
                assert table.tolist() == [spec.window_operand(q, z, b, j, n, rule) for q in range(1 << n)]


def test_nest_is_below_middle() -> None:
    for b, rule in product(range(1, 9), Nesting):
        assert nest.is_below_middle(b, 8, rule) == spec.takes_half(b, 8, rule)


def test_mac_column() -> None:
    random = np.random.default_rng(3)
    a = random.integers(-255, 256, (6, 7, 6)).astype(np.int32)
    weights = np.zeros((4, 3, 2, 3), np.int32)
    for strides, dilations in product(((1, 1), (2, 1)), ((1, 1), (2, 2))):
        rows, columns = (7 - dilations[0] - 1) // strides[0] + 1, (6 - 2 * dilations[1] - 1) // strides[1] + 1
        found, expected = (np.zeros((2, rows, columns), np.int64) for _ in range(2))
        mac.column(a, weights, strides, dilations, 2, found)
        for g, y, x in product(range(2), range(rows), range(columns)):
            rows_of = slice(y * strides[0], y * strides[0] + 2 * dilations[0], dilations[0])
            columns_of = slice(x * strides[1], x * strides[1] + 3 * dilations[1], dilations[1])
            expected[g, y, x] = a[3 * g : 3 * g + 3, rows_of, columns_of].sum()
        assert found.tolist() == expected.tolist()


def test_requantize_less_half() -> None:
    p, u = array([[1, 2], [3, 4], [5, 6], [-7, 8]]), array([[3, -3], [-4, 5]])
    for exponent, e_a in ((3, 0), (5, 2)):
        expected = [
            [spec.take_half(int(p[o, m]) << exponent, int(u[o // 2, m]), e_a) for m in range(2)] for o in range(4)
        ]
        assert requantize.less_half(p, exponent, u, e_a).tolist() == expected


def test_nest_exponent() -> None:
    for n, rule in product(range(2, 9), Nesting):
        assert [nest.exponent(b, n, rule) for b in range(1, n + 1)] == [
            spec.exponent(b, n, rule) for b in range(1, n + 1)
        ]
    assert [nest.exponent(b, 8, Nesting.MIDPOINT) for b in range(1, 9)] == [6, 5, 4, 3, 2, 1, 0, 0]


def test_requantize_select_row() -> None:
    assert [requantize.select_row(b, 8, (2, 4, 8)) for b in range(1, 9)] == [0, 0, 1, 1, 2, 2, 2, 2]
    for rows in ((8,), (2, 4, 8), (1, 2, 3), (3, 5)):
        for b_w, b_a in product(range(1, 9), repeat=2):
            assert requantize.select_row(b_w, b_a, rows) == spec.select_row(b_w, b_a, rows)


def test_requantize_select_pair_row() -> None:
    assert [requantize.select_pair_row(b, 8, ((8, 8), (2, 8), (4, 2))) for b in (1, 2, 3, 8)] == [0, 1, 0, 0]
    for pairs in (((8, 8),), ((2, 8), (8, 2)), ((4, 4), (1, 8), (8, 8), (3, 5)), ((1, 1), (2, 2))):
        for b_w, b_a in product(range(1, 9), repeat=2):
            assert requantize.select_pair_row(b_w, b_a, pairs) == spec.select_pair_row(b_w, b_a, pairs)


def test_nest_nest_planes() -> None:
    codes = array([[[0, 1], [2, 3]], [[3, 2], [1, 0]]], U8)
    out = np.zeros((2, 4, 5), I32)
    out[:, 0, 0] = 99  # the border is left alone
    nest.nest_planes(codes, array([-5, 7, 11, -13], I32), 1, 2, out)
    assert out.tolist() == [
        [[99, 0, 0, 0, 0], [0, 0, -5, 7, 0], [0, 0, 11, -13, 0], [0, 0, 0, 0, 0]],
        [[99, 0, 0, 0, 0], [0, 0, -13, 11, 0], [0, 0, 7, -5, 0], [0, 0, 0, 0, 0]],
    ]


def test_nest_nest_flat() -> None:
    out = np.empty(5, I32)
    nest.nest_flat(array([255, 0, 128, 1, 254], U8), np.arange(-128, 128, dtype=I32), out)
    assert out.tolist() == [127, -128, 0, -127, 126]


@pytest.mark.parametrize("dtype", [I32, I64])
def test_mac_conv(dtype: Any) -> None:
    # two groups of one channel, two outputs each; strides (2, 1), dilations (1, 2)
    a = array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[-1, 0, 1], [2, 0, -2], [3, 0, -3]]], I32)
    w = array([[[[1, 10]]], [[[0, -1]]], [[[1, 1]]], [[[127, -128]]]], I32)
    out = np.zeros((4, 2, 1), dtype)
    mac.conv(a, w, (2, 1), (1, 2), 2, out)
    assert out.tolist() == [[[31], [97]], [[-3], [-9]], [[0], [0]], [[-255], [765]]]
    strided = np.zeros((1, 1, 2), dtype)
    mac.conv(a[:1], array([[[[1], [100]]]], I32), (1, 2), (2, 1), 1, strided)
    assert strided.tolist() == [[[701, 903]]]


def test_mac_conv_keeps_64_bits() -> None:
    out = np.zeros((1, 1, 1), I64)
    mac.conv(np.full((40000, 1, 1), -255, I32), np.full((1, 40000, 1, 1), 255, I32), (1, 1), (1, 1), 1, out)
    assert out.tolist() == [[[-255 * 255 * 40000]]]
    assert out[0, 0, 0] < -(1 << 31)


@pytest.mark.parametrize("dtype", [I32, I64])
def test_mac_gemm(dtype: Any) -> None:
    out = np.zeros((3, 1), dtype)
    mac.gemm(array([1, -2, 3], I32), array([[1, 2, 3], [-128, 127, 0], [0, 0, 1]], I32), out)
    assert out.tolist() == [[6], [-382], [3]]


@pytest.mark.parametrize("dtype", [I32, I64])
def test_mac_extremes(dtype: Any) -> None:
    assert mac.extremes(array([[3, -4], [7, 0]], dtype)) == (-4, 7)
    assert mac.extremes(array([[3], [4]], dtype)) == (0, 4)
    assert mac.extremes(array([[-3, -4]], dtype)) == (-4, 0)


def corners(width: int) -> list[int]:
    half = 1 << (width - 1)
    edges = [sign * edge + d for edge in (0, half, 2 * half, 3 * half) for sign in (1, -1) for d in (-1, 0, 1)]
    return sorted({*edges, (1 << 62) - 1, -(1 << 62), half // 2, -half // 2})


@pytest.mark.parametrize("width", range(8, 49))
def test_mac_narrow(width: int) -> None:
    values = corners(width)
    for policy in (Overflow.WRAP, Overflow.SATURATE):
        flags = Flags()
        expected = [spec.narrow(value, width, policy, flags) for value in values]
        p = array([values, values])
        events, where = mac.narrow(p, width, of_overflow(policy))
        assert p.tolist() == [expected, expected]
        assert (events, where) == (2 * (flags.wraps + flags.saturations), -1)
    half = 1 << (width - 1)
    # outputs are rows, positions columns: the first of position after position is output 1 at position 1
    p = array([[0, -half, half], [half - 1, -half - 1, half]])
    assert mac.narrow(p, width, of_overflow(Overflow.ERROR)) == (1, 3)
    assert mac.narrow(array([[half - 1, -half]]), width, of_overflow(Overflow.ERROR)) == (0, -1)


def test_mac_conv_saturate_each() -> None:
    a = array([[[1, 1]], [[1, 1]]], I32)
    w = array([[[[100, -100]], [[100, 50]]], [[[-100, -100]], [[0, 1]]], [[[9, 9]], [[9, 9]]]], I32)
    for order, sums, events in (
        (TapOrder.CHANNEL_ROW_COLUMN, [127, -127], 2),
        (TapOrder.ROW_COLUMN_CHANNEL, [77, -127], 2),
    ):
        out = np.full((3, 1, 1), 36, I64)
        found = mac.conv_saturate_each(a, w, (1, 1), (1, 1), 1, of_tap_order(order), 8, array([0, 1]), out)
        assert (out.reshape(-1).tolist(), found) == ([*sums, 36], events)  # row 2 was not asked for


SHIFTED = st.integers(-(1 << 61), (1 << 61) - 1)


def test_numbers_without_a_meaning_stop_kernels() -> None:
    message = "a kernel was given a number that none of its branches knows"
    with pytest.raises(AssertionError, match=message):
        requantize.shift_right(5, 1, cast(Any, 4))
    with pytest.raises(AssertionError, match=message):
        mac.narrow(array([[200]]), 8, cast(Any, 4))
    with pytest.raises(AssertionError, match=message):
        one = np.ones((1, 1, 1, 1), I32)
        mac.conv_saturate_each(one[0], one, (1, 1), (1, 1), 1, cast(Any, 2), 8, array([0]), array([[[0]]]))
    with pytest.raises(ValueError, match="SATURATE_EACH narrows after every product, not at the end of a window"):
        mac.narrow(array([[0]]), 8, of_overflow(Overflow.SATURATE_EACH))


def test_requantize_shift_right() -> None:
    for s, rounding in product(range(63), ROUNDINGS):
        half = 1 << s >> 1
        values = {d + sign * k * half for d in (-1, 0, 1) for sign in (-1, 1) for k in (0, 1, 2, 3, 5)}
        for x in (x for x in values if abs(x) < 1 << 62):
            assert requantize.shift_right(x, s, of_rounding(rounding)) == spec.shift_right(x, s, rounding)


@given(SHIFTED, st.integers(0, 62), st.sampled_from(ROUNDINGS))
def test_shift_right_anywhere(x: int, s: int, rounding: Rounding) -> None:
    assert requantize.shift_right(x, s, of_rounding(rounding)) == spec.shift_right(x, s, rounding)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], int, list[int], list[int], list[int]]:
    """Draw sums (O, M), an exponent, and B, M, S per channel, all intermediates below 63 bits."""
    o, m = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    sums = [draw(st.lists(st.integers(-(1 << 17), (1 << 17) - 1), min_size=m, max_size=m)) for _ in range(o)]

    def column(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=o, max_size=o))

    return sums, draw(st.integers(0, 12)), column(-(1 << 28), 1 << 28), column(0, (1 << 31) - 1), column(0, 61)


CLIPS = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)).map(
    lambda t: (t[0], min(t[1:]), max(t[1:]))
)


@pytest.mark.parametrize("dtype", [I32, I64])
@given(tables(), CLIPS, st.sampled_from(ROUNDINGS))
def test_requantize_requantize(dtype: Any, table: Any, grid: tuple[int, int, int], rounding: Rounding) -> None:
    sums, exponent, bias, multiplier, shift = table
    z, low, high = grid
    out = np.empty(array(sums).shape, U8)
    rows = (array(bias), array(multiplier), array(shift))
    requantize.requantize(array(sums, dtype), exponent, *rows, z, low, high, of_rounding(rounding), out)
    assert out.tolist() == [
        [spec.requantize((p << exponent) + b, m, s, z, low, high, rounding) for p in row]
        for row, b, m, s in zip(sums, bias, multiplier, shift, strict=True)
    ]


@pytest.mark.parametrize("dtype", [I32, I64])
def test_requantize_add_bias(dtype: Any) -> None:
    out = np.empty((2, 2), I32)
    requantize.add_bias(array([[1, -1], [32767, -32768]], dtype), 16, array([5, 0]), out)
    assert out.tolist() == [[65541, -65531], [2147418112, -2147483648]]


def test_requantize_requantize_codes() -> None:
    codes = list(range(256))
    for rounding, (z_x, m, s, z_y, low, high) in product(
        ROUNDINGS,
        [(128, 1, 1, 128, 0, 255), (0, 40000, 16, 7, 5, 100), (7, 65535, 14, 0, 0, 255), (255, 3, 0, 255, 9, 9)],
    ):
        out = np.empty(256, U8)
        requantize.requantize_codes(array(codes, U8), z_x, m, s, z_y, low, high, of_rounding(rounding), out)
        assert out.tolist() == [spec.requantize(q - z_x, m, s, z_y, low, high, rounding) for q in codes]


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=8),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.tuples(st.integers(0, (1 << 31) - 1), st.integers(0, (1 << 31) - 1)),
    st.integers(0, 61),
    CLIPS,
    st.sampled_from(ROUNDINGS),
)
def test_add_add(
    pairs: Sequence[tuple[int, int]],
    zeros: tuple[int, int],
    factors: tuple[int, int],
    s: int,
    grid: tuple[int, int, int],
    rounding: Rounding,
) -> None:
    z_y, low, high = grid
    a, b = (array(side, U8) for side in zip(*pairs, strict=True))
    out = np.empty(len(pairs), U8)
    add.add(a, b, (*zeros, z_y), factors, s, low, high, of_rounding(rounding), out)
    assert out.tolist() == [
        spec.add(q_a, zeros[0], factors[0], q_b, zeros[1], factors[1], s, z_y, low, high, rounding)
        for q_a, q_b in pairs
    ]


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=8),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, 62),
    CLIPS,
    st.sampled_from(ROUNDINGS),
    st.booleans(),
)
def test_multiply_multiply(
    pairs: Sequence[tuple[int, int]],
    zeros: tuple[int, int],
    m: int,
    s: int,
    grid: tuple[int, int, int],
    rounding: Rounding,
    shared: bool,
) -> None:
    """Pairs stand in rows of one channel, or, with a code of b for each, side by side with one more code of a."""
    z_y, low, high = grid
    a, b = ([list(side)] for side in zip(*pairs, strict=True))
    if shared:
        a, b = [[q, 255 - q] for q in a[0]], [[q] for q in b[0]]
    out = np.empty((len(a), len(a[0])), U8)
    multiply.multiply(array(a, U8), array(b, U8), (*zeros, z_y), m, s, low, high, of_rounding(rounding), out)
    assert out.tolist() == [
        [
            law_of_products(q, zeros[0], b[c][0 if shared else i], zeros[1], m, s, z_y, low, high, rounding)
            for i, q in enumerate(row)
        ]
        for c, row in enumerate(a)
    ]


def test_pool_average_pool() -> None:
    x = array([[[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50, 60]]], U8)
    out = np.empty((2, 2, 2), U8)
    # windows of 2 x 2, stride (1, 2), pads top 1 and left 1; sums of q - 2, halved, around 10
    geometry = (2, 2), (1, 2), (1, 1), (2, 10)
    pool.average_pool(x, *geometry, array([[1]], I64), 1, 0, 255, of_rounding(Rounding.FLOOR), out)
    assert out.tolist() == [[[9, 10], [10, 14]], [[14, 33], [33, 86]]]
    # a multiplier per position
    pool.average_pool(x, *geometry, array([[1, 4], [0, 2]], I64), 1, 0, 255, of_rounding(Rounding.FLOOR), out)
    assert out.tolist() == [[[9, 12], [10, 18]], [[14, 102], [10, 162]]]


def test_pool_max_pool() -> None:
    x = array([[[1, 2, 3], [4, 9, 6], [7, 8, 5]], [[0, 0, 0], [0, 0, 0], [0, 0, 255]]], U8)
    out = np.empty((2, 2, 2), U8)
    pool.max_pool(x, (2, 2), (2, 1), (1, 1), (1, 0), out)
    assert out.tolist() == [[[2, 3], [9, 9]], [[0, 0], [0, 255]]]
    apart = np.empty((2, 1, 2), U8)
    pool.max_pool(x, (2, 2), (1, 1), (2, 1), (0, 0), apart)
    assert apart.tolist() == [[[8, 8]], [[0, 255]]]


@pytest.mark.parametrize("dtype", [I32, I64])
def test_decision_argmax(dtype: Any) -> None:
    out = np.empty(5, I64)
    decision.argmax(array([[1, 2, 2], [3, 3, 3], [-9, -8, -10], [0, -1, 0], [1, 2, 3]], dtype), out)
    assert out.tolist() == [1, 0, 1, 0, 2]
