"""Accumulators: B1 with its four overflow policies, B2 and B3, against bit strings and a ripple-carry adder."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.spec import (
    AccumulatorOverflow,
    Flags,
    Nesting,
    Overflow,
    Rounding,
    add_bias,
    add_up,
    align,
    dot,
    exponent,
    half,
    limits,
    narrow,
    operand,
    requantize,
    saturate,
    take_half,
    wrap,
)

WIDTHS = range(8, 49)


def bits_of(value: int, width: int) -> list[int]:
    """Return the two's complement of `value`, lowest bit first."""
    digits = []
    for _ in range(width):
        digits.append(value % 2)
        value = (value - value % 2) // 2
    return digits


def value_of(digits: list[int]) -> int:
    return sum(bit << place for place, bit in enumerate(digits[:-1])) - (digits[-1] << (len(digits) - 1))


def ripple_add(a: list[int], b: list[int]) -> list[int]:
    carry, out = 0, []
    for x, y in zip(a, b, strict=True):
        out.append(x ^ y ^ carry)
        carry = (x & y) | (carry & (x ^ y))
    return out


def corners(width: int) -> list[int]:
    """Return 0, +-1, the limits, their neighbours on both sides, and powers of two and their neighbours."""
    powers = {sign * (1 << p) + d for p in range(width + 2) for d in (-1, 0, 1) for sign in (-1, 1)}
    return sorted(powers | {0, (1 << (2 * width)) + 5, -(1 << (2 * width)) - 5})


@pytest.mark.parametrize("width", WIDTHS)
def test_limits(width: int) -> None:
    assert limits(width) == (value_of([0] * (width - 1) + [1]), value_of([1] * (width - 1) + [0]))


@pytest.mark.parametrize("width", WIDTHS)
def test_wrap_keeps_the_low_bits(width: int) -> None:
    for value in corners(width):
        assert wrap(value, width) == value_of(bits_of(value, width))


@pytest.mark.parametrize("width", WIDTHS)
def test_saturate_is_the_nearest_value_of_the_register(width: int) -> None:
    lowest, highest = -(Fraction(2) ** (width - 1)), Fraction(2) ** (width - 1) - 1
    for value in corners(width):
        expected = lowest if value < lowest else highest if value > highest else value
        assert saturate(value, width) == expected


@pytest.mark.parametrize("width", WIDTHS)
def test_narrow_by_every_policy_at_corners(width: int) -> None:
    lowest, highest = limits(width)
    for value in corners(width):
        fits = lowest <= value <= highest
        flags = Flags()
        assert narrow(value, width, Overflow.WRAP, flags) == value_of(bits_of(value, width))
        assert flags == Flags(wraps=int(not fits), lowest=min(value, 0), highest=max(value, 0))
        flags = Flags()
        assert narrow(value, width, Overflow.SATURATE, flags) == saturate(value, width)
        assert flags == Flags(saturations=int(not fits), lowest=min(value, 0), highest=max(value, 0))
        flags = Flags()
        if fits:
            assert narrow(value, width, Overflow.ERROR, flags) == value
        else:
            with pytest.raises(AccumulatorOverflow) as caught:
                narrow(value, width, Overflow.ERROR, flags)
            assert caught.value.value == value
        assert flags == Flags(lowest=min(value, 0), highest=max(value, 0))


WINDOW = st.lists(st.tuples(st.integers(-255, 255), st.integers(-255, 255)), max_size=30)


@given(WINDOW, st.integers(8, 20))
def test_dot_under_wrap_is_a_register_that_wraps_at_every_step(window: list[tuple[int, int]], width: int) -> None:
    weights, taps = [w for w, _ in window], [a for _, a in window]
    register = bits_of(0, width)
    for w, a in window:
        for _ in range(abs(w)):
            register = ripple_add(register, bits_of(a if w > 0 else -a, width))
    flags = Flags()
    assert dot(weights, taps, width, Overflow.WRAP, flags) == value_of(register)
    exact = sum(Fraction(w) * a for w, a in window)
    assert flags == Flags(
        wraps=int(not -(1 << (width - 1)) <= exact < 1 << (width - 1)),
        lowest=min(int(exact), 0),
        highest=max(int(exact), 0),
    )


