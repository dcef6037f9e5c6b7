"""Real numbers to the integers of a model: biases B, multipliers M and shifts S (B3 to B5)."""

import math

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .model import Array

Reals = npt.NDArray[np.float64]
MULTIPLIER_WIDTH = 16
LARGEST_SHIFT = 62
BIAS_LIMIT = 2**31


def multiplier_and_shift(values: list[float], where: str) -> tuple[list[int], int]:
    """Unsigned M and one S with M * 2^-S ~ value, the largest M having its top (16th) bit set (B4, B5)."""
    multipliers, shifts = multipliers_and_shifts(np.array([values]), where)
    found: list[int] = multipliers[0].tolist()
    return found, int(shifts[0])


def multipliers_and_shifts(values: Reals, where: str) -> tuple[Array, Array]:
    """M int64 [..., K] and S int64 [...] of float64 `values` [..., K]: as above, for many at once.

    Raises ModelError, naming `where`, if the largest of a row is not positive, is infinite, or is 2^16 or more.
    """
    largest = values.max(-1)
    for value in largest[~((largest > 0) & (largest < math.inf))][:1].tolist():
        raise ModelError(f"A multiplier must be positive and finite, but that of {where} is {value}.")
    shift = MULTIPLIER_WIDTH - np.frexp(largest)[1].astype(np.int64)
    shift -= np.rint(np.ldexp(largest, shift)) >= 2**MULTIPLIER_WIDTH
    for value in largest[shift < 0][:1].tolist():
        raise ModelError(f"A multiplier must be below {2**MULTIPLIER_WIDTH}, but that of {where} is {value}.")
    # If a shift would exceed 62, the channel is practically constant; its M has fewer bits instead.
    shift = np.minimum(shift, LARGEST_SHIFT)
    return np.rint(np.ldexp(values, shift[..., None])).astype(np.int64), shift


def per_channel(values: Reals, where: str) -> tuple[Array, Array]:
    """M and S int64 of float64 `values`, all of one shape: every value has its own shift."""
    multipliers, shifts = multipliers_and_shifts(values[..., None], where)
    return multipliers[..., 0], shifts


def requantizing(values: Reals, where: str) -> tuple[Array, Array]:
    """`per_channel` for the integer sums of a layer: a factor of 2^16 or more becomes 2^16 - 1.

    That changes no code: a sum of 1 already leaves the codes' range.
    """
    return per_channel(np.minimum(values, 2**MULTIPLIER_WIDTH - 1), where)


def rounded_bias(real: Reals, limit: int = BIAS_LIMIT) -> Array:
    """B3: rounded (ties up), then saturated to 32 bits signed."""
    return np.clip(np.floor(real + 0.5), -limit, limit - 1).astype(np.int64)
