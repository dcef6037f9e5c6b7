"""What is taken off the sums of CENTROID weights, by vectors, against plain integers (B2')."""

from itertools import product

import numpy as np
import pytest

from dqtsim.engines.native.emit.centroid import CENTROID, COLUMNS
from dqtsim.engines.native.emit.choice import ELSEWHERE
from dqtsim.engines.native.isa import Isa
from dqtsim.graph.model import Array
from dqtsim.spec import Rounding

from .compiled import Chosen, address, arena, fenced, run
from .integers import CHUNKS, code_of, every_isa, every_rounding

GUARD = 67


@every_isa
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("direct", [0, 1])
@pytest.mark.parametrize(
    ("groups", "channels", "copies"),
    [(1, 1, 1), (1, 3, 1), (1, 16, 1), (1, 35, 1), (2, 5, 3), (3, 16, 2), (37, 1, 1), (9, 1, 2)],
)
def test_columns_are_sums_of_channels(
    isa: Isa, chunks: int, direct: int, groups: int, channels: int, copies: int
) -> None:
    pixels, step, columns = 5, groups * channels + 3, groups * copies + 2
    random = np.random.default_rng(groups)
    codes = random.integers(0, 256, (pixels, step), np.uint8)
    # no byte behind the last channel can be read
    source = fenced(codes.reshape(-1)[: pixels * step - 3])
    whole, target = arena(4 * pixels * columns)
    expected = whole.copy()
    view = expected[GUARD : GUARD + target.size].reshape(pixels, columns, 4)
    sums = codes[:, : groups * channels].reshape(pixels, groups, channels).sum(2, dtype=np.int32)
    view[:, : groups * copies] = np.repeat(sums, copies, 1)[:, :, None].view(np.uint8)
    chosen = Chosen((4, 8), {(2, 2): 0, (4, 8): 1, (8, 8): ELSEWHERE})
    variants = np.array([1 - direct, direct], np.int64)
    places = {"direct": address(source) if direct else 0, "nested": 0 if direct else address(source)}
    sizes = {"pixels": pixels, "step": step, "groups": groups, "channels": channels}
    more = {"copies": copies, "columns": columns, "target": address(target), "variants": address(variants)}
    run(isa, "columns", COLUMNS, chunks, **chosen.words, **places, **sizes, **more)
    assert np.array_equal(whole, expected)


def check(isa: Isa, rounding: Rounding, chunks: int, *, each: bool, logits: bool, exponent: int, of_codes: int) -> None:
    """Two vectors of channels, in pixels of any order, whose windows have three taps."""
    random, lanes = np.random.default_rng(exponent), isa.lanes
    channels, pixels, zeros, low, high, zero = 2 * lanes, 11, 500, 3, 250, 77
    sums = random.integers(-(1 << 20), 1 << 20, (pixels, channels), np.int32)
    width = channels if each else 1
    plane = random.integers(0, 1000, (40, width), np.int32)
    offsets, taps = random.integers(0, 30, pixels), np.array([0, 4, 9])
    bias = random.integers(-(1 << 30), 1 << 30, channels).astype(np.int32)
    m, s = random.integers(0, 1 << 16, channels).astype(np.int32), random.integers(20, 34, channels)
    r = random.integers(-(1 << 30), 1 << 30, channels)
    folded = rounding in (Rounding.TIES_UP, Rounding.FLOOR)
    half = (1 << s) >> 1 if rounding is Rounding.TIES_UP else 0
    addend = r + (zero << s) + half if folded else r
    # the exponent of logits is 0: the sums are in master steps
    parts: list[Array] = [np.zeros(channels, np.int32), bias] if logits else [m, addend, s]
    packed = [part[v * lanes : (v + 1) * lanes].view(np.uint8) for v in range(2) for part in parts]
    constants = fenced(np.concatenate(packed))
    step = channels * (4 if logits else 1) + 12
    whole, target = arena(pixels * step)
    places = random.permutation(pixels) * step
    expected = whole.copy()
    view = expected[GUARD : GUARD + target.size]
    for k, channel in product(range(pixels), range(channels)):
        u = sum(int(plane[offsets[k] + tap, channel if each else 0]) for tap in taps) - zeros
        a = (int(sums[k, channel]) << exponent) - ((u << of_codes) + 1) // 2
        if logits:
            at = int(places[k]) + 4 * channel
            view[at : at + 4] = np.array([a + int(bias[channel])], np.int64).astype(np.int32).view(np.uint8)
        else:
            total = a * int(m[channel]) + int(r[channel])
            view[int(places[k]) + channel] = code_of(total, int(s[channel]), rounding, zero, low, high)
    chosen = Chosen((4, 8), {(2, 2): 0, (4, 8): 1})
    variants = np.array([9, 9, 9, 0, exponent, of_codes, zeros, address(constants)], np.int64)
    own, tables = fenced(sums, np.int32), [fenced(t * 4 * width, np.int64) for t in (offsets, taps)]
    where, plane = fenced(places, np.int64), fenced(plane, np.int32)
    run(
        isa,
        "centroid_logits" if logits else "centroid",
        CENTROID,
        chunks,
        rounding,
        **chosen.words,
        variants=address(variants),
        columns=address(plane),
        offsets=address(tables[0]),
        taps=address(tables[1]),
        tap_count=len(taps),
        each=int(each),
        sums=address(own),
        stride=4 * channels,
        vectors=2,
        target=address(target),
        target_offsets=address(where),
        pixels=pixels,
        zero=zero,
        low=low,
        high=high,
    )
    assert np.array_equal(whole, expected)


@every_isa
@every_rounding
@pytest.mark.parametrize("each", [False, True])
def test_codes(isa: Isa, rounding: Rounding, each: bool) -> None:
    for chunks, (exponent, of_codes) in product(CHUNKS, ((0, 0), (3, 0), (3, 1), (7, 4))):
        check(isa, rounding, chunks, each=each, logits=False, exponent=exponent, of_codes=of_codes)


@every_isa
@pytest.mark.parametrize("each", [False, True])
def test_logits(isa: Isa, each: bool) -> None:
    for chunks, of_codes in product(CHUNKS, (0, 3)):
        check(isa, Rounding.TIES_UP, chunks, each=each, logits=True, exponent=of_codes + 2, of_codes=of_codes)