@given(WINDOW, st.integers(8, 20))
def test_dot_under_saturate_and_error_sees_only_the_exact_sum(window: list[tuple[int, int]], width: int) -> None:
    weights, taps = [w for w, _ in window], [a for _, a in window]
    exact = int(sum(Fraction(w) * a for w, a in window))
    fits = -(1 << (width - 1)) <= exact < 1 << (width - 1)
    flags = Flags()
    register = sorted((exact, -(1 << (width - 1)), (1 << (width - 1)) - 1))[1]
    assert dot(weights, taps, width, Overflow.SATURATE, flags) == register
    assert flags == Flags(saturations=int(not fits), lowest=min(exact, 0), highest=max(exact, 0))
    if fits:
        assert dot(weights, taps, width, Overflow.ERROR, Flags()) == exact
    else:
        with pytest.raises(AccumulatorOverflow):
            dot(weights, taps, width, Overflow.ERROR, Flags())


@given(WINDOW, st.integers(8, 20))
def test_dot_under_saturate_each_clamps_after_every_product(window: list[tuple[int, int]], width: int) -> None:
    registers = range(-(1 << (width - 1)), 1 << (width - 1))
    at, clamped = registers.index(0), 0
    for w, a in window:
        wanted = at + w * a
        at = sorted((0, wanted, len(registers) - 1))[1]
        clamped += at != wanted
    flags = Flags()
    value = registers[at]
    assert dot([w for w, _ in window], [a for _, a in window], width, Overflow.SATURATE_EACH, flags) == value
    assert flags == Flags(saturations=clamped, lowest=min(value, 0), highest=max(value, 0))


def test_a_partial_sum_may_leave_the_register_and_come_back() -> None:
    weights, taps = [100, 100, -100], [1, 1, 1]
    for policy in (Overflow.ERROR, Overflow.WRAP, Overflow.SATURATE):
        flags = Flags()
        assert dot(weights, taps, 8, policy, flags) == 100
        assert flags == Flags(highest=100)
    flags = Flags()
    assert dot(weights, taps, 8, Overflow.SATURATE_EACH, flags) == 27
    assert flags == Flags(saturations=1, highest=27)


def test_saturate_each_can_tell_tap_orders_apart() -> None:
    orders = ([100, 100, -100], [100, -100, 100])
    assert [dot(order, [1, 1, 1], 8, Overflow.SATURATE_EACH, Flags()) for order in orders] == [27, 100]


def test_flags_gather_over_the_outputs_of_a_layer() -> None:
    flags = Flags()
    for total in (127, 128, -128, -130, 5):
        narrow(total, 8, Overflow.SATURATE, flags)
    assert flags == Flags(saturations=2, lowest=-130, highest=128)


def test_an_empty_window_is_zero() -> None:
    assert [dot([], [], 8, policy, Flags()) for policy in Overflow] == [0, 0, 0, 0]


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 7), st.integers(0, 7))
def test_alignment_multiplies_by_both_steps(p: int, e_w: int, e_a: int) -> None:
    assert align(p, e_w, e_a) == Fraction(p) * Fraction(2) ** e_w * Fraction(2) ** e_a


@pytest.mark.parametrize("width", [8, 16, 32])
def test_the_bias_is_saturated_and_the_sum_is_not(width: int) -> None:
    lowest, highest = limits(width)
    for bias in corners(width):
        nearest = sorted((lowest, bias, highest))[1]
        assert add_bias(highest, bias, width) == highest + nearest
        assert add_bias(lowest, bias, width) == lowest + nearest


CODES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=27)


