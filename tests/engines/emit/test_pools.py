"""Pools by vectors, against plain integers; targets with what is around them."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.average_pool import AVERAGE_POOL
from dqtsim.engines.native.emit.max_pool import MAX_POOL
from dqtsim.engines.native.ir import Record
from dqtsim.engines.native.isa import Isa
from dqtsim.spec import Rounding

from .compiled import GUARD, address, arena, fenced, run
from .integers import CHUNKS, any_codes, code_of, every_isa, every_rounding, seeds


def check_pool(
    isa: Isa,
    chunks: int,
    shape: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    reduce: Callable[[list[int], int, int], int],
    name: str,
    record: Record,
    rounding: Rounding,
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
            view[oy, ox * target_step + c] = reduce([int(pixel[c]) for pixel in inside], oy, ox)
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
    check_pool(
        isa, chunks, shape, kernel, strides, d, pads, greatest, "max_pool", MAX_POOL, Rounding.TIES_UP, seed, dilations
    )


def greatest(codes: list[int], _y: int, _x: int) -> int:
    return max(codes)


def check_average_pool(
    isa: Isa,
    chunks: int,
    shape: Any,
    kernel: Any,
    strides: Any,
    pads: Any,
    rounding: Rounding,
    seed: int,
    z_x: int,
    multiplier: int,
    shift: int,
    z_y: int,
    low: int,
    high: int,
    *,
    positions: bool = False,
) -> None:
    """With `positions` every output has a multiplier of its own, `multiplier` at the last one."""
    size = 16 if positions else 1
    multipliers = np.maximum(multiplier - np.arange(size * size)[::-1].reshape(size, size), 0)

    def reduce(codes: list[int], y: int, x: int) -> int:
        total = sum(code - z_x for code in codes) * int(multipliers[y % size, x % size])
        return code_of(total, shift, rounding, z_y, low, high)

    step = multipliers.itemsize if positions else 0
    last = {"multipliers": multipliers.ctypes.data, "multiplier_row": size * step, "multiplier_step": step}
    last |= {"z_x": z_x, "shift": shift, "z_y": z_y, "low": low, "high": high}
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
def test_average_pool(isa: Isa, rounding: Rounding) -> None:
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
            check_average_pool(isa, 2, (3, 4, 36), (3, 3), (1, 1), (1, 1, 1, 1), rounding, shift, *last, positions=True)
    for chunks in CHUNKS:
        check_average_pool(isa, chunks, (9, 7, 16), (2, 3), (1, 2), (1, 2, 1, 0), rounding, 5, 3, 1, 1, 128, 0, 255)


@every_isa
def test_average_pool_of_a_large_window(isa: Isa) -> None:
    check_average_pool(
        isa, 1, (61, 70, 4), (61, 70), (1, 1), (0, 0, 0, 0), Rounding.TIES_UP, 0, 200, 65535, 28, 128, 0, 255
    )


@every_isa
@every_rounding
@given(windows, borders, st.sampled_from(CHUNKS), seeds, *[st.integers(0, 255)] * 4, st.integers(1, 65535))
def test_average_pool_drawn(
    isa: Isa,
    rounding: Rounding,
    window: Any,
    pads: Any,
    chunks: int,
    seed: int,
    z_x: int,
    z_y: int,
    p: int,
    q: int,
    m: int,
) -> None:
    last = (z_x, m, seed % 22, z_y, min(p, q), max(p, q))
    shape, kernel, strides = window
    check_average_pool(isa, chunks, shape, kernel, strides, pads, rounding, seed, *last, positions=seed % 2 == 0)
