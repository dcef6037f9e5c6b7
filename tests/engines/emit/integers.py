"""What tests of the vector kernels compare with: plain integers, and what they try."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import strategies as st

from dqtsim.spec import Rounding

from .compiled import HERE, Bytes, fenced

ROUNDINGS = tuple(Rounding)
CHUNKS = (1, 2, 3, 7)
SIZES = (1, 15, 16, 17, 63, 64, 65)
HALF = Fraction(1, 2)

every_isa = pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
every_rounding = pytest.mark.parametrize("rounding", ROUNDINGS)
seeds = st.integers(0, 2**32 - 1)


def any_codes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def shifted(x: int, s: int, rounding: Rounding) -> int:
    """Return x / 2^s, rounded."""
    exact = Fraction(x, 1 << s)
    below, rest = floor(exact), exact - floor(exact)
    if rest != HALF:
        return below + (rest > HALF and rounding is not Rounding.FLOOR)
    up = {
        Rounding.TIES_UP: 1,
        Rounding.FLOOR: 0,
        Rounding.TIES_AWAY: int(x > 0),
        Rounding.TIES_EVEN: below % 2,
    }
    return below + up[rounding]


def code_of(x: int, s: int, rounding: Rounding, z: int, low: int, high: int) -> int:
    return max(low, min(high, z + shifted(x, s, rounding)))


def strided(rows: int, count: int, gap: int, seed: int) -> tuple[Bytes, int]:
    """Return rows of codes, the last with no byte readable behind it, and how far apart they are."""
    row = count + gap
    return fenced(any_codes(rows * row - gap, seed=seed)), row


def row_views(flat: Bytes, rows: int, row: int, count: int) -> list[Bytes]:
    return [flat[y * row : y * row + count] for y in range(rows)]
