"""Every operation of the vector kernels but convolution, against plain integers; targets with what is around them."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.kernels.vector.add import ADD
from dqtsim.kernels.vector.average_pool import AVERAGE_POOL
from dqtsim.kernels.vector.control import ARGMAX, GATHER_ROWS
from dqtsim.kernels.vector.copy import COPY
from dqtsim.kernels.vector.emit import Record
from dqtsim.kernels.vector.isa import Isa
from dqtsim.kernels.vector.max_pool import MAX_POOL
from dqtsim.kernels.vector.nest import NEST
from dqtsim.kernels.vector.picture import PICTURE
from dqtsim.kernels.vector.planes import PLANES
from dqtsim.kernels.vector.requantize import FLOOR, TIES_AWAY, TIES_EVEN, TIES_UP
from dqtsim.kernels.vector.table import TABLE

from .compiled import GUARD, HERE, SHIFTS, Bytes, address, arena, each_chunk, fenced, run

ROUNDINGS = (TIES_UP, FLOOR, TIES_AWAY, TIES_EVEN)
CHUNKS = (1, 2, 3, 7)
SIZES = (1, 15, 16, 17, 63, 64, 65)
HALF = Fraction(1, 2)
NESTINGS = (spec.Nesting.TIES_UP, spec.Nesting.FLOOR, spec.Nesting.MIDPOINT)

every_isa = pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
every_rounding = pytest.mark.parametrize("rounding", ROUNDINGS, ids=("TIES_UP", "FLOOR", "TIES_AWAY", "TIES_EVEN"))
seeds = st.integers(0, 2**32 - 1)


def any_codes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def shifted(x: int, s: int, rounding: int) -> int:
    """Return x / 2^s, rounded."""
    exact = Fraction(x, 1 << s)
    below, rest = floor(exact), exact - floor(exact)
    if rounding == FLOOR or rest < HALF:
        return below
    if rest > HALF or rounding == TIES_UP:
        return below + 1
    return below + (below % 2 if rounding == TIES_EVEN else int(x > 0))


def code_of(x: int, s: int, rounding: int, z: int, low: int, high: int) -> int:
    return max(low, min(high, z + shifted(x, s, rounding)))


# ---- rounded shifts ----


@every_isa
@every_rounding
def test_rounded_shift_of_every_lane_is_its_own(isa: Isa, rounding: int) -> None:
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


# ---- nest ----


def nested(q: int, b: int, n: int, rule: int) -> int:
    k = n - b
    if k and rule == 0:
        return min(floor(Fraction(q, 1 << k) + HALF), (1 << b) - 1)
    return q // (1 << k)


def check_nest(
    isa: Isa,
    chunks: int,
    b: int,
    n: int,
    rule: int,
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
    odd = rule == 2 and b < n
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
    widths = np.array([99, b], np.int64)
    run(
        isa,
        "nest",
        NEST,
        chunks,
        when=0,
        widths=address(widths),
        n=n,
        rule=rule,
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
@pytest.mark.parametrize("rule", range(3), ids=NESTINGS)
def test_nest_gives_the_operands_of_all_codes(isa: Isa, rule: int) -> None:
    for n, z in ((8, 0), (8, 255), (8, 128), (8, 77), (5, 0), (5, 31), (5, 13), (2, 0), (2, 3), (2, 2)):
        for b in range(1, n + 1):
            codes = np.arange(1 << n, dtype=np.uint8)
            whole = np.zeros((3, codes.size + 2), np.uint8)
            widths = np.array([1, b], np.int64)
            run(
                isa,
                "nest",
                NEST,
                1,
                when=0,
                **dict.fromkeys(("height", "step", "source_step", "top", "left", "bottom", "right"), 1),
                widths=address(widths),
                n=n,
                rule=rule,
                zero=z,
                source=address(codes),
                source_row=0,
                target=address(whole),
                width=codes.size,
                direct=0,
            )
            operands = whole.astype(int) - int(whole[0, 0])
            assert operands[1, 1:-1].tolist() == [spec.operand(q, z, b, n, NESTINGS[rule]) for q in range(1 << n)]
            operands[1, 1:-1] = 0
            assert not operands.any()


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_nest_sizes_and_borders(isa: Isa, size: int) -> None:
    for chunks, (border, b) in product(CHUNKS, ((0, 8), (1, 3), (3, 1))):
        check_nest(isa, chunks, b, 8, 0, 128, (3, size), (border,) * 4, (1, 1), gap=border)
    check_nest(isa, 7, 4, 8, 2, 128, (9, size), (0, 1, 2, 3), (4, 4), gap=5)
    check_nest(isa, 3, 4, 8, 1, 255, (1, size), (3, 2, 1, 0), (16, 16))


@every_isa
def test_nest_in_place_writes_the_border_only_and_only_at_full_width(isa: Isa) -> None:
    for n, b, chunks, gap in product((8, 6), (1, 6, 8), CHUNKS, (0, 16)):
        if b <= n:
            for rule in range(3):
                check_nest(isa, chunks, b, n, rule, 33, (4, 5), (1, 2, 3, 1), (16, 16), gap, direct=True)
                check_nest(isa, chunks, b, n, rule, 33, (4, 5), (0, 0, 0, 0), (16, 16), gap, direct=True)


@every_isa
def test_nest_between_pixels_of_unlike_sizes(isa: Isa) -> None:
    for steps, b, chunks in product(((16, 4), (4, 16)), (2, 8), CHUNKS):
        check_nest(isa, chunks, b, 8, 0, 7, (4, 5), (1, 1, 0, 2), steps, gap=3)


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
    rest = (draw(st.integers(0, 2)), z, shape, pads, steps, draw(st.sampled_from((0, 16, 33))))
    check_nest(isa, draw(st.sampled_from(CHUNKS)), b, n, *rest, direct=direct, seed=draw(seeds))


# ---- layouts ----


def check_picture(
    isa: Isa, chunks: int, channels: int, height: int, width: int, step: int, gap: int = 0, seed: int = 0
) -> None:
    codes = fenced(any_codes(channels, height, width, seed=seed))
    row = width * step + gap
    whole, target = arena(height * row, seed)
    then = whole.copy()
    view = then[GUARD:-GUARD].reshape(height, row)
    for y, x in np.ndindex(height, width):
        pixel = view[y, x * step : (x + 1) * step]
        if channels <= 4:
            pixel[:] = 0
        pixel[:channels] = codes[:, y, x]
    given_ = {"source": address(codes), "channels": channels, "height": height, "width": width}
    run(isa, "picture", PICTURE, chunks, **given_, target=address(target), target_row=row, step=step)
    assert np.array_equal(whole, then)


@every_isa
@pytest.mark.parametrize("channels", (1, 2, 3, 4, 5, 16, 17))
def test_picture(isa: Isa, channels: int) -> None:
    for step in {4 if channels <= 4 else 16, -(-channels // 16) * 16}:
        for chunks, width in product(CHUNKS, (*SIZES, 8, 9, 4)):
            check_picture(isa, chunks, channels, 3, width, step if step >= channels else 32, gap=7 * (chunks - 1))


@every_isa
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 40), st.sampled_from(CHUNKS), st.integers(0, 20), seeds)
def test_picture_drawn(isa: Isa, channels: int, height: int, width: int, chunks: int, gap: int, seed: int) -> None:
    step = 4 if channels <= 4 and seed % 4 else -(-channels // 16) * 16
    check_picture(isa, chunks, channels, height, width, step, gap, seed)


def check_planes(isa: Isa, chunks: int, channels: int, height: int, width: int, step: int, gap: int, seed: int) -> None:
    row = width * step + gap
    source = fenced(any_codes(height, row, seed=seed))
    whole, target = arena(channels * height * width, seed)
    then = whole.copy()
    view = then[GUARD:-GUARD].reshape(channels, height, width)
    view[...] = source[:, : width * step].reshape(height, width, step)[..., :channels].transpose(2, 0, 1)
    given_ = {"source": address(source), "row": row, "step": step, "channels": channels}
    run(isa, "planes", PLANES, chunks, **given_, height=height, width=width, target=address(target))
    assert np.array_equal(whole, then)


@every_isa
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 20), st.sampled_from(CHUNKS), st.integers(0, 20), seeds)
def test_planes(isa: Isa, channels: int, height: int, width: int, chunks: int, gap: int, seed: int) -> None:
    for step in {4 if channels <= 4 else 16, 48}:
        if step >= channels:
            check_planes(isa, chunks, channels, height, width, step, gap, seed)


# ---- pools ----


def check_pool(
    isa: Isa,
    chunks: int,
    shape: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    reduce: Callable[[list[int]], int],
    name: str,
    record: Record,
    rounding: int,
    seed: int,
    more: dict[str, int],
) -> None:
    """`shape`: height, width, bytes of a pixel. Windows without a tap inside the picture are not valid."""
    (height, width, channels), (top, left, bottom, right) = shape, pads
    ends = ((height, top, bottom), (width, left, right))
    rows, columns = (
        (size + before + after - d * (k - 1) - 1) // s + 1
        for (size, before, after), k, s, d in zip(ends, kernel, strides, dilations, strict=True)
    )
    if rows < 1 or columns < 1:
        return
    source_step, target_step = channels + 4 * (seed % 2), channels + 8 * (seed % 3)
    source_row, target_row = width * source_step + seed % 5, columns * target_step + seed % 7
    source = fenced(any_codes(height, source_row, seed=seed))
    pixels = source[:, : width * source_step].reshape(height, width, source_step).astype(int)
    whole, target = arena(rows * target_row, seed)
    then = whole.copy()
    view = then[GUARD:-GUARD].reshape(rows, target_row)
    for oy, ox in np.ndindex(rows, columns):
        ys = [oy * strides[0] + k * dilations[0] - top for k in range(kernel[0])]
        xs = [ox * strides[1] + k * dilations[1] - left for k in range(kernel[1])]
        inside = [pixels[y, x] for y, x in product(ys, xs) if 0 <= y < height and 0 <= x < width]
        if not inside:
            return
        for c in range(channels):
            view[oy, ox * target_step + c] = reduce([int(pixel[c]) for pixel in inside])
    run(
        isa,
        name,
        record,
        chunks,
        rounding,
        source=address(source),
        source_row=source_row,
        source_step=source_step,
        height=height,
        width=width,
        target=address(target),
        target_row=target_row,
        target_step=target_step,
        rows=rows,
        columns=columns,
        channels=channels,
        kernel_y=kernel[0],
        kernel_x=kernel[1],
        stride_y=strides[0],
        stride_x=strides[1],
        top=top,
        left=left,
        **more,
    )
    assert np.array_equal(whole, then)


def check_max_pool(isa: Isa, chunks: int, shape: Any, kernel: Any, strides: Any, d: Any, pads: Any, seed: int) -> None:
    dilations = {"dilation_y": d[0], "dilation_x": d[1]}
    check_pool(isa, chunks, shape, kernel, strides, d, pads, max, "max_pool", MAX_POOL, TIES_UP, seed, dilations)


def check_average_pool(
    isa: Isa,
    chunks: int,
    shape: Any,
    kernel: Any,
    strides: Any,
    pads: Any,
    rounding: int,
    seed: int,
    z_x: int,
    multiplier: int,
    shift: int,
    z_y: int,
    low: int,
    high: int,
) -> None:
    def reduce(codes: list[int]) -> int:
        total = sum(code - z_x for code in codes)
        return code_of(total * multiplier, shift, rounding, z_y, low, high)

    last = {"z_x": z_x, "multiplier": multiplier, "shift": shift, "z_y": z_y, "low": low, "high": high}
    rest = ((1, 1), pads, reduce, "average_pool", AVERAGE_POOL, rounding, seed)
    check_pool(isa, chunks, shape, kernel, strides, *rest, last)


@every_isa
@pytest.mark.parametrize("channels", (4, 8, 16, 20, 64, 68, 96, 128))
def test_max_pool(isa: Isa, channels: int) -> None:
    for chunks in CHUNKS:
        check_max_pool(isa, chunks, (5, 5, channels), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), chunks)
        check_max_pool(isa, chunks, (4, 6, channels), (2, 3), (1, 2), (1, 1), (1, 2, 0, 2), chunks)
        check_max_pool(isa, chunks, (7, 6, channels), (2, 3), (1, 1), (3, 2), (1, 1, 1, 2), chunks)
        check_max_pool(isa, chunks, (1, 1, channels), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), chunks)


windows = st.tuples(
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from((4, 12, 16, 48, 80))),
    *[st.tuples(st.integers(1, 4), st.integers(1, 4))] * 2,
)
borders = st.tuples(*[st.integers(0, 3)] * 4)


@every_isa
@given(windows, st.tuples(st.integers(1, 3), st.integers(1, 3)), borders, st.sampled_from(CHUNKS), seeds)
def test_max_pool_drawn(isa: Isa, window: Any, dilations: Any, pads: Any, chunks: int, seed: int) -> None:
    shape, kernel, strides = window
    check_max_pool(isa, chunks, shape, kernel, strides, dilations, pads, seed)


@every_isa
@every_rounding
def test_average_pool(isa: Isa, rounding: int) -> None:
    for shift, multiplier in (
        (0, 1),
        (1, 1),
        (1, 3),
        (2, 1),
        (17, 1 << 15),
        (17, 14563),
        (45, 2**31 - 1),
        (61, 2**31 - 1),
    ):
        for z_x, z_y, low, high in ((0, 0, 0, 255), (255, 255, 0, 255), (128, 7, 3, 200)):
            last = (z_x, multiplier, shift, z_y, low, high)
            check_average_pool(isa, 2, (3, 4, 36), (3, 3), (1, 1), (1, 1, 1, 1), rounding, shift, *last)
            check_average_pool(isa, 1, (2, 2, 20), (2, 2), (2, 2), (0, 0, 0, 0), rounding, shift, *last)
    for chunks in CHUNKS:
        check_average_pool(isa, chunks, (9, 7, 16), (2, 3), (1, 2), (1, 2, 1, 0), rounding, 5, 3, 1, 1, 128, 0, 255)


@every_isa
def test_average_pool_of_a_large_window(isa: Isa) -> None:
    check_average_pool(isa, 1, (61, 70, 4), (61, 70), (1, 1), (0, 0, 0, 0), TIES_UP, 0, 200, 65535, 28, 128, 0, 255)


@every_isa
@every_rounding
@given(windows, borders, st.sampled_from(CHUNKS), seeds, *[st.integers(0, 255)] * 4, st.integers(1, 65535))
def test_average_pool_drawn(
    isa: Isa, rounding: int, window: Any, pads: Any, chunks: int, seed: int, z_x: int, z_y: int, p: int, q: int, m: int
) -> None:
    last = (z_x, m, seed % 22, z_y, min(p, q), max(p, q))
    shape, kernel, strides = window
    check_average_pool(isa, chunks, shape, kernel, strides, pads, rounding, seed, *last)


# ---- element by element ----


def strided(rows: int, count: int, gap: int, seed: int) -> tuple[Bytes, int]:
    """Return rows of codes, the last with no byte readable behind it, and how far apart they are."""
    row = count + gap
    return fenced(any_codes(rows * row - gap, seed=seed)), row


def row_views(flat: Bytes, rows: int, row: int, count: int) -> list[Bytes]:
    return [flat[y * row : y * row + count] for y in range(rows)]


def check_add(
    isa: Isa,
    chunks: int,
    rows: int,
    count: int,
    rounding: int,
    zeros: tuple[int, int, int],
    multipliers: tuple[int, int],
    shift: int,
    limits: tuple[int, int],
    seed: int = 0,
    *,
    narrow: bool = False,
    in_place: bool = False,
) -> None:
    z_a, z_b, z_y = zeros
    a, a_row = strided(rows, count, seed % 3, seed)
    b, b_row = strided(rows, count, seed % 5, seed + 1)
    whole, target = arena(rows * a_row, seed + 2)
    if in_place:
        target[: a.size] = a
        a = target
    then = whole.copy()
    view = then[GUARD:-GUARD]
    for y, (left, right) in enumerate(
        zip(row_views(a, rows, a_row, count), row_views(b, rows, b_row, count), strict=True)
    ):
        for i, (p, q) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            total = (p - z_a) * multipliers[0] + (q - z_b) * multipliers[1]
            assert not narrow or abs(total) + (1 << shift) // 2 < 1 << 31
            view[y * a_row + i] = code_of(total, shift, rounding, z_y, *limits)
    run(
        isa,
        "add.narrow" if narrow else "add",
        ADD,
        chunks,
        rounding,
        a=address(a),
        a_row=a_row,
        b=address(b),
        b_row=b_row,
        target=address(target),
        target_row=a_row,
        rows=rows,
        row_bytes=count,
        z_a=z_a,
        z_b=z_b,
        z_y=z_y,
        m_a=multipliers[0],
        m_b=multipliers[1],
        shift=shift,
        low=limits[0],
        high=limits[1],
    )
    assert np.array_equal(whole, then)


@every_isa
@every_rounding
def test_add(isa: Isa, rounding: int) -> None:
    for shift, m_a, m_b in ((0, 1, 1), (1, 1, 1), (1, 1, 2), (2, 1, 3), (16, 40000, 30000), (30, 3500000, 2500000)):
        for zeros, limits in (((0, 0, 0), (0, 255)), ((255, 255, 255), (0, 255)), ((128, 3, 77), (77, 200))):
            for narrow, in_place in product((False, True), (False, True)):
                check_add(
                    isa, 2, 3, 50, rounding, zeros, (m_a, m_b), shift, limits, shift, narrow=narrow, in_place=in_place
                )
    for shift in (0, 39, 61):
        check_add(isa, 1, 2, 70, rounding, (128, 100, 128), (2**31 - 1, 2**31 - 2), shift, (0, 255), shift)
    for chunks, count, narrow in product(CHUNKS, SIZES, (False, True)):
        check_add(
            isa,
            chunks,
            5,
            count,
            rounding,
            (0, 128, 1),
            (3, 5),
            3,
            (0, 255),
            count,
            narrow=narrow,
            in_place=count == 17,
        )


@every_isa
@every_rounding
@given(st.data())
def test_add_drawn(isa: Isa, rounding: int, data: st.DataObject) -> None:
    draw, code = data.draw, st.integers(0, 255)
    narrow = draw(st.booleans())
    top = 2**21 if narrow else 2**31 - 1
    low, high = sorted(draw(st.tuples(code, code)))
    check_add(
        isa,
        draw(st.sampled_from(CHUNKS)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 70)),
        rounding,
        draw(st.tuples(code, code, code)),
        draw(st.tuples(st.integers(1, top), st.integers(1, top))),
        draw(st.integers(0, 30 if narrow else 61)),
        (low, high),
        draw(seeds),
        narrow=narrow,
        in_place=draw(st.booleans()),
    )


@every_isa
@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from(CHUNKS), st.integers(0, 9), st.booleans(), seeds)
def test_table(isa: Isa, rows: int, count: int, chunks: int, gap: int, in_place: bool, seed: int) -> None:
    table = any_codes(256, seed=seed)
    source, row = strided(rows, count, gap, seed + 1)
    whole, target = arena(rows * row, seed)
    if in_place:
        target[: source.size] = source
        source = target
    then = whole.copy()
    view = then[GUARD:-GUARD]
    for y, codes in enumerate(row_views(source, rows, row, count)):
        view[y * row : y * row + count] = table[codes]
    places = {"source": address(source), "source_row": row, "target": address(target), "target_row": row}
    run(isa, "table", TABLE, chunks, **places, rows=rows, row_bytes=count, table=address(table))
    assert np.array_equal(whole, then)


# ---- moves and decisions ----


@every_isa
@pytest.mark.parametrize("chunks", CHUNKS)
def test_copy_rows(isa: Isa, chunks: int) -> None:
    for count, (rows, columns), gap in product((*SIZES, 4, 8, 20, 131), ((1, 1), (5, 3), (7, 1), (1, 7)), (0, 3)):
        source_step, target_step = count + gap, count + 2 * gap
        source_row, target_row = columns * source_step + gap, columns * target_step
        source = fenced(any_codes(rows * source_row - 2 * gap, seed=count))
        whole, target = arena(rows * target_row, count)
        then = whole.copy()
        view = then[GUARD:-GUARD]
        for y, x in product(range(rows), range(columns)):
            near, far = y * source_row + x * source_step, y * target_row + x * target_step
            view[far : far + count] = source[near : near + count]
        run(
            isa,
            "copy_rows",
            COPY,
            chunks,
            source=address(source),
            source_row=source_row,
            source_step=source_step,
            target=address(target),
            target_row=target_row,
            target_step=target_step,
            rows=rows,
            columns=columns,
            bytes=count,
        )
        assert np.array_equal(whole, then)


def check_argmax(isa: Isa, chunks: int, values: list[list[int]], dtype: Any) -> None:
    source = fenced(values, dtype)
    whole = np.full(len(values) + 2, -7, np.int64)
    place = {"source": address(source), "target": address(whole[1:])}
    sizes = {"rows": len(values), "columns": len(values[0]), "wide": int(dtype == np.int64)}
    run(isa, "argmax", ARGMAX, chunks, **place, **sizes)
    assert whole.tolist() == [-7, *(row.index(max(row)) for row in values), -7]


@every_isa
@pytest.mark.parametrize("dtype", (np.int32, np.int64))
def test_argmax(isa: Isa, dtype: Any) -> None:
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    rows = [
        [0, 5, 5],
        [5, 0, 5],
        [-3, -2, -1],
        [least, least, least],
        [most, least, most],
        [least, -1, most],
        [1, 0, 0],
    ]
    for chunks in CHUNKS:
        check_argmax(isa, chunks, rows, dtype)
        check_argmax(isa, chunks, [[-5]], dtype)
    check_argmax(isa, 2, [[0, 1 << 20, (1 << 20) + 1]] * 3, dtype)


@every_isa
@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from(CHUNKS), st.integers(1, 40), st.booleans(), seeds)
def test_argmax_drawn(isa: Isa, columns: int, rows: int, chunks: int, bits: int, wide: bool, seed: int) -> None:
    # few bits make ties
    top = 1 << min(bits, 62 if wide else 31)
    values = np.random.default_rng(seed).integers(-top, top, (rows, columns)).tolist()
    check_argmax(isa, chunks, values, np.int64 if wide else np.int32)


@every_isa
@given(
    st.integers(1, 6), st.lists(st.integers(-6, 5), min_size=1, max_size=9), st.sampled_from(CHUNKS), st.integers(1, 70)
)
def test_gather_rows(isa: Isa, source_rows: int, wanted: list[int], chunks: int, count: int) -> None:
    indices = [max(-source_rows, min(source_rows - 1, index)) for index in wanted]
    source, places = fenced(any_codes(source_rows, count)), fenced(indices, np.int64)
    whole, target = arena(len(indices) * count)
    then = whole.copy()
    then[GUARD:-GUARD] = source[indices].reshape(-1)
    run(
        isa,
        "gather_rows",
        GATHER_ROWS,
        chunks,
        source=address(source),
        source_rows=source_rows,
        indices=address(places),
        target=address(target),
        rows=len(indices),
        bytes=count,
    )
    assert np.array_equal(whole, then)


# ---- chunks ----


def sizes(record: Record, **values: int) -> dict[str, int]:
    """Return all words of a record but the chunks: those given, otherwise 0."""
    return {**dict.fromkeys(record.names[2:], 0), **values}


def test_chunks_write_disjoint_rows() -> None:
    isa, codes = HERE[0], any_codes(64, 64)
    whole, target = arena(64 * 64)
    widths, firsts = np.array([1, 4], np.int64), np.zeros(5, np.int64)
    both = {"source": address(codes), "target": address(target)}
    image = {"height": 5, "width": 6, "source_row": 96, "source_step": 16}
    output = {"target_row": 96, "target_step": 16, "rows": 5, "columns": 6, "channels": 16}
    window = {"kernel_y": 1, "kernel_x": 1, "stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1}
    average = {name: value for name, value in window.items() if "dilation" not in name}
    rows = {"rows": 5, "row_bytes": 96, "target_row": 96}
    cases: tuple[tuple[str, Record, int, dict[str, int]], ...] = (
        (
            "nest",
            NEST,
            10 * 9 * 16,
            {**image, "widths": address(widths), "n": 8, "step": 16, "top": 2, "left": 1, "bottom": 3, "right": 2},
        ),
        ("picture", PICTURE, 5 * 6 * 4, {"channels": 3, "height": 5, "width": 6, "step": 4, "target_row": 24}),
        ("planes", PLANES, 5 * 6 * 9, {"channels": 9, "height": 5, "width": 6, "step": 16, "row": 96}),
        ("max_pool", MAX_POOL, 5 * 96, {**image, **output, **window}),
        ("average_pool", AVERAGE_POOL, 5 * 96, {**image, **output, **average, "multiplier": 1, "high": 255}),
        ("table", TABLE, 5 * 96, {**rows, "source_row": 96, "table": address(codes)}),
        ("copy_rows", COPY, 5 * 96, {"rows": 5, "columns": 1, "bytes": 96, "source_row": 96, "target_row": 96}),
        ("argmax", ARGMAX, 5 * 8, {"rows": 5, "columns": 6}),
        (
            "gather_rows",
            GATHER_ROWS,
            5 * 96,
            {"rows": 5, "bytes": 96, "source_rows": 9, "indices": address(firsts)},
        ),
    )
    for chunks, (name, record, count, values) in product(CHUNKS, cases):
        written = np.zeros(whole.shape, int)
        for mask in each_chunk(isa, name, record, chunks, whole, sizes(record, **{**both, **values})):
            written += mask
        assert written.max() == 1, name
        assert np.flatnonzero(written).tolist() == list(range(GUARD, GUARD + count)), name
    values = {"a": address(codes), "b": address(codes), "target": address(target), **rows, "m_a": 1, "high": 255}
    for chunks, name in product(CHUNKS, ("add", "add.narrow")):
        masks = each_chunk(isa, name, ADD, chunks, whole, sizes(ADD, **values))
        written = np.sum(list(masks), axis=0)
        assert np.flatnonzero(written == 1).tolist() == list(range(GUARD, GUARD + 480)), name
        assert written.max() == 1, name
