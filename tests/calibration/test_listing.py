"""Rows as a list of pairs: no pair of widths selects another row than before, but the one that is added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.calibration.listing import Listing, listed, with_own
from dqtsim.graph.rows import Rows
from dqtsim.spec import select_pair_row, select_row

WIDTHS = st.lists(st.integers(1, 8), min_size=1, unique=True).map(sorted).map(tuple)
PAIR = st.tuples(st.integers(1, 8), st.integers(1, 8))
PAIRS = st.lists(PAIR, min_size=1, max_size=12, unique=True).map(tuple)
ALL = [(w, a) for w in range(1, 9) for a in range(1, 9)]


def selected(listing: Listing) -> dict[tuple[int, int], int]:
    """The row of every pair of widths, by the law."""
    pairs = [pair for pair, _ in listing]
    assert len(set(pairs)) == len(pairs)
    return {pair: listing[select_pair_row(*pair, pairs)][1] for pair in ALL}


@given(WIDTHS)
def test_rows_per_width_become_rows_of_pairs_that_select_the_same(widths: tuple[int, ...]) -> None:
    assert selected(listed(Rows(widths=widths), 8)) == {pair: select_row(*pair, widths) for pair in ALL}


@given(PAIRS)
def test_rows_of_pairs_stay_and_hold_the_widest(pairs: tuple[tuple[int, int], ...]) -> None:
    found = listed(Rows(pairs=pairs), 8)
    assert selected(found) == {pair: select_pair_row(*pair, pairs) for pair in ALL}
    assert found[: len(pairs)] == list(zip(pairs, range(len(pairs)), strict=True))
    assert (8, 8) in dict(found)


@given(st.one_of(WIDTHS.map(lambda found: Rows(widths=found)), PAIRS.map(lambda found: Rows(pairs=found))), PAIRS)
def test_a_pair_gets_its_own_row_and_no_other_pair_changes(rows: Rows, added: tuple[tuple[int, int], ...]) -> None:
    listing = listed(rows, 8)
    expected = selected(listing)
    for row, pair in enumerate(added, 100):
        listing = with_own(listing, pair, row)
        expected[pair] = row
        assert selected(listing) == expected


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((8,), [((8, 8), 0)]),
        ((4, 8), [((4, 8), 0), ((8, 4), 0), ((8, 8), 1)]),
        ((4,), [((4, 8), 0), ((8, 4), 0), ((8, 8), 0)]),
    ],
)
def test_each_width_is_a_pair_with_the_master_width_on_either_side(widths: tuple[int, ...], expected: Listing) -> None:
    assert listed(Rows(widths=widths), 8) == expected


def test_narrower_pairs_keep_the_row_of_a_pair_that_gets_its_own() -> None:
    listing = listed(Rows(widths=(4, 8)), 8)
    assert with_own(listing, (4, 8), 2) == [((3, 8), 0), ((4, 7), 0), ((8, 4), 0), ((8, 8), 1), ((4, 8), 2)]
