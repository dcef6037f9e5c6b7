"""Residual add, pools, decisions, tables, products and window geometry: B5-B10 and the taps of B1."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dqtsim.spec import Rounding, TapOrder, Window, add, argmax, average_pool, choose_widths, gather, max_pool
from dqtsim.spec.multiply import multiply
from dqtsim.spec.table import look_up

CODE = st.integers(0, 255)
MULTIPLIER = st.integers(0, (1 << 16) - 1)


def ties_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


@given(CODE, CODE, MULTIPLIER, CODE, CODE, MULTIPLIER, st.integers(1, 30), CODE)
def test_add(q_a: int, z_a: int, m_a: int, q_b: int, z_b: int, m_b: int, s: int, z_y: int) -> None:
    exact = (q_a - z_a) * Fraction(m_a, 1 << s) + (q_b - z_b) * Fraction(m_b, 1 << s)
    code = max(10, min(250, z_y + ties_up(exact)))
    assert add(q_a, z_a, m_a, q_b, z_b, m_b, s, z_y, 10, 250, Rounding.TIES_UP) == code


def test_add_rounds_the_sum_once() -> None:
    """Two halves make one: rounding each part by itself would give 2."""
    assert add(1, 0, 1, 1, 0, 1, 1, 0, 0, 255, Rounding.TIES_UP) == 1


@pytest.mark.parametrize(
    ("rounding", "code"),
    [(Rounding.TIES_UP, 98), (Rounding.FLOOR, 97), (Rounding.TIES_AWAY, 97), (Rounding.TIES_EVEN, 98)],
)
def test_add_takes_the_rounding_by_name(rounding: Rounding, code: int) -> None:
    assert add(0, 5, 1, 0, 0, 1, 1, 100, 0, 255, rounding) == code


@given(st.lists(CODE, min_size=1, max_size=16), CODE, MULTIPLIER, st.integers(1, 30), CODE)
def test_average_pool(window: list[int], z_x: int, m: int, s: int, z_y: int) -> None:
    exact = sum(Fraction(q - z_x) * m / 2**s for q in window)
    code = max(0, min(255, z_y + ties_up(exact)))
    assert average_pool(window, z_x, m, s, z_y, 0, 255, Rounding.TIES_UP) == code
    padded = [*window, z_x, z_x]
    assert average_pool(padded, z_x, m, s, z_y, 0, 255, Rounding.TIES_UP) == code


def test_max_pool() -> None:
    assert max_pool([3, 200, 7]) == 200


def test_argmax_takes_the_lowest_index_on_a_tie() -> None:
    assert argmax([5]) == 0
    assert argmax([1, 3, 3, 2]) == 1
    assert argmax([7, 7, 7]) == 0
    assert argmax([-5, -2, -9, -2]) == 1


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_argmax(values: list[int]) -> None:
    assert argmax(values) == values.index(max(values))


@given(st.permutations(range(16)))
def test_look_up(table: list[int]) -> None:
    assert [look_up(table, q) for q in range(16)] == table


@given(CODE, CODE, CODE, CODE, MULTIPLIER, st.integers(1, 40), CODE)
def test_multiply(q_a: int, z_a: int, q_b: int, z_b: int, m: int, s: int, z_y: int) -> None:
    exact = (q_a - z_a) * (q_b - z_b) * Fraction(m, 1 << s)
    code = max(10, min(250, z_y + ties_up(exact)))
    assert multiply(q_a, z_a, q_b, z_b, m, s, z_y, 10, 250, Rounding.TIES_UP) == code


def test_choose_widths_reads_the_logits_layer_by_layer() -> None:
    candidates = [(2, 2), (4, 2), (8, 8)]
    logits = [0, 5, 1, 9, 9, 9, -3, -2, -1]
    assert choose_widths(logits, 3, candidates) == [(4, 2), (2, 2), (8, 8)]


WINDOWS = st.builds(
    Window,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)


def padded_taps(window: Window, oy: int, ox: int) -> list[tuple[int, int]]:
    """Return the taps of an output in coordinates of the padded picture."""
    return [
        (oy * window.strides[0] + ky * window.dilations[0], ox * window.strides[1] + kx * window.dilations[1])
        for ky in range(window.kernel[0])
        for kx in range(window.kernel[1])
    ]


@given(WINDOWS, st.integers(1, 9), st.integers(1, 9))
def test_output_size_counts_the_windows_that_fit(window: Window, height: int, width: int) -> None:
    top, left, bottom, right = window.pads
    rows, columns = height + top + bottom, width + left + right
    fitting_rows = [o for o in range(rows) if padded_taps(window, o, 0)[-1][0] < rows]
    fitting_columns = [o for o in range(columns) if padded_taps(window, 0, o)[-1][1] < columns]
    assume(fitting_rows and fitting_columns)
    assert window.output_size(height, width) == (len(fitting_rows), len(fitting_columns))


@given(WINDOWS, st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_gather_reads_the_padded_picture_in_tap_order(window: Window, channels: int, height: int, width: int) -> None:
    top, left, bottom, right = window.pads
    planes = [[[100 * c + 10 * y + x + 1 for x in range(width)] for y in range(height)] for c in range(channels)]
    padded = [
        [[0] * (left + width + right) for _ in range(top)]
        + [[0] * left + row + [0] * right for row in plane]
        + [[0] * (left + width + right) for _ in range(bottom)]
        for plane in planes
    ]
    rows, columns = window.output_size(height, width)
    for oy in range(rows):
        for ox in range(columns):
            taps = padded_taps(window, oy, ox)
            by_channel = [padded[c][y][x] for c in range(channels) for y, x in taps]
            by_tap = [padded[c][y][x] for y, x in taps for c in range(channels)]
            assert gather(planes, window, oy, ox, TapOrder.CHANNEL_ROW_COLUMN) == by_channel
            assert gather(planes, window, oy, ox, TapOrder.ROW_COLUMN_CHANNEL) == by_tap


@given(WINDOWS, st.lists(st.integers(-9, 9), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 5))
def test_padded_taps_hold_the_operand_of_their_channel(
    window: Window, padding: list[int], height: int, width: int
) -> None:
    planes = [[[100 * c + 10 * y + x for x in range(width)] for y in range(height)] for c in range(len(padding))]
    rows, columns = window.output_size(height, width)
    for oy in range(rows):
        for ox in range(columns):
            taps = list(window.positions(oy, ox))
            inside = [0 <= y < height and 0 <= x < width for y, x in taps]
            found = gather(planes, window, oy, ox, TapOrder.CHANNEL_ROW_COLUMN, padding)
            by_tap = gather(planes, window, oy, ox, TapOrder.ROW_COLUMN_CHANNEL, padding)
            for c, operand in enumerate(padding):
                expected = [planes[c][y][x] if i else operand for (y, x), i in zip(taps, inside, strict=True)]
                assert found[c * len(taps) : (c + 1) * len(taps)] == expected
                assert by_tap[c :: len(padding)] == expected


def test_positions_run_row_by_row() -> None:
    window = Window((2, 2), strides=(2, 1), dilations=(1, 3), pads=(1, 0, 0, 0))
    assert list(window.positions(1, 2)) == [(1, 2), (1, 5), (2, 2), (2, 5)]
