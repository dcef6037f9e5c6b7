"""Codes and widths: A1-A6. The domain has at most 16 bits, so almost everything here is exhaustive."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.spec import (
    Nesting,
    exponent,
    master_zero_point_of_weights,
    max_pool,
    nest,
    nest_window,
    nest_zero_point,
    operand,
    takes_half,
    window_operand,
)

RULES = list(Nesting)
MASTERS = range(1, 9)


def every_code(rule: Nesting) -> Iterator[tuple[int, int, int, int]]:
    """Yield (q, code, b, n) for all master codes, widths and master widths."""
    for n in MASTERS:
        for b in range(1, n + 1):
            for q in range(1 << n):
                yield q, nest(q, b, n, rule), b, n


def clips(q: int, k: int, n: int) -> bool:
    """Whether the increment of TIES_UP leaves the range of the width, so that A1 clips."""
    return k > 0 and q >= (1 << n) - (1 << (k - 1))


@pytest.mark.parametrize("rule", RULES)
def test_nesting_at_the_master_width_is_the_identity(rule: Nesting) -> None:
    assert all(code == q for q, code, b, n in every_code(rule) if b == n)


@pytest.mark.parametrize("rule", RULES)
def test_nested_codes_fit_their_width(rule: Nesting) -> None:
    assert all(0 <= code < 1 << b for _, code, b, _ in every_code(rule))


@pytest.mark.parametrize("rule", RULES)
def test_nesting_is_monotone(rule: Nesting) -> None:
    for n in MASTERS:
        for b in range(1, n + 1):
            codes = [nest(q, b, n, rule) for q in range(1 << n)]
            assert codes == sorted(codes)


def test_ties_up_is_the_rational_statement_of_equation_4() -> None:
    for q, code, b, n in every_code(Nesting.TIES_UP):
        assert code == min(floor(Fraction(q, 1 << (n - b)) + Fraction(1, 2)), (1 << b) - 1)


def test_ties_up_adds_the_first_dropped_bit() -> None:
    for q, code, b, n in every_code(Nesting.TIES_UP):
        digits = f"{q:0{n}b}"
        kept, dropped = digits[:b], digits[b:]
        assert code == min(int(kept, 2) + (dropped[:1] == "1"), (1 << b) - 1)


@pytest.mark.parametrize("rule", [Nesting.FLOOR, Nesting.MIDPOINT, Nesting.CENTROID])
def test_floor_midpoint_and_centroid_keep_the_upper_bits(rule: Nesting) -> None:
    for q, code, b, n in every_code(rule):
        assert code == int(f"{q:0{n}b}"[:b], 2)


def test_ties_up_at_the_tie_and_at_the_clip() -> None:
    cases = {7: 0, 8: 1, 9: 1, 23: 1, 24: 2, 247: 15, 248: 15, 255: 15}
    assert {q: nest(q, 4, 8, Nesting.TIES_UP) for q in cases} == cases


@pytest.mark.parametrize("rule", [Nesting.FLOOR, Nesting.MIDPOINT, Nesting.CENTROID])
def test_floor_composes(rule: Nesting) -> None:
    for n in MASTERS:
        for middle in range(1, n + 1):
            for b in range(1, middle + 1):
                for q in range(1 << n):
                    assert nest(nest(q, middle, n, rule), b, middle, rule) == nest(q, b, n, rule)


def test_ties_up_does_not_compose() -> None:
    by_way_of_4_bits = nest(nest(31, 4, 8, Nesting.TIES_UP), 2, 4, Nesting.TIES_UP)
    assert (nest(31, 2, 8, Nesting.TIES_UP), by_way_of_4_bits) == (0, 1)


@pytest.mark.parametrize("rule", RULES)
def test_the_usual_zero_points_nest_exactly(rule: Nesting) -> None:
    for n in MASTERS:
        for b in range(1, n + 1):
            assert nest_zero_point(0, b, n, rule) == 0
            assert nest_zero_point(1 << (n - 1), b, n, rule) == 1 << (b - 1)


def test_a_midpoint_tensor_nests_its_zero_point_by_floor() -> None:
    assert [nest_zero_point(z, 4, 8, Nesting.MIDPOINT) for z in (7, 8, 15, 16)] == [0, 0, 0, 1]
    assert [nest_zero_point(z, 4, 8, Nesting.TIES_UP) for z in (7, 8, 15, 16)] == [0, 1, 1, 1]


def test_weights_have_the_zero_point_of_offset_binary() -> None:
    assert [master_zero_point_of_weights(n) for n in (2, 4, 8)] == [2, 8, 128]


def errors(rule: Nesting, z_of: int | None) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (error, q, z, k, b, n), error = (q - z) - s * 2^e; z_of is 0, 1 for 2^(n-1), or None for every z."""
    for n in (8,) if z_of is None else MASTERS:
        zero_points = range(1 << n) if z_of is None else [z_of << (n - 1)]
        for b in range(1, n + 1):
            e = exponent(b, n, rule)
            for z in zero_points:
                for q in range(0, 1 << n, 1 if z_of is not None else 5):
                    yield (q - z) - (operand(q, z, b, n, rule) << e), q, z, n - b, b, n


