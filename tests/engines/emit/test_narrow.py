"""The accumulator register as a vector operation (B1-B4, B7), against plain integers."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.native.emit.overflow import NARROW
from dqtsim.engines.native.isa import Isa
from dqtsim.spec import Rounding

from .compiled import Chosen, address, arena, fenced, run
from .integers import code_of, every_isa, every_rounding

MOST = (1 << 31) - 1
WIDTH_PAIRS = ((8, 8), (1, 8), (8, 1))
every_width = pytest.mark.parametrize("width", [8, 16, 31])
every_register = pytest.mark.parametrize("wraps", [False, True], ids=["clamps", "wraps"])


def corners(width: int) -> list[int]:
    """Return sums at 0, at both limits of a register, beside them, and at those of 32 bits."""
    half = 1 << (width - 1)
    near = [at + step for at in (0, half, -half, 2 * half, -2 * half) for step in (-2, -1, 0, 1, 2)]
    return [p for p in (*near, MOST, -MOST - 1, 12345678, -12345678) if -MOST - 1 <= p <= MOST]


def held(p: int, width: int, *, wraps: bool) -> int:
    half = 1 << (width - 1)
    return (p + half) % (2 * half) - half if wraps else max(-half, min(half - 1, p))


def check(
    isa: Isa,
    rounding: Rounding,
    width: int,
    *,
    wraps: bool,
    logits: bool,
    which: list[int],
    chunks: int,
    seed: int,
    tables: str = "spread",
    pair: tuple[int, int] = (8, 8),
) -> None:
    """Four vectors, of which those in `which` are narrowed at (8, 8), none at (8, 1), the first at (1, 8)."""
    random, lanes = np.random.default_rng(seed), isa.lanes
    vectors = 4
    channels = vectors * lanes
    known = corners(width)
    pixels = -(-len(known) // 3) + 5
    sums = random.choice(np.array(known, np.int32), (pixels, channels))
    low, high, zero = 3, 250, 77
    if tables == "ties":
        m, s, extra = np.full(channels, 1 << 4), np.full(channels, 5), np.zeros(channels, np.int64)
    else:
        m, s = random.integers(0, 1 << 16, channels), random.integers(0, 40, channels)
        s = np.maximum(s, 16 + width - 31)
        extra = random.integers(-(1 << 20), 1 << 20, channels)
    folded = rounding in (Rounding.TIES_UP, Rounding.FLOOR)
    shift = [int(x) for x in s]
    addend = np.array(
        [
            int(r) + ((zero << t) + ((1 << t >> 1) if rounding == Rounding.TIES_UP else 0) if folded else 0)
            for r, t in zip(extra, shift, strict=True)
        ],
        np.int64,
    )
    exponent, bias = np.full(channels, 5, np.int32), random.integers(-MOST, MOST, channels).astype(np.int32)
    parts = (exponent, bias) if logits else (m.astype(np.int32), addend, s.astype(np.int64))

    def packed(listed: list[int]) -> Any:
        rows = [np.concatenate([part[v * lanes : (v + 1) * lanes].view(np.uint8) for part in parts]) for v in listed]
        return fenced(np.concatenate(rows) if rows else np.zeros(0, np.uint8))

    lists = {(8, 8): which, (1, 8): [0], (8, 1): []}
    chosen = Chosen(pair, {widths: number for number, widths in enumerate(lists)})
    kept, records = [], []
    for listed in lists.values():
        places, constants = fenced(np.array(listed, np.int64) * lanes, np.int64), packed(listed)
        kept += [places, constants]
        records += [len(listed), address(places), address(constants)]
    step = channels * (4 if logits else 1) + 12
    whole, target = arena(pixels * step, seed)
    offsets = fenced(random.permutation(pixels) * step, np.int64)
    exact, expected = sums.copy(), whole.copy()
    view = expected[67 : 67 + pixels * step]
    events = 0
    for k, channel in product(range(pixels), range(channels)):
        if channel // lanes not in lists[pair]:
            continue
        p = int(sums[k, channel])
        exact[k, channel] = value = held(p, width, wraps=wraps)
        events += value != p
        if logits:
            y = ((value << 5) + int(bias[channel]) + MOST + 1) % (1 << 32) - MOST - 1
            at = int(offsets[k]) + 4 * channel
            view[at : at + 4] = np.array([y], np.int32).view(np.uint8)
        else:
            product_ = value * int(m[channel]) + int(extra[channel])
            view[int(offsets[k]) + channel] = code_of(product_, shift[channel], rounding, zero, low, high)
    own, count = fenced(sums, np.int32), np.array([1000], np.int64)
    variants = np.array(records, np.int64)
    run(
        isa,
        "narrow_logits" if logits else "narrow",
        NARROW,
        chunks,
        rounding,
        **chosen.words,
        variants=address(variants),
        sums=address(own),
        stride=channels * 4,
        target=address(target),
        target_offsets=address(offsets),
        pixels=pixels,
        events=address(count),
        wraps=int(wraps),
        unused=32 - width,
        zero=0 if folded else zero,
        low=low,
        high=high,
    )
    assert np.array_equal(own, exact)
    assert np.array_equal(whole, expected)
    assert int(count[0]) == 1000 + events


@every_isa
@every_rounding
@every_register
@every_width
def test_codes(isa: Isa, rounding: Rounding, width: int, wraps: bool) -> None:
    for seed, tables in enumerate(("spread", "ties")):
        check(isa, rounding, width, wraps=wraps, logits=False, which=[0, 1, 3], chunks=1, seed=seed, tables=tables)


@every_isa
@every_register
@every_width
def test_logits(isa: Isa, width: int, wraps: bool) -> None:
    check(isa, Rounding.TIES_UP, width, wraps=wraps, logits=True, which=[1, 2], chunks=1, seed=width)


@every_isa
@pytest.mark.parametrize("logits", [False, True], ids=["codes", "logits"])
@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 40])
def test_chunks_share_the_work_and_the_count(isa: Isa, chunks: int, logits: bool) -> None:
    check(isa, Rounding.TIES_UP, 12, wraps=True, logits=logits, which=[2], chunks=chunks, seed=chunks)


@every_isa
@pytest.mark.parametrize("logits", [False, True], ids=["codes", "logits"])
@pytest.mark.parametrize("pair", WIDTH_PAIRS)
def test_the_widths_say_which_vectors_are_looked_at(isa: Isa, pair: tuple[int, int], logits: bool) -> None:
    check(isa, Rounding.TIES_UP, 12, wraps=False, logits=logits, which=[3, 1], chunks=2, seed=5, pair=pair)
