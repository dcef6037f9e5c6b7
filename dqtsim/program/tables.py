"""Constants of a layer at one pair of widths, as the kernels want them, and the proofs behind them (A1-A5, B1-B4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.model import Array
from ..kernels.vector.tile import PARAMETER_BYTES
from ..ops import Bound, Machine
from ..spec.rules import Nesting, Rounding

I32_MOST = (1 << 31) - 1
I64_SAFE = 1 << 62
# beyond every code, with any zero point added
FAR = 1 << 16
RULES = {Nesting.TIES_UP: 0, Nesting.FLOOR: 1, Nesting.MIDPOINT: 2}
FOLDED = (Rounding.TIES_UP, Rounding.FLOOR)


def nested(codes: Array, b: int, n: int, rule: Nesting) -> Array:
    """Return int64: what the multiplier sees of master codes at width `b`, before a zero point is taken off (A1-A3).

    MIDPOINT's halves are kept by doubling, which `dropped` counts.
    """
    wide = codes.astype(np.int64)
    k = n - b
    if k == 0:
        return wide
    if rule == Nesting.TIES_UP:
        limited: Array = np.minimum((wide + (1 << (k - 1))) >> k, (1 << b) - 1)
        return limited
    return 2 * (wide >> k) + 1 if rule == Nesting.MIDPOINT else wide >> k


def zeta(z: int, b: int, n: int, rule: Nesting) -> int:
    """Return what an operand lacks of `nested`: the nested zero point (A4, A5)."""
    if b < n and rule == Nesting.MIDPOINT:
        return 2 * (z >> (n - b))
    return int(nested(np.array(z), b, n, rule))


def dropped(b: int, n: int, rule: Nesting) -> int:
    """Return the exponent that puts an operand of width `b` into master steps (A5)."""
    return 0 if b == n else n - b - int(rule == Nesting.MIDPOINT)


def weight_operands(codes: Array, b: int, machine: Machine) -> Array:
    """Return int8 operands of master weight codes, same shape: one look-up each."""
    n, rule = machine.n, machine.weight_rule
    operands = nested(np.arange(1 << n), b, n, rule) - zeta(1 << (n - 1), b, n, rule)
    found: Array = operands.astype(np.int8)[codes]
    return found


@dataclass(frozen=True)
class Scaling:
    """Per output channel: y = clamp((P * multiplier + addend) >> shift) with rounding still to do unless folded."""

    multiplier: Array
    addend: Array
    shift: Array


def scaling(
    bound: Bound, bias: Array, multiplier: Array, shift: Array, exponent: int, zero: int, rounding: Rounding
) -> Scaling | None:
    """Return the constants of the way out, or None where 32 and 64 bits are not proven to be enough (B2-B4).

    bias: as the bias register holds it. A channel whose least and greatest sum give the same code gives no other; it
    gets that code as a constant, which spares it shifts that no vector can hold.
    """
    if max(int(np.abs(end).max()) for end in (bound.lowest, bound.highest)) > I32_MOST:
        return None
    # every number below fits 64 bits, or they are Python's integers
    kind = np.int64 if _bits(bound, bias, multiplier, shift, exponent, zero) <= 62 else object
    lowest, highest, b, m, s = (a.astype(kind) for a in (bound.lowest, bound.highest, bias, multiplier, shift))
    first, last = (divided(((p << exponent) + b) * m, s, rounding) for p in (lowest, highest))
    same = first == last
    factor = np.where(same, 0, m << exponent)
    s = np.where(same, 0, s)
    addend = np.where(same, np.minimum(np.maximum(first, -FAR), FAR), b * m)
    half = (1 << s) >> 1
    if rounding in FOLDED:
        addend = addend + (zero << s) + (half if rounding == Rounding.TIES_UP else 0)
    ends = np.concatenate([lowest * factor + addend - half, highest * factor + addend + half])
    if factor.max() > I32_MOST or s.max() > 62 or max(abs(addend).max(), abs(ends).max()) >= I64_SAFE:
        return None
    if max(abs(ends >> np.concatenate([s, s]))) + 256 > I32_MOST:
        return None
    return Scaling(factor.astype(np.int32), addend.astype(np.int64), s.astype(np.int64))


def _bits(bound: Bound, bias: Array, multiplier: Array, shift: Array, exponent: int, zero: int) -> int:
    """Return how many bits every number on the way out fits, without the sign."""
    sums, b, m, s = (int(np.abs(a).max()) for a in (np.minimum(bound.lowest, -bound.highest), bias, multiplier, shift))
    return (((sums << exponent) + b) * m + (zero + 2 << s)).bit_length()


def divided(value: Any, s: Any, rounding: Rounding) -> Any:
    """Return value / 2^s, rounded; of integers or of arrays."""
    whole = value >> s
    twice = 2 * (value - (whole << s)) - (1 << s)
    if rounding == Rounding.FLOOR:
        return whole
    if rounding == Rounding.TIES_UP:
        return whole + (twice >= 0)
    up = whole & 1 == 1 if rounding == Rounding.TIES_EVEN else value > 0
    return whole + ((twice > 0) | ((twice == 0) & up))


def blocks_of(vectors: int, most: int) -> list[int]:
    """Return how many vectors each block of channels has: `most`, and what is left."""
    return [most] * (vectors // most) + ([vectors % most] if vectors % most else [])


def packed_weights(operands: Array, runs: Array, blocks: Sequence[int], lanes: int) -> list[Array]:
    """Return int8 [segments][run / 4][channels][4] of every block.

    operands: (O, taps); runs int64 (segments, run): which tap each byte of a run meets, or -1 for none.
    """
    outputs, taps = operands.shape
    segments, run = runs.shape
    whole = np.zeros((taps + 1, sum(blocks) * lanes), np.int8)
    whole[:-1, :outputs] = operands.T
    # a row of all channels at a time: the last one is that of no tap
    rows = whole[runs].reshape(segments, run // 4, 4, -1)
    ends = (np.cumsum(blocks) * lanes).tolist()
    parts = [rows[..., end - count * lanes : end] for end, count in zip(ends, blocks, strict=True)]
    return [np.ascontiguousarray(part.swapaxes(2, 3)) for part in parts]


def packed_depth(operands: Array, blocks: Sequence[int], lanes: int) -> list[Array]:
    """Return int8 views of int32 [taps][channels] of every block; operands: (O, taps)."""
    outputs, taps = operands.shape
    whole = np.zeros((sum(blocks) * lanes, taps), np.int32)
    whole[:outputs] = operands
    ends = np.cumsum(blocks) * lanes
    parts = [whole[end - count * lanes : end].T for end, count in zip(ends, blocks, strict=True)]
    return [np.ascontiguousarray(part).view(np.int8) for part in parts]


def packed_parameters(correction: Array, scale: Scaling, lanes: int) -> Array:
    """Return uint8 (vectors, PARAMETER_BYTES * lanes), zeros for the channels that do not exist."""
    outputs = len(correction)
    vectors = -(-outputs // lanes)

    def lanes_of(values: Array) -> Array:
        padded = np.zeros(vectors * lanes, values.dtype)
        padded[:outputs] = values
        return padded.reshape(vectors, lanes)

    r, s = lanes_of(scale.addend), lanes_of(scale.shift)
    parts = (
        lanes_of(_wrapped(correction)),
        lanes_of(scale.multiplier),
        r[:, 0::2],
        r[:, 1::2],
        s[:, 0::2],
        s[:, 1::2],
    )
    return _joined(parts, lanes)


def packed_logits(correction: Array, exponent: int, bias: Array, lanes: int) -> Array:
    """Return the parameters of logits: correction, exponent and bias int32."""
    outputs = len(correction)
    vectors = -(-outputs // lanes)
    parts = []
    for values in (_wrapped(correction), np.full(outputs, exponent, np.int32), _wrapped(bias)):
        padded = np.zeros(vectors * lanes, np.int32)
        padded[:outputs] = values
        parts.append(padded.reshape(vectors, lanes))
    return _joined(parts, lanes)


def _wrapped(values: Array) -> Array:
    """Return int32 with the same lower 32 bits."""
    wrapped: Array = values.astype(np.int64).astype(np.uint64).astype(np.uint32).view(np.int32)
    return wrapped


def _joined(parts: Sequence[Array], lanes: int) -> Array:
    rows = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in parts]
    joined = np.concatenate(rows, axis=1)
    whole = np.zeros((len(joined), PARAMETER_BYTES * lanes), np.uint8)
    whole[:, : joined.shape[1]] = joined
    return whole