@pytest.mark.parametrize("z_of", [0, 1])
def test_ties_up_errs_by_at_most_half_a_step_unless_clipped(z_of: int) -> None:
    for error, q, _, k, _, n in errors(Nesting.TIES_UP, z_of):
        half = (1 << k) >> 1
        if clips(q, k, n):
            assert half <= error < 1 << k
        else:
            assert -half <= error < max(half, 1)


def test_midpoint_errs_by_at_most_half_a_step_and_never_clips() -> None:
    for error, _, _, k, _, _ in errors(Nesting.MIDPOINT, 1):
        assert -((1 << k) >> 1) <= error < max((1 << k) >> 1, 1)


def test_centroid_is_the_mean_of_the_codes_that_share_a_code() -> None:
    for n in MASTERS:
        z = master_zero_point_of_weights(n)
        for b in range(1, n + 1):
            half = Fraction(takes_half(b, n, Nesting.CENTROID), 2)
            read: dict[int, list[int]] = {}
            for q in range(1 << n):
                read.setdefault(operand(q, z, b, n, Nesting.CENTROID), []).append(q - z)
            for s, shared in read.items():
                assert (s << exponent(b, n, Nesting.CENTROID)) - half == Fraction(sum(shared), len(shared))


def test_centroid_errs_by_less_than_half_a_step_and_by_nothing_in_the_mean() -> None:
    for n in MASTERS:
        for b in range(1, n):
            found = [(q, e) for e, q, _, _, b_, n_ in errors(Nesting.CENTROID, 1) if (b_, n_) == (b, n)]
            step = 1 << (n - b)
            rests = [error + Fraction(1, 2) for _, error in found]
            assert sum(rests) == 0
            assert all(-Fraction(step, 2) < rest < Fraction(step, 2) for rest in rests)


def test_centroid_has_the_codes_operands_and_exponents_of_midpoint() -> None:
    for n in MASTERS:
        z = master_zero_point_of_weights(n)
        for b in range(1, n + 1):
            assert exponent(b, n, Nesting.CENTROID) == exponent(b, n, Nesting.MIDPOINT)
            for q in range(1 << n):
                assert nest(q, b, n, Nesting.CENTROID) == nest(q, b, n, Nesting.MIDPOINT)
                assert operand(q, z, b, n, Nesting.CENTROID) == operand(q, z, b, n, Nesting.MIDPOINT)


def test_only_centroid_below_the_master_width_takes_a_half() -> None:
    found = {(rule, b) for rule in RULES for b in range(1, 9) if takes_half(b, 8, rule)}
    assert found == {(Nesting.CENTROID, b) for b in range(1, 8)}


@pytest.mark.parametrize("z_of", [0, 1])
def test_floor_errs_downwards_by_less_than_a_step(z_of: int) -> None:
    for error, q, _, k, _, _ in errors(Nesting.FLOOR, z_of):
        assert 0 <= error < 1 << k
        assert error == q % (1 << k)


def test_an_arbitrary_zero_point_adds_its_own_error_under_floor() -> None:
    for error, q, z, k, _, _ in errors(Nesting.FLOOR, None):
        assert error == q % (1 << k) - z % (1 << k)


def test_an_arbitrary_zero_point_adds_its_own_error_under_midpoint() -> None:
    for error, q, z, k, _, _ in errors(Nesting.MIDPOINT, None):
        assert error == q % (1 << k) - z % (1 << k) - ((1 << k) >> 1)


def test_an_arbitrary_zero_point_errs_by_less_than_a_step_under_ties_up_unless_clipped() -> None:
    for error, q, z, k, _, n in errors(Nesting.TIES_UP, None):
        if not clips(q, k, n) and not clips(z, k, n):
            assert -(1 << k) < error < 1 << k
        else:
            assert -(3 << k) >> 1 < error < (3 << k) >> 1


def test_midpoint_operands_are_odd_and_symmetric() -> None:
    for n in MASTERS:
        z = master_zero_point_of_weights(n)
        for b in range(1, n):
            operands = {operand(q, z, b, n, Nesting.MIDPOINT) for q in range(1 << n)}
            assert operands == set(range(1 - (1 << b), 1 << b, 2))


def test_midpoint_is_one_shift_and_one_or() -> None:
    for b in range(1, 8):
        k = 8 - b
        for q in range(256):
            assert operand(q, 128, b, 8, Nesting.MIDPOINT) == ((q >> (k - 1)) | 1) - (128 >> (k - 1))


