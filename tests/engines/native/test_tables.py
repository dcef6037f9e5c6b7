"""Constants against the law: codes, zero points, exponents, and the proofs that 32 and 64 bits are enough."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.engines.native.emit.tile import CODES, DEPTH, LOGITS, QUADS
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.engines.native.proofs import tables
from dqtsim.engines.native.proofs.tables import FAR, I32_MOST, I64_SAFE, Scaling
from dqtsim.engines.native.proofs.variants import bias_register, row_index
from dqtsim.graph.rows import Rows
from dqtsim.ops import Bound, Machine
from dqtsim.spec import Nesting, Overflow, Rounding, TapOrder

WIDTHS = [(n, b) for n in range(2, 9) for b in range(1, n + 1)]
every_rounding = pytest.mark.parametrize("rounding", list(Rounding))


def machine(n: int, weight_rule: Nesting, activation_rule: Nesting = Nesting.TIES_UP) -> Machine:
    order = TapOrder.CHANNEL_ROW_COLUMN
    return Machine(n, weight_rule, activation_rule, Rounding.TIES_UP, 32, Overflow.ERROR, order, 32, "test")


@pytest.mark.parametrize("rule", list(Nesting))
@pytest.mark.parametrize(("n", "b"), WIDTHS)
def test_what_the_multiplier_sees_is_an_operand_and_a_zero_point(n: int, b: int, rule: Nesting) -> None:
    codes = np.arange(1 << n, dtype=np.uint8)
    seen = tables.nested(codes, b, n, rule)
    assert seen.dtype == np.int64
    assert 0 <= seen.min() <= seen.max() <= 255
    # MIDPOINT and CENTROID are for tensors whose zero point is in the middle
    middle = rule in (Nesting.MIDPOINT, Nesting.CENTROID)
    zeros = [1 << (n - 1)] if middle else range(1 << n)
    for z in zeros:
        zeta = tables.zeta(z, b, n, rule)
        assert (seen - zeta).tolist() == [spec.operand(q, z, b, n, rule) for q in range(1 << n)]
    assert tables.is_below_middle(b, n, rule) == spec.takes_half(b, n, rule)
    if not middle:
        assert seen.tolist() == [spec.nest(q, b, n, rule) for q in range(1 << n)]
    assert tables.dropped(b, n, rule) == spec.exponent(b, n, rule)


@pytest.mark.parametrize("rule", list(Nesting))
@pytest.mark.parametrize(("n", "b"), WIDTHS)
def test_weights_are_operands_of_a_byte(n: int, b: int, rule: Nesting) -> None:
    codes = np.arange(1 << n, dtype=np.uint8).reshape(2, 1, -1)
    found = tables.weight_operands(codes, b, machine(n, rule))
    z = spec.master_zero_point_of_weights(n)
    assert (found.dtype.name, found.shape) == ("int8", codes.shape)
    assert found.reshape(-1).tolist() == [spec.operand(q, z, b, n, rule) for q in range(1 << n)]


PAIRS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((8, 8),),
    ((2, 2), (2, 8), (8, 2), (8, 8)),
    ((8, 8), (4, 4), (2, 8), (3, 5)),
    ((1, 1), (4, 2)),
)


def test_rows_are_those_of_the_law() -> None:
    for row_widths in ((8,), (2,), (2, 4, 8), (1, 3, 4, 7), (3, 5)):
        for b_w, b_a in product(range(1, 9), range(1, 9)):
            assert row_index(Rows(widths=row_widths), (b_w, b_a)) == spec.select_row(b_w, b_a, row_widths)
    for pairs in PAIRS:
        for b_w, b_a in product(range(1, 9), range(1, 9)):
            assert row_index(Rows(pairs=pairs), (b_w, b_a)) == spec.select_pair_row(b_w, b_a, pairs)


@pytest.mark.parametrize("width", [2, 8, 31, 32, 33, 48])
def test_biases_are_held_as_the_law_holds_them(width: int) -> None:
    half = 1 << (width - 1)
    biases = [0, 1, -1, half - 1, half, -half, -half - 1, 5 * half, -5 * half]
    assert bias_register(np.array(biases), width).tolist() == [spec.saturate(b, width) for b in biases]


@every_rounding
def test_division_is_the_laws(rounding: Rounding) -> None:
    for x, s in product(range(-70, 71), range(6)):
        assert tables.divided(x, s, rounding) == spec.shift_right(x, s, rounding)
    for s in (30, 31, 61, 62):
        for x in (sign * ((f << s >> 1) + d) for f in (0, 1, 2, 3, 5) for d in (-1, 0, 1) for sign in (1, -1)):
            assert tables.divided(x, s, rounding) == spec.shift_right(x, s, rounding)


# ---- the way out ----


def wrapped(x: int, bits: int) -> int:
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def by_kernel(p: int, scale: Scaling, zero: int, clip: tuple[int, int], rounding: Rounding) -> int:
    """Return the code as kernels compute it, in registers of 32 and 64 bits that wrap."""
    m, addend, s = (int(column[0]) for column in (scale.multiplier, scale.addend, scale.shift))
    assert 0 <= s <= 63
    value = wrapped(wrapped(p, 32) * m + addend, 64)
    if rounding in (Rounding.TIES_AWAY, Rounding.TIES_EVEN):
        half = wrapped(1 << s, 64) % (1 << 64) >> 1
        down = -1 if value < 0 else 0
        if rounding == Rounding.TIES_EVEN:
            down = (value >> s & 1) - 1
        value = wrapped(value + half + (down if s else 0), 64)
    code = wrapped(value >> s, 32)
    if rounding in (Rounding.TIES_AWAY, Rounding.TIES_EVEN):
        code = wrapped(code + zero, 32)
    return min(max(code, clip[0]), clip[1])


def scaled(
    sums: tuple[int, int], bias: int, m: int, s: int, exponent: int, zero: int, rounding: Rounding
) -> Scaling | None:
    b, multiplier, shift = (np.array([x], np.int64) for x in (bias, m, s))
    bound = Bound(np.array([sums[0]], np.int64), np.array([sums[1]], np.int64))
    return tables.scaling(bound, b, multiplier, shift, exponent, zero, rounding)


def check(
    sums: tuple[int, int], looked_at: list[int], bias: int, m: int, s: int, e: int, zero: int, rounding: Rounding
) -> bool:
    """Compare the kernels' formula with the law; return whether the constants were accepted."""
    found = scaled(sums, bias, m, s, e, zero, rounding)
    if found is None:
        return False
    for p in looked_at:
        for clip in ((0, 255), (3, 200)):
            law = spec.requantize(spec.align(p, e, 0) + bias, m, s, zero, *clip, rounding)
            assert by_kernel(p, found, zero, clip, rounding) == law, (p, found)
    return True


