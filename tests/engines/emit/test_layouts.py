"""Pictures into pixels of channels, and planes out of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.picture import PICTURE
from dqtsim.engines.native.emit.planes import PLANES
from dqtsim.engines.native.isa import Isa

from .compiled import GUARD, address, arena, fenced, run
from .integers import CHUNKS, SIZES, any_codes, every_isa, seeds


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
