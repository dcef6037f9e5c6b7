"""Rows and requantization: B3', B4, against exact fractions."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.spec import Rounding, clip, requantize, select_pair_row, select_row, shift_right

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


WIDTHS = [(b_w, b_a) for b_w in range(1, 9) for b_a in range(1, 9)]
ROW_PAIRS = st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=6, unique=True)


@given(ROW_PAIRS, st.sampled_from(WIDTHS))
def test_a_pair_takes_its_own_row_else_the_first_wider_else_the_last(
    row_pairs: list[tuple[int, int]], pair: tuple[int, int]
) -> None:
    index = select_pair_row(*pair, row_pairs)
    wider = [row for row in row_pairs if row[0] >= pair[0] and row[1] >= pair[1]]
    if pair in row_pairs:
        assert row_pairs[index] == pair
    else:
        assert row_pairs[index] == (wider[0] if wider else row_pairs[-1])


@given(ROW_PAIRS)
def test_every_listed_pair_takes_its_own_row(row_pairs: list[tuple[int, int]]) -> None:
    assert [select_pair_row(*pair, row_pairs) for pair in row_pairs] == list(range(len(row_pairs)))


@given(st.lists(st.integers(1, 8), min_size=1, unique=True), st.sampled_from(WIDTHS))
def test_ascending_equal_pairs_select_by_the_wider_width(widths: list[int], pair: tuple[int, int]) -> None:
    """Rows (w, w) are wide enough only if both widths fit; row widths ask for the narrower one (B3')."""
    widths.sort()
    both = select_pair_row(*pair, [(width, width) for width in widths])
    assert both == select_row(max(pair), max(pair), widths)


@pytest.mark.parametrize(
    ("pair", "index"),
    [((2, 8), 0), ((4, 4), 1), ((8, 2), 2), ((2, 4), 0), ((3, 4), 1), ((8, 1), 2), ((5, 4), 2), ((8, 8), 2)],
)
def test_select_pair_row_table(pair: tuple[int, int], index: int) -> None:
    assert select_pair_row(*pair, ((2, 8), (4, 4), (8, 2))) == index