@every_rounding
def test_every_sum_of_small_bounds(rounding: Rounding) -> None:
    """All that fit are accepted; what does not is a zero point that is added before a shift of 61."""
    for m, s, e, bias in product((0, 1, 3, 1 << 15), (0, 1, 2, 15, 31, 61), (0, 1, 7), (-300, -1, 0, 1, 77)):
        for sums in ((-70, 60), (-1, 0), (0, 0), (0, 3)):
            zero = (7 * bias) % 256
            accepted = check(sums, list(range(sums[0], sums[1] + 1)), bias, m, s, e, zero, rounding)
            assert accepted or (rounding == Rounding.FLOOR and zero << s >= I64_SAFE)


def near(low: int, high: int, m: int, s: int, e: int, bias: int, seed: int) -> list[int]:
    """Return sums of a bound: its ends, what lies around 0, ties and their neighbours, and any."""
    step = max(1, m << e)
    ties = [((2 * code + 1 << s >> 1) - bias * m) // step for code in (-2, -1, 0, 1, 2, 100, 254, 255, 256)]
    others = np.random.default_rng(seed).integers(low, high, 20, endpoint=True).tolist()
    found = {p + d for p in (low, high, 0, *ties, *others) for d in (-1, 0, 1)}
    return [p for p in sorted(found) if low <= p <= high]


powers = st.integers(0, 31).flatmap(lambda k: st.integers((1 << k) - 3, (1 << k) + 3))
LEAST, MOST = -(1 << 31), (1 << 31) - 1


@given(
    st.tuples(powers, powers),
    st.one_of(st.integers(-(1 << 47), 1 << 47), powers, powers.map(lambda x: -x)),
    st.one_of(st.integers(0, MOST), powers.map(lambda x: min(max(x, 0), MOST))),
    st.integers(0, 63),
    st.integers(0, 14),
    st.sampled_from([0, 1, 128, 255]),
    st.sampled_from(Rounding),
)
@example((1 << 31, MOST), 0, 1 << 15, 40, 0, 0, Rounding.TIES_UP)
@example((1 << 31, MOST), -(1 << 31), MOST, 61, 0, 255, Rounding.TIES_EVEN)
@example((1 << 31, MOST), (1 << 47) - 1, MOST, 62, 0, 255, Rounding.TIES_AWAY)
@example((1, 0), 0, MOST, 61, 0, 255, Rounding.TIES_UP)
@example((1 << 31, 0), 0, 1, 0, 0, 255, Rounding.FLOOR)
def test_nothing_wrong_is_ever_accepted(
    sizes: tuple[int, int], bias: int, m: int, s: int, e: int, zero: int, rounding: Rounding
) -> None:
    low, high = max(-sizes[0], LEAST), min(max(sizes[1], 0), MOST)
    low = min(low, 0)
    check((low, high), near(low, high, m, s, e, bias, s), bias, m, s, e, zero, rounding)


@given(st.integers(0, 2**32 - 1), st.sampled_from(Rounding))
def test_usual_constants_are_accepted(seed: int, rounding: Rounding) -> None:
    """Multipliers of 16 bits with the top bit set, as models have them, for sums of up to 26 bits."""
    random = np.random.default_rng(seed)
    size, e, zero = int(random.integers(1, 27)), int(random.integers(0, 13)), int(random.integers(0, 256))
    m = int(random.integers(1 << 15, min(1 << 16, I32_MOST >> e)))
    s, bias = int(random.integers(12, 46)), int(random.integers(-(1 << 20), 1 << 20))
    low, high = -(1 << size), (1 << size) - 1
    fits = (((high << e) + abs(bias)) * m >> s) + zero < (1 << 31) - 1000
    assert check((low, high), near(low, high, m, s, e, bias, seed), bias, m, s, e, zero, rounding) or not fits


@every_rounding
def test_the_limits_of_what_is_accepted(rounding: Rounding) -> None:
    # the multiplier with its alignment is an int32
    assert scaled((-9, 9), 0, MOST, 33, 0, 0, rounding) is not None
    assert scaled((-9, 9), 0, 1 << 20, 22, 10, 0, rounding) is not None
    assert scaled((-9, 9), 0, 1 << 20, 32, 11, 0, rounding) is None
    # so is the sum
    assert scaled((-MOST, MOST), 0, 1, 8, 0, 0, rounding) is not None
    assert scaled((0, MOST + 1), 0, 1, 8, 0, 0, rounding) is None
    assert scaled((-MOST - 2, 0), 0, 1, 8, 0, 0, rounding) is None
    # products lie below 2^62, whatever is added
    assert scaled((-(1 << 30), 1 << 30), 0, MOST, 60, 0, 0, rounding) is not None
    assert scaled((-(1 << 30), 1 << 30), (1 << 30) + 2, MOST, 60, 0, 0, rounding) is None
    assert scaled((-(1 << 30), 1 << 30), -(1 << 30) - 2, MOST, 60, 0, 0, rounding) is None
    # what is left after the shift is an int32, with a zero point yet to be added
    assert scaled((0, (MOST - 1024)), 0, 1, 0, 0, 0, rounding) is not None
    assert scaled((0, MOST), 0, 1, 0, 0, 0, rounding) is None
    assert scaled((-MOST, 0), 0, 1, 0, 0, 0, rounding) is None
    assert scaled((0, MOST), 0, 4, 3, 0, 0, rounding) is not None
    # a channel that gives one code only needs no shift, however large its own is
    for bias, m, s in ((50, 1 << 15, 63), (0, 0, 0), (1 << 40, 0, 99), ((1 << 40) - 1, 1, 63)):
        found = scaled((-9, 9), bias, m, s, 0, 3, rounding)
        assert found is not None
        assert (found.multiplier.tolist(), found.shift.tolist()) == ([0], [0])
    # below 0, FLOOR gives another
    assert (scaled((-9, 9), 0, MOST, 63, 0, 3, rounding) is None) == (rounding == Rounding.FLOOR)


@every_rounding
def test_a_channel_far_outside_the_codes(rounding: Rounding) -> None:
    for bias in (-(1 << 46), 1 << 46):
        for zero in (0, 255):
            assert check((0, 0), [0], bias, 1 << 15, 0, 0, zero, rounding)
            found = scaled((0, 0), bias, 1 << 15, 0, 0, 0, rounding)
            assert found is not None
            assert abs(int(found.addend[0])) <= FAR
    assert FAR + 255 < I32_MOST < I64_SAFE


@every_rounding
def test_one_channel_without_proof_is_enough(rounding: Rounding) -> None:
    bound = Bound(np.array([-9, -9]), np.array([9, MOST]))
    one = np.ones(2, np.int64)
    assert tables.scaling(bound, one, one, 0 * one, 0, 0, rounding) is None
    bound = Bound(np.array([-9, -9]), np.array([9, 9]))
    found = tables.scaling(bound, one, np.array([2, 3]), np.array([1, 0]), 2, 0, rounding)
    assert found is not None
    assert (found.multiplier.tolist(), found.shift.tolist()) == ([8, 12], [1, 0])


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", [CODES, LOGITS, DEPTH, QUADS])
def test_blocks_hold_every_channel_once(isa: Isa, kind: str) -> None:
    if kind in (DEPTH, QUADS) and bool(isa.depthwise.quads) != (kind == QUADS):
        return
    for outputs, most in product([*range(1, 150, 7), 16, 64, 1000], range(1, 5)):
        blocks = tables.blocks_of(isa, kind, 4, outputs, most)
        channels = np.concatenate([block.order for block in blocks]).tolist()
        assert sorted(channels) == list(range(len(channels)))
        # no more than a pixel holds
        assert outputs <= len(channels) <= -(-outputs // 16) * 16
        for block in blocks:
            assert block.first == min(block.order)


@every_rounding
def test_numbers_that_leave_64_bits_are_pythons(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around the size where arrays of int64 no longer do, they and Python's integers find the same."""
    random = np.random.default_rng(6)
    accepted = 0
    for _ in range(1500):
        m, e = 1 << int(random.integers(8, 32)), int(random.integers(0, 9))
        room = int(random.integers(58, 68)) - m.bit_length() - e
        top = min(max(room, 1), 31)
        sums = (-int(random.integers(1, 1 << top)), int(random.integers(1, 1 << top)))
        bias = int(random.choice([-1, 1])) * (1 << max(room + e, 0)) if random.integers(2) else 0
        rest = sums, bias, m - int(random.integers(1, 3)), int(random.integers(20, 64)), e, 255, rounding
        found = scaled(*rest)
        with monkeypatch.context() as patch:
            patch.setattr(tables, "_bits", lambda *_: 99)
            exact = scaled(*rest)
        assert (found is None) == (exact is None), rest
        if found is not None and exact is not None:
            accepted += 1
            for role in ("multiplier", "addend", "shift"):
                assert getattr(found, role).tolist() == getattr(exact, role).tolist(), rest
                assert getattr(found, role).dtype == getattr(exact, role).dtype
    assert 100 < accepted < 1400
