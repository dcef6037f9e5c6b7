"""Copies, decisions, and chunks that write what is theirs alone."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.add import ADD
from dqtsim.engines.native.emit.average_pool import AVERAGE_POOL
from dqtsim.engines.native.emit.copy import COPY
from dqtsim.engines.native.emit.decision import ARGMAX, GATHER_ROWS
from dqtsim.engines.native.emit.max_pool import MAX_POOL
from dqtsim.engines.native.emit.nest import NEST
from dqtsim.engines.native.emit.picture import PICTURE
from dqtsim.engines.native.emit.planes import PLANES
from dqtsim.engines.native.emit.table import TABLE
from dqtsim.engines.native.ir import Record
from dqtsim.engines.native.isa import Isa

from .compiled import GUARD, HERE, Chosen, address, arena, each_chunk, fenced, run
from .integers import CHUNKS, SIZES, any_codes, every_isa, seeds


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


def sizes(record: Record, **values: int) -> dict[str, int]:
    """Return all words of a record but the chunks: those given, otherwise 0."""
    return {**dict.fromkeys(record.names[2:], 0), **values}


def test_chunks_write_disjoint_rows() -> None:
    isa, codes = HERE[0], any_codes(64, 64)
    whole, target = arena(64 * 64)
    chosen, firsts = Chosen((1, 4), {(1, 4): 0}), np.zeros(5, np.int64)
    both = {"source": address(codes), "target": address(target)}
    image = {"height": 5, "width": 6, "source_row": 96, "source_step": 16}
    output = {"target_row": 96, "target_step": 16, "rows": 5, "columns": 6, "channels": 16}
    window = {"kernel_y": 1, "kernel_x": 1, "stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1}
    average = {name: value for name, value in window.items() if "dilation" not in name}
    ones = np.ones(1, np.int64)
    rows = {"rows": 5, "row_bytes": 96, "target_row": 96}
    cases: tuple[tuple[str, Record, int, dict[str, int]], ...] = (
        (
            "nest",
            NEST,
            10 * 9 * 16,
            {**image, **chosen.words, "n": 8, "step": 16, "top": 2, "left": 1, "bottom": 3, "right": 2},
        ),
        ("picture", PICTURE, 5 * 6 * 4, {"channels": 3, "height": 5, "width": 6, "step": 4, "target_row": 24}),
        ("planes", PLANES, 5 * 6 * 9, {"channels": 9, "height": 5, "width": 6, "step": 16, "row": 96}),
        ("max_pool", MAX_POOL, 5 * 96, {**image, **output, **window}),
        (
            "average_pool",
            AVERAGE_POOL,
            5 * 96,
            {**image, **output, **average, "multipliers": address(ones), "high": 255},
        ),
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