@given(
    CODES,
    st.integers(0, 255),
    st.integers(-(1 << 20), 1 << 20),
    st.integers(1 << 15, (1 << 16) - 1),
    st.integers(0, 40),
    st.sampled_from([(a, b) for a in Nesting for b in (Nesting.TIES_UP, Nesting.FLOOR)]),
)
def test_at_the_master_width_a_layer_is_the_plain_8_bit_layer(
    window: list[tuple[int, int]], z: int, bias: int, m: int, s: int, rules: tuple[Nesting, Nesting]
) -> None:
    weight_rule, activation_rule = rules
    weights = [operand(q, 128, 8, 8, weight_rule) for q, _ in window]
    taps = [operand(q, z, 8, 8, activation_rule) for _, q in window]
    p = dot(weights, taps, 32, Overflow.ERROR, Flags())
    total = add_bias(align(p, exponent(8, 8, weight_rule), exponent(8, 8, activation_rule)), bias, 32)
    plain = sum((w - 128) * (q - z) for w, q in window) + bias
    scaled = Fraction(plain * m, 1 << s) + Fraction(1, 2) if s else Fraction(plain * m)
    code = max(0, min(255, 3 + scaled.numerator // scaled.denominator))
    assert requantize(total, m, s, 3, 0, 255, Rounding.TIES_UP) == code


# ---- half a step off (B2') ----

TAPS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=30)


def mean_of_sharing_codes(q: int, b: int) -> Fraction:
    """Return the mean of the master codes of 8 bits that have the upper `b` bits of `q`, less 128."""
    step = 1 << (8 - b)
    first = q // step * step
    return Fraction(sum(range(first, first + step)), step) - 128


def centroid_sum(taps: list[tuple[int, int]], z: int, b_w: int, b_a: int) -> tuple[int, Fraction]:
    """Return A of B2' and the exact sum of products, of (weight code, activation code) below the master width."""
    weights = [operand(q, 128, b_w, 8, Nesting.CENTROID) for q, _ in taps]
    activations = [operand(q, z, b_a, 8, Nesting.TIES_UP) for _, q in taps]
    e_w, e_a = exponent(b_w, 8, Nesting.CENTROID), exponent(b_a, 8, Nesting.TIES_UP)
    p = dot(weights, activations, 48, Overflow.ERROR, Flags())
    exact = sum(
        (mean_of_sharing_codes(q, b_w) * (s << e_a) for (q, _), s in zip(taps, activations, strict=True)), Fraction()
    )
    return take_half(align(p, e_w, e_a), add_up(activations), e_a), exact


@given(TAPS, st.integers(0, 255), st.integers(1, 7), st.integers(1, 7))
def test_centroid_sums_are_exact_for_narrow_activations(
    taps: list[tuple[int, int]], z: int, b_w: int, b_a: int
) -> None:
    found, exact = centroid_sum(taps, z, b_w, b_a)
    assert found == exact


@given(TAPS, st.integers(0, 255), st.integers(1, 7))
def test_centroid_sums_lose_at_most_half_a_unit_at_the_master_width(
    taps: list[tuple[int, int]], z: int, b_w: int
) -> None:
    found, exact = centroid_sum(taps, z, b_w, 8)
    assert found == floor(exact)
    assert exact - found in (0, Fraction(1, 2))


@given(TAPS, st.lists(st.integers(0, 255), min_size=30, max_size=30), st.integers(1, 7), st.integers(1, 8))
def test_differences_of_centroid_logits_are_exact(
    taps: list[tuple[int, int]], others: list[int], b_w: int, b_a: int
) -> None:
    one, exact_one = centroid_sum(taps, 7, b_w, b_a)
    other, exact_other = centroid_sum([(w, q) for w, (_, q) in zip(others, taps, strict=False)], 7, b_w, b_a)
    assert one - other == exact_one - exact_other


def test_half_goes_up() -> None:
    assert [half(u, 0) for u in (-3, -2, -1, 0, 1, 2, 3)] == [-1, -1, 0, 0, 1, 1, 2]
    assert [half(u, 1) for u in (-3, -1, 0, 1, 3)] == [-3, -1, 0, 1, 3]
    assert [half(u, 7) for u in (-3, 5)] == [-192, 320]
    assert take_half(100, 5, 0) == 97
