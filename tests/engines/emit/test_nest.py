"""Nesting and rounded shifts by vectors, against plain integers."""

from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.engines.native.emit.nest import NEST
from dqtsim.engines.native.isa import Isa
from dqtsim.numbers import of_nesting
from dqtsim.spec import Nesting, Rounding

from .compiled import GUARD, SHIFTS, Chosen, address, arena, run
from .integers import CHUNKS, HALF, SIZES, every_isa, every_rounding, seeds, shifted


@every_isa
@every_rounding
def test_rounded_shift_of_every_lane_is_its_own(isa: Isa, rounding: Rounding) -> None:
    for bits, dtype in ((32, np.int32), (64, np.int64)):
        pairs = [
            (sign * (unit * factor + delta), s)
            for s in (0, 1, 2, 7, bits - 3, bits - 2)
            for unit in ((1 << s) // 2,)
            for factor, delta, sign in product((0, 1, 2, 3, 5), (-1, 0, 1), (1, -1))
            if abs(unit * factor + delta) + unit < 1 << (bits - 1)
        ]
        pairs += [(value, 0) for value in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)]
        # neighbours in a vector have unlike shifts
        pairs = [pairs[i] for i in np.random.default_rng(bits).permutation(len(pairs))]
        for start in range(0, len(pairs), isa.lanes):
            part = [pairs[(start + lane) % len(pairs)] for lane in range(isa.lanes)]
            values, shifts = (np.array(column, dtype) for column in zip(*part, strict=True))
            result = np.zeros(isa.lanes, dtype)
            places = {"values": address(values), "shifts": address(shifts), "target": address(result)}
            run(isa, f"shifts{bits}", SHIFTS, 1, rounding, **places)
            assert result.tolist() == [shifted(x, s, rounding) for x, s in part]
            if bits == 64:
                run(isa, "shift", SHIFTS, 1, rounding, **places)
                assert result[0] == shifted(*part[0], rounding)


def nested(q: int, b: int, n: int, rule: Nesting) -> int:
    k = n - b
    if k and rule is Nesting.TIES_UP:
        return min(floor(Fraction(q, 1 << k) + HALF), (1 << b) - 1)
    return q // (1 << k)


def check_nest(
    isa: Isa,
    chunks: int,
    b: int,
    n: int,
    rule: Nesting,
    z: int,
    shape: tuple[int, int],
    pads: tuple[int, int, int, int],
    steps: tuple[int, int],
    gap: int = 0,
    *,
    direct: bool = False,
    seed: int = 0,
) -> None:
    """`pads`: top, left, bottom, right; `steps`: of source and target; `gap`: bytes between rows of the source."""
    (height, width), (top, left, bottom, right), (source_step, step) = shape, pads, steps
    tall, broad = top + height + bottom, left + width + right
    source_row = (broad if direct else width) * source_step + gap
    around, source = arena(source_row * (tall if direct else height), seed)
    source &= (1 << n) - 1
    first = top * source_row + left * source_step if direct else 0
    rows = [source[first + y * source_row :][: width * source_step].reshape(width, -1) for y in range(height)]
    odd = rule is Nesting.MIDPOINT and b < n
    zeta = nested(z, b, n, rule) * (2 if odd else 1)
    whole, target = arena(tall * broad * step, seed + 1)
    around_then, whole_then = around.copy(), whole.copy()
    target_then = whole_then[GUARD:-GUARD].reshape(tall, broad, step)
    if direct and b == n:
        view = around_then[GUARD:-GUARD].reshape(tall, source_row)
        for y in range(tall):
            pixels = view[y, : broad * source_step].reshape(broad, source_step)
            if top <= y < top + height:
                pixels[:left], pixels[left + width :] = z, z
            else:
                pixels[...] = z
    else:
        both = min(steps)
        inner = target_then[top : top + height, left : left + width, :both].copy()
        kept = target_then[top : top + height, left : left + width].copy()
        for y, x, c in np.ndindex(inner.shape):
            u = nested(int(rows[y][x, c]), b, n, rule)
            kept[y, x, c] = 2 * u + 1 if odd else u
        target_then[...] = zeta
        target_then[top : top + height, left : left + width] = kept
    chosen = Chosen((1, b), {(1, b): 0})
    run(
        isa,
        "nest",
        NEST,
        chunks,
        **chosen.words,
        n=n,
        rule=of_nesting(rule),
        zero=z,
        source=address(source) + first,
        source_row=source_row,
        source_step=source_step,
        target=address(target),
        height=height,
        width=width,
        step=step,
        top=top,
        left=left,
        bottom=bottom,
        right=right,
        direct=int(direct),
    )
    assert np.array_equal(whole, whole_then)
    assert np.array_equal(around, around_then)


