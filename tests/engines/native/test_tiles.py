"""Tiles of matrices: which pixels they hold, how far those lie apart, and weights that fill whole matrices."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.tile import CODES, DEPTH, LOGITS, QUADS
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.engines.native.lower.tiles import (
    L2_BYTES,
    TOGETHER,
    by_matrices,
    distance,
    grouping,
    panel_row,
    tile_of,
    whole_tiles,
)
from dqtsim.engines.native.proofs import tables

MATRICES = next(isa for isa in ISAS if isa.matrices)
assert MATRICES.matrices is not None
ROWS, DEPTH_BYTES = MATRICES.matrices.rows, MATRICES.matrices.depth
every_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


@every_isa
def test_who_multiplies_matrices(isa: Isa) -> None:
    """Only that one kernel, only codes of all channels, never a single pixel or a few taps."""
    for pixels, taps, kind in product((1, 2, 16, 32), (4, 39, 40, 41, 64, 576), (CODES, LOGITS, DEPTH, QUADS)):
        expected = isa.name == "amx" and kind == CODES and pixels > 1 and taps >= 40
        assert by_matrices(isa, pixels, taps, kind) is (isa.matrices if expected else None)


@given(st.integers(1, 200), st.integers(1, 40), st.booleans())
def test_every_pixel_has_a_place(pixels: int, size: int, overlap: bool) -> None:
    order = whole_tiles(pixels, size, overlap=overlap)
    assert (order.dtype.name, order.shape) == ("int64", (-(-pixels // size), size))
    assert set(order.reshape(-1).tolist()) == set(range(pixels))
    # tiles but the last are as they would be without it, and each is ascending
    assert order[:-1].reshape(-1).tolist() == list(range((len(order) - 1) * size))
    assert (np.diff(order, axis=1) >= 0).all()
    last = order[-1].tolist()
    if overlap and pixels >= size:
        assert last == list(range(pixels - size, pixels))
    else:
        begin = (len(order) - 1) * size
        assert last == [min(begin + k, pixels - 1) for k in range(size)]


def test_how_far_pixels_lie_apart() -> None:
    line = np.arange(64, dtype=np.int64).reshape(2, 32)
    assert [distance(found, ROWS) for found in (line, 48 * line, 5 - 3 * line)] == [1, 48, -3]
    # where one row ends between two matrices they may be anywhere
    rows = line.copy()
    rows[0, ROWS:] += 7
    rows[1] += 100
    assert distance(rows, ROWS) == 1
    for tile, place in product(range(2), range(1, 32)):
        other = 16 * line
        other[tile, place:] += 1
        assert distance(other, ROWS) == (16 if place == ROWS else 0), (tile, place)
    # matrices of other distances; a pixel that is repeated
    rows[1, ROWS:] = 2 * np.arange(ROWS)
    assert distance(rows, ROWS) == 0
    assert distance(np.minimum(line, 62), ROWS) == 0
    assert distance(whole_tiles(17, 32, overlap=True), ROWS) == 0
    assert distance(16 * whole_tiles(33, 32, overlap=True), ROWS) == 16


@given(st.integers(1, 5000))
def test_rows_of_a_panel(taps: int) -> None:
    row = panel_row(taps, DEPTH_BYTES)
    lines, left = divmod(row, DEPTH_BYTES)
    assert (left, lines % 2) == (0, 1)
    # the last line may begin at any of the taps, and no row is longer than it has to be
    assert taps + DEPTH_BYTES <= row < taps + 4 * DEPTH_BYTES


def test_tiles_that_take_turns() -> None:
    """Panels wait in a cache, so that there are few of them; none where all weights are in a cache."""
    for blocks, tiles in product((1, 2, 9), (1, 2, TOGETHER, 100)):
        for weights in (1, L2_BYTES):
            assert grouping(weights, blocks, tiles, matrices=True) == 1
        assert grouping(L2_BYTES + 1, blocks, tiles, matrices=True) == min(TOGETHER, tiles)


@pytest.mark.parametrize("length", [4, 48, 60, 64, 68, 124, 128])
@pytest.mark.parametrize("segments", [1, 3])
def test_runs_are_filled(length: int, segments: int) -> None:
    runs = np.arange(segments * length).reshape(segments, length)
    found = tables.padded(runs, DEPTH_BYTES)
    assert found.shape == (segments, -(-length // DEPTH_BYTES) * DEPTH_BYTES)
    assert np.array_equal(found[:, :length], runs)
    assert (found[:, length:] == -1).all()


@pytest.mark.parametrize("outputs", [1, 16, 17, 64, 80])
@pytest.mark.parametrize("taps", [4, 60, 63, 64, 65, 128])
@pytest.mark.parametrize("direct", [False, True])
def test_each_weight_meets_its_tap(outputs: int, taps: int, direct: bool) -> None:
    """Of block, step, row of four taps, channel: the operand there, and zeros wherever there is no tap or channel."""
    operands = np.random.default_rng(taps).integers(-128, 128, (outputs, 2 * taps), np.int8)
    runs = np.full((2, -(-taps // 4) * 4), -1, np.int64)
    runs[:, :taps] = np.arange(2 * taps).reshape(2, taps)
    if direct:
        runs = tables.padded(runs, DEPTH_BYTES)
    size, most = tile_of(MATRICES, 33, outputs, matrices=MATRICES.matrices)
    blocks = tables.blocks_of(MATRICES, CODES, size, outputs, most)
    parts = tables.packed_weights(operands, runs, blocks, DEPTH_BYTES)
    flat = [*runs.reshape(-1).tolist()]
    steps = -(-len(flat) // DEPTH_BYTES)
    assert not direct or len(flat) == steps * DEPTH_BYTES
    flat += [-1] * (steps * DEPTH_BYTES - len(flat))
    for block, part in zip(blocks, parts, strict=True):
        assert part.shape == (steps * ROWS, len(block.order), 4)
        for at, tap in enumerate(flat):
            row = part[at // 4, :, at % 4].tolist()
            assert row == [int(operands[c, tap]) if tap >= 0 and c < outputs else 0 for c in block.order.tolist()]
    # without filling, only what the runs have
    assert sum(part.size for part in tables.packed_weights(operands, runs, blocks)) == runs.size * sum(
        len(block.order) for block in blocks
    )