def test_midpoint_at_the_master_width_is_the_code_itself() -> None:
    assert all(operand(q, 128, 8, 8, Nesting.MIDPOINT) == q - 128 for q in range(256))
    assert exponent(8, 8, Nesting.MIDPOINT) == 0


def test_exponents() -> None:
    widths = (8, 7, 4, 1)
    assert [exponent(b, 8, Nesting.TIES_UP) for b in widths] == [0, 1, 4, 7]
    assert [exponent(b, 8, Nesting.FLOOR) for b in widths] == [0, 1, 4, 7]
    assert [exponent(b, 8, Nesting.MIDPOINT) for b in widths] == [0, 0, 3, 6]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=16), st.integers(1, 8), st.sampled_from(RULES))
def test_max_pool_commutes_with_nesting(window: list[int], b: int, rule: Nesting) -> None:
    assert nest(max_pool(window), b, 8, rule) == max_pool([nest(q, b, 8, rule) for q in window])


@given(st.lists(st.tuples(st.integers(-255, 255), st.integers(0, 255)), max_size=40), st.integers(0, 7))
def test_residual_planes_refine_a_floor_result(pairs: list[tuple[int, int]], k: int) -> None:
    coarse = sum(a * nest(q, 8 - k, 8, Nesting.FLOOR) for a, q in pairs)
    residual = sum(a * (q % (1 << k)) for a, q in pairs)
    assert (coarse << k) + residual == sum(a * q for a, q in pairs)


# ---- windows (A6) ----

ACTIVATION_RULES = [Nesting.TIES_UP, Nesting.FLOOR]


def windows(rule: Nesting, n: int, zero_points: Iterable[int]) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (q, z, b, j, s) for all master codes, widths and windows; s is the operand."""
    for z in zero_points:
        for b in range(1, n + 1):
            for j in range(n - b + 1):
                for q in range(1 << n):
                    yield q, z, b, j, window_operand(q, z, b, j, n, rule)


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
def test_no_window_is_nesting_as_ever(rule: Nesting) -> None:
    for n in (2, 5, 8):
        for z in range(0, 1 << n, 3):
            for b in range(1, n + 1):
                assert all(nest_window(q, z, b, 0, n, rule) == nest(q, b, n, rule) for q in range(1 << n))
                assert all(window_operand(q, z, b, 0, n, rule) == operand(q, z, b, n, rule) for q in range(1 << n))


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
def test_a_window_gives_codes_of_its_width_and_keeps_the_zero_point(rule: Nesting) -> None:
    for n in (3, 6):
        for z in range(1 << n):
            for b in range(1, n + 1):
                for j in range(n - b + 1):
                    codes = [nest_window(q, z, b, j, n, rule) for q in range(1 << n)]
                    assert codes == sorted(codes)
                    assert 0 <= codes[0] <= codes[-1] < 1 << b
                    assert codes[z] == nest_zero_point(z, b, n, rule)


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
def test_a_window_is_a_finer_operand_that_saturates(rule: Nesting) -> None:
    for n in (4, 6):
        for q, z, b, j, s in windows(rule, n, range(1 << n)):
            below = nest_zero_point(z, b, n, rule)
            assert s == min(max(operand(q, z, b + j, n, rule), -below), (1 << b) - 1 - below)


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
@pytest.mark.parametrize("z", [0, 128])
def test_inside_a_window_the_error_is_that_of_the_finer_width(rule: Nesting, z: int) -> None:
    for q, _, b, j, s in windows(rule, 8, [z]):
        step = 1 << (8 - b - j)
        lowest = -nest_zero_point(z, b, 8, rule)
        if lowest < s < lowest + (1 << b) - 1:
            error = (q - z) - s * step
            assert 0 <= error < step if rule == Nesting.FLOOR else -step <= 2 * error < max(step, 1)


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
@pytest.mark.parametrize("z", [0, 128])
def test_a_window_saturates_at_its_ends_and_only_beyond_them(rule: Nesting, z: int) -> None:
    for q, _, b, j, s in windows(rule, 8, [z]):
        step = 1 << (8 - b - j)
        least = -nest_zero_point(z, b, 8, rule)
        most = least + (1 << b) - 1
        if q - z >= (most + 1) * step:
            assert s == most
        if q - z <= (least - 1) * step:
            assert s == least
        if least * step < q - z < most * step:
            assert abs((q - z) - s * step) <= step


def test_at_the_end_of_its_window_a_code_keeps_all_its_bits() -> None:
    """At b + j = n nothing is rounded: small values are exact, large ones saturate."""
    assert [window_operand(q, 0, 4, 4, 8, Nesting.TIES_UP) for q in (0, 1, 14, 15, 16, 255)] == [0, 1, 14, 15, 15, 15]
    assert [window_operand(q, 128, 4, 4, 8, Nesting.FLOOR) for q in (0, 119, 120, 127, 128, 135, 136)] == [
        *(-8, -8, -8, -1, 0, 7, 7),
    ]