@every_isa
# no activation has CENTROID
@pytest.mark.parametrize("rule", [rule for rule in Nesting if rule != Nesting.CENTROID])
def test_nest_gives_the_operands_of_all_codes(isa: Isa, rule: Nesting) -> None:
    for n, z in ((8, 0), (8, 255), (8, 128), (8, 77), (5, 0), (5, 31), (5, 13), (2, 0), (2, 3), (2, 2)):
        for b in range(1, n + 1):
            codes = np.arange(1 << n, dtype=np.uint8)
            whole = np.zeros((3, codes.size + 2), np.uint8)
            chosen = Chosen((1, b), {(1, b): 0})
            run(
                isa,
                "nest",
                NEST,
                1,
                **dict.fromkeys(("height", "step", "source_step", "top", "left", "bottom", "right"), 1),
                **chosen.words,
                n=n,
                rule=of_nesting(rule),
                zero=z,
                source=address(codes),
                source_row=0,
                target=address(whole),
                width=codes.size,
                direct=0,
            )
            operands = whole.astype(int) - int(whole[0, 0])
            assert operands[1, 1:-1].tolist() == [spec.operand(q, z, b, n, rule) for q in range(1 << n)]
            operands[1, 1:-1] = 0
            assert not operands.any()


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_nest_sizes_and_borders(isa: Isa, size: int) -> None:
    for chunks, (border, b) in product(CHUNKS, ((0, 8), (1, 3), (3, 1))):
        check_nest(isa, chunks, b, 8, Nesting.TIES_UP, 128, (3, size), (border,) * 4, (1, 1), gap=border)
    check_nest(isa, 7, 4, 8, Nesting.MIDPOINT, 128, (9, size), (0, 1, 2, 3), (4, 4), gap=5)
    check_nest(isa, 3, 4, 8, Nesting.FLOOR, 255, (1, size), (3, 2, 1, 0), (16, 16))


@every_isa
def test_nest_in_place_writes_the_border_only_and_only_at_full_width(isa: Isa) -> None:
    for n, b, chunks, gap in product((8, 6), (1, 6, 8), CHUNKS, (0, 16)):
        if b <= n:
            for rule in Nesting:
                check_nest(isa, chunks, b, n, rule, 33, (4, 5), (1, 2, 3, 1), (16, 16), gap, direct=True)
                check_nest(isa, chunks, b, n, rule, 33, (4, 5), (0, 0, 0, 0), (16, 16), gap, direct=True)


@every_isa
def test_nest_between_pixels_of_unlike_sizes(isa: Isa) -> None:
    for steps, b, chunks in product(((16, 4), (4, 16)), (2, 8), CHUNKS):
        check_nest(isa, chunks, b, 8, Nesting.TIES_UP, 7, (4, 5), (1, 1, 0, 2), steps, gap=3)


@every_isa
@given(st.data())
def test_nest_drawn(isa: Isa, data: st.DataObject) -> None:
    draw = data.draw
    n = draw(st.integers(2, 8))
    b, z = draw(st.integers(1, n)), draw(st.integers(0, (1 << n) - 1))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 20)))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    direct = draw(st.booleans())
    same = draw(st.sampled_from((4, 16, 48)))
    steps = (same, same) if direct else draw(st.sampled_from(((same, same), (4, 16), (16, 4))))
    rest = (draw(st.sampled_from(Nesting)), z, shape, pads, steps, draw(st.sampled_from((0, 16, 33))))
    check_nest(isa, draw(st.sampled_from(CHUNKS)), b, n, *rest, direct=direct, seed=draw(seeds))
