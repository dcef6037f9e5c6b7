"""Rows and requantization: B3', B4, against exact fractions."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.spec import Rounding, clip, requantize, select_row, shift_right

ROUNDINGS = list(Rounding)


def rounded(value: Fraction, rounding: Rounding) -> int:
    """Return `value` as an integer, by the definition of each name."""
    half = Fraction(1, 2)
    if rounding == Rounding.FLOOR:
        return floor(value)
    if rounding == Rounding.TIES_UP:
        return floor(value + half)
    if rounding == Rounding.TIES_EVEN:
        return round(value)
    return floor(value + half) if value >= 0 else -floor(half - value)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_shift_right_exhaustively_for_small_numbers(rounding: Rounding) -> None:
    for s in range(9):
        for x in range(-600, 601):
            assert shift_right(x, s, rounding) == rounded(Fraction(x, 1 << s), rounding)


@pytest.mark.parametrize(
    ("rounding", "at_ties"),
    [
        (Rounding.TIES_UP, [-2, -1, 0, 1, 2, 3]),
        (Rounding.FLOOR, [-3, -2, -1, 0, 1, 2]),
        (Rounding.TIES_AWAY, [-3, -2, -1, 1, 2, 3]),
        (Rounding.TIES_EVEN, [-2, -2, 0, 0, 2, 2]),
    ],
)
@pytest.mark.parametrize("s", [1, 2, 7, 40, 62])
def test_shift_right_at_ties(rounding: Rounding, at_ties: list[int], s: int) -> None:
    ties = [odd << (s - 1) for odd in (-5, -3, -1, 1, 3, 5)]
    assert [shift_right(tie, s, rounding) for tie in ties] == at_ties


@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 62), st.integers(-1, 1), st.sampled_from(ROUNDINGS))
def test_shift_right_next_to_ties(x: int, s: int, beside: int, rounding: Rounding) -> None:
    value = (x >> s << s) + ((1 << s) >> 1) + beside
    assert shift_right(value, s, rounding) == rounded(Fraction(value, 1 << s), rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_shift_of_zero_drops_nothing_and_adds_no_half(rounding: Rounding) -> None:
    assert [shift_right(x, 0, rounding) for x in (-3, -1, 0, 1, 3)] == [-3, -1, 0, 1, 3]


def test_clip_limits_on_both_sides() -> None:
    assert [clip(x, 2, 5) for x in (1, 2, 3, 5, 6)] == [2, 2, 3, 5, 5]


@given(
    st.integers(-(1 << 40), 1 << 40),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, 62),
    st.integers(0, 255),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.sampled_from(ROUNDINGS),
)
def test_requantize(total: int, m: int, s: int, z: int, ends: tuple[int, int], rounding: Rounding) -> None:
    lo, hi = sorted(ends)
    scaled = rounded(total * m * Fraction(1, 2) ** s, rounding)
    assert requantize(total, m, s, z, lo, hi, rounding) == sorted((lo, z + scaled, hi))[1]


def test_requantize_clips_after_the_zero_point_is_added() -> None:
    assert requantize(-200, 1 << 15, 15, 128, 0, 255, Rounding.TIES_UP) == 0
    assert requantize(-100, 1 << 15, 15, 128, 0, 255, Rounding.TIES_UP) == 28
    assert requantize(-100, 1 << 15, 15, 128, 128, 255, Rounding.TIES_UP) == 128
    assert requantize(200, 1 << 15, 15, 128, 0, 255, Rounding.TIES_UP) == 255


@pytest.mark.parametrize("row_widths", [(8,), (4,), (2, 4, 8), (1, 2, 3, 4, 5, 6, 7, 8), (2, 4), (3, 5)])
def test_select_row_for_all_width_pairs(row_widths: tuple[int, ...]) -> None:
    for b_w in range(1, 9):
        for b_a in range(1, 9):
            wide_enough = [width for width in row_widths if width >= b_w or width >= b_a]
            expected = min(wide_enough) if wide_enough else max(row_widths)
            assert row_widths[select_row(b_w, b_a, row_widths)] == expected


def test_select_row_table() -> None:
    rows = {pair: select_row(*pair, (2, 4, 8)) for pair in [(1, 8), (2, 2), (3, 8), (8, 4), (5, 6), (8, 8)]}
    assert rows == {(1, 8): 0, (2, 2): 0, (3, 8): 1, (8, 4): 1, (5, 6): 2, (8, 8): 2}
    assert select_row(8, 8, (2, 4)) == 1
