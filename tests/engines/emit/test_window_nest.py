"""Nesting through windows and borders of any codes, by vectors, against plain integers (A6, B1')."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.choice import WIDTHS
from dqtsim.engines.native.emit.window_nest import WINDOW_NEST
from dqtsim.engines.native.isa import Isa
from dqtsim.graph.model import Array
from dqtsim.numbers import of_nesting
from dqtsim.spec import Nesting

from .compiled import GUARD, Chosen, address, arena, run
from .integers import CHUNKS, every_isa, seeds
from .test_nest import nested

RULES = (Nesting.TIES_UP, Nesting.FLOOR)


def windowed(q: int, z: int, b: int, j: int, n: int, rule: Nesting) -> int:
    moved = nested(z, b + j, n, rule) - nested(z, b, n, rule)
    return min(max(nested(q, b + j, n, rule) - moved, 0), (1 << b) - 1)


def check_window_nest(
    isa: Isa,
    chunks: int,
    widths: tuple[int, int, int],
    rule: Nesting,
    z: int,
    shape: tuple[int, int],
    pads: tuple[int, int, int, int],
    steps: tuple[int, int],
    *,
    direct: bool = False,
    seed: int = 0,
) -> None:
    """`widths`: n, b, j; `pads`: top, left, bottom, right; `steps`: of source and target."""
    n, b, j = widths
    (height, width), (top, left, bottom, right), (source_step, step) = shape, pads, steps
    tall, broad = top + height + bottom, left + width + right
    in_place = direct and b == n
    source_row = (broad if direct else width) * source_step
    around, source = arena(source_row * (tall if direct else height), seed)
    source &= (1 << n) - 1
    first = top * source_row + left * source_step if direct else 0
    whole, target = arena(tall * broad * step, seed + 1)
    border = np.random.default_rng(seed).integers(0, 1 << n, (WIDTHS, step), np.uint8)
    windows = np.full(WIDTHS, 99, np.int64)
    windows[b] = j
    around_then, whole_then = around.copy(), whole.copy()
    result = (around_then if in_place else whole_then)[GUARD:-GUARD].reshape(tall, broad, step)
    inside = result[top : top + height, left : left + width].copy()
    if not in_place:
        rows = [source[first + y * source_row :][: width * source_step].reshape(width, -1) for y in range(height)]
        for y, x, c in np.ndindex(height, width, min(steps)):
            inside[y, x, c] = windowed(int(rows[y][x, c]), z, b, j, n, rule)
    result[...] = border[b]
    result[top : top + height, left : left + width] = inside
    chosen = Chosen((1, b), {(1, b): 0})
    run(
        isa,
        "window_nest",
        WINDOW_NEST,
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
        windows=address(windows),
        border=address(border) if any(pads) else 0,
    )
    assert np.array_equal(whole, whole_then)
    assert np.array_equal(around, around_then)


@every_isa
@pytest.mark.parametrize("rule", RULES)
def test_every_code_through_every_window(isa: Isa, rule: Nesting) -> None:
    for n, zeros in ((8, (0, 1, 77, 127, 128, 254, 255)), (5, (0, 13, 16, 31)), (2, (0, 1, 2, 3))):
        codes = np.arange(1 << n, dtype=np.uint8)
        for z, b in product(zeros, range(1, n + 1)):
            for j in range(n - b + 1):
                found = through(isa, codes, z, b, j, n, rule)
                assert found.tolist() == [windowed(q, z, b, j, n, rule) for q in range(1 << n)], (n, z, b, j)


def through(isa: Isa, codes: Array, z: int, b: int, j: int, n: int, rule: Nesting) -> Array:
    """Return what the operation gives for a row of codes without a border."""
    found = np.zeros_like(codes)
    windows = np.zeros(WIDTHS, np.int64)
    windows[b] = j
    chosen = Chosen((1, b), {(1, b): 0})
    size = {"width": codes.size, "source_row": 0, "source_step": 1, "height": 1, "step": 1}
    none = dict.fromkeys(("top", "left", "bottom", "right", "direct", "border"), 0)
    places = {"source": address(codes), "target": address(found), "windows": address(windows)}
    rule_number = of_nesting(rule)
    run(isa, "window_nest", WINDOW_NEST, 1, **chosen.words, n=n, rule=rule_number, zero=z, **size, **none, **places)
    return found


@every_isa
def test_the_zero_point_stays_where_it_is(isa: Isa) -> None:
    for rule, b, z in product(RULES, range(1, 8), (0, 1, 100, 128, 255)):
        for j in range(9 - b):
            found = through(isa, np.array([z], np.uint8), z, b, j, 8, rule)
            assert found.tolist() == [nested(z, b, 8, rule)]


@every_isa
def test_borders_are_pixels_of_their_own(isa: Isa) -> None:
    for chunks, steps in product(CHUNKS, ((4, 4), (16, 16), (80, 80), (4, 16), (16, 4))):
        check_window_nest(isa, chunks, (8, 3, 2), Nesting.TIES_UP, 128, (4, 5), (2, 1, 0, 3), steps)
        check_window_nest(isa, chunks, (8, 4, 0), Nesting.FLOOR, 9, (1, 5), (0, 0, 1, 0), steps)


@every_isa
def test_at_full_width_only_the_border_is_written(isa: Isa) -> None:
    for chunks, b in product(CHUNKS, (8, 5)):
        check_window_nest(isa, chunks, (8, b, 8 - b), Nesting.FLOOR, 33, (4, 5), (1, 2, 3, 1), (16, 16), direct=True)
        check_window_nest(isa, chunks, (8, b, 0), Nesting.FLOOR, 33, (4, 5), (0, 0, 0, 0), (4, 4), direct=True)


@every_isa
@given(st.data())
def test_window_nest_drawn(isa: Isa, data: st.DataObject) -> None:
    draw = data.draw
    n = draw(st.integers(2, 8))
    b = draw(st.integers(1, n))
    widths = n, b, draw(st.integers(0, n - b))
    z, rule = draw(st.integers(0, (1 << n) - 1)), draw(st.sampled_from(RULES))
    shape, pads = draw(st.tuples(st.integers(1, 9), st.integers(1, 20))), draw(st.tuples(*[st.integers(0, 3)] * 4))
    direct, same = draw(st.booleans()), draw(st.sampled_from((4, 16, 48)))
    steps = (same, same) if direct else draw(st.sampled_from(((same, same), (4, 16), (16, 4))))
    chunks = draw(st.sampled_from(CHUNKS))
    check_window_nest(isa, chunks, widths, rule, z, shape, pads, steps, direct=direct, seed=draw(seeds))
