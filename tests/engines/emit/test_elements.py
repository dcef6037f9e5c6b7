"""Additions, products and tables, element by element, against plain integers."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.emit.add import ADD
from dqtsim.engines.native.emit.multiply import MULTIPLY
from dqtsim.engines.native.emit.table import TABLE
from dqtsim.engines.native.emit.table_channels import TABLE_CHANNELS
from dqtsim.engines.native.isa import Isa
from dqtsim.spec import Rounding

from .compiled import GUARD, address, arena, run
from .integers import CHUNKS, SIZES, any_codes, code_of, every_isa, every_rounding, row_views, seeds, strided


def check_add(
    isa: Isa,
    chunks: int,
    rows: int,
    count: int,
    rounding: Rounding,
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
def test_add(isa: Isa, rounding: Rounding) -> None:
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
def test_add_drawn(isa: Isa, rounding: Rounding, data: st.DataObject) -> None:
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


def check_multiply(
    isa: Isa,
    chunks: int,
    shape: tuple[int, int, int],
    rounding: Rounding,
    zeros: tuple[int, int, int],
    multiplier: int,
    shift: int,
    limits: tuple[int, int],
    seed: int = 0,
    *,
    shared: bool = False,
) -> None:
    """`shape`: rows, columns, bytes of a piece; with `shared` one piece of `b` meets all pieces of `a`."""
    rows, columns, size = shape
    z_a, z_b, z_y = zeros
    a_step = size + seed % 3
    a, a_row = strided(rows, columns * a_step, seed % 5, seed)
    b, b_row = strided(1 if shared else rows, size if shared else columns * size, 3, seed + 1)
    whole, target = arena(rows * a_row, seed + 2)
    then = whole.copy()
    view = then[GUARD:-GUARD]
    for y, x, i in np.ndindex(shape):
        at = y * a_row + x * a_step + i
        factor = int(b[i if shared else y * b_row + x * size + i]) - z_b
        view[at] = code_of((int(a[at]) - z_a) * factor * multiplier, shift, rounding, z_y, *limits)
    run(
        isa,
        "multiply",
        MULTIPLY,
        chunks,
        rounding,
        a=address(a),
        a_row=a_row,
        a_step=a_step,
        b=address(b),
        b_row=0 if shared else b_row,
        b_step=0 if shared else size,
        target=address(target),
        target_row=a_row,
        target_step=a_step,
        rows=rows,
        columns=columns,
        bytes=size,
        z_a=z_a,
        z_b=z_b,
        z_y=z_y,
        multiplier=multiplier,
        shift=shift,
        low=limits[0],
        high=limits[1],
    )
    assert np.array_equal(whole, then)


@every_isa
@every_rounding
def test_multiply(isa: Isa, rounding: Rounding) -> None:
    greatest = 2**31 - 1
    for multiplier, shift in ((1, 0), (1, 1), (1, 8), (3, 2), (40000, 24), (greatest, 31), (greatest, 61), (0, 5)):
        for zeros, limits in (((0, 0, 0), (0, 255)), ((255, 0, 255), (0, 255)), ((128, 3, 77), (77, 200))):
            check_multiply(isa, 2, (3, 1, 50), rounding, zeros, multiplier, shift, limits, shift)
    for chunks, size, shared in product(CHUNKS, SIZES, (False, True)):
        check_multiply(isa, chunks, (5, 3, size), rounding, (0, 128, 1), 5, 9, (0, 255), size, shared=shared)


@every_isa
@every_rounding
@given(st.data())
def test_multiply_drawn(isa: Isa, rounding: Rounding, data: st.DataObject) -> None:
    draw, code = data.draw, st.integers(0, 255)
    low, high = sorted(draw(st.tuples(code, code)))
    check_multiply(
        isa,
        draw(st.sampled_from(CHUNKS)),
        draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40))),
        rounding,
        draw(st.tuples(code, code, code)),
        draw(st.integers(0, 2**31 - 1)),
        draw(st.integers(0, 61)),
        (low, high),
        draw(seeds),
        shared=draw(st.booleans()),
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


@every_isa
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.sampled_from(CHUNKS), st.integers(0, 9), seeds)
def test_table_channels(isa: Isa, rows: int, columns: int, channels: int, chunks: int, gap: int, seed: int) -> None:
    tables = any_codes(channels, 256, seed=seed)
    step = channels + seed % 3
    source, row = strided(rows, columns * step, gap, seed + 1)
    whole, target = arena(rows * row, seed)
    then = whole.copy()
    view = then[GUARD:-GUARD]
    for y, x, c in np.ndindex(rows, columns, channels):
        at = y * row + x * step + c
        view[at] = tables[c, source[at]]
    places = {"source": address(source), "source_row": row, "source_step": step}
    places |= {"target": address(target), "target_row": row, "target_step": step}
    numbers = {"rows": rows, "columns": columns, "channels": channels, "tables": address(tables)}
    run(isa, "table.channels", TABLE_CHANNELS, chunks, **places, **numbers)
    assert np.array_equal(whole, then)
