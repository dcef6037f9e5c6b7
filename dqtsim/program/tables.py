"""Constants of a layer at one pair of widths, as the kernels want them, and the proofs behind them (A1-A5, B1-B4)."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Return int8 operands of master weight codes, same shape."""
    n, rule = machine.n, machine.weight_rule
    return (nested(codes, b, n, rule) - zeta(1 << (n - 1), b, n, rule)).astype(np.int8)


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
    multipliers, addends, shifts = [], [], []
    rows = zip(*(a.tolist() for a in (bound.lowest, bound.highest, bias, multiplier, shift)), strict=True)
    for lowest, highest, b, m, s in rows:
        first, last = (divided(((p << exponent) + b) * m, s, rounding) for p in (lowest, highest))
        if first == last:
            factor, addend, s = 0, min(max(first, -FAR), FAR), 0  # noqa: PLW2901
        else:
            factor, addend = m << exponent, b * m
        half = (1 << s) >> 1
        if rounding in FOLDED:
            addend += (zero << s) + (half if rounding == Rounding.TIES_UP else 0)
        ends = [p * factor + addend + side * half for p, side in ((lowest, -1), (highest, 1))]
        narrow = lowest >= -I32_MOST - 1 and max(highest, factor) <= I32_MOST
        if not narrow or s > 62 or max(abs(addend), *map(abs, ends)) >= I64_SAFE:
            return None
        if max(abs(end >> s) for end in ends) + 256 > I32_MOST:
            return None
        multipliers.append(factor)
        addends.append(addend)
        shifts.append(s)
    return Scaling(np.array(multipliers, np.int32), np.array(addends, np.int64), np.array(shifts, np.int64))


def divided(value: int, s: int, rounding: Rounding) -> int:
    """Return value / 2^s, rounded."""
    whole, rest = value >> s, value - (value >> s << s)
    twice = 2 * rest - (1 << s)
    if rounding == Rounding.FLOOR or twice < 0:
        return whole
    if twice > 0 or rounding == Rounding.TIES_UP:
        return whole + (rest > 0)
    return whole + (whole & 1 if rounding == Rounding.TIES_EVEN else value > 0)


def blocks_of(vectors: int, most: int) -> list[int]:
    """Return how many vectors each block of channels has: `most`, and what is left."""
    return [most] * (vectors // most) + ([vectors % most] if vectors % most else [])


def packed_weights(operands: Array, runs: Array, blocks: Sequence[int], lanes: int) -> list[Array]:
    """Return int8 [segments][run / 4][channels][4] of every block.

    operands: (O, taps); runs int64 (segments, run): which tap each byte of a run meets, or -1 for none.
    """
    outputs = operands.shape[0]
    total = sum(blocks) * lanes
    whole = np.zeros((total, operands.shape[1] + 1), np.int8)
    whole[:outputs, :-1] = operands
    packed = []
    first = 0
    segments, run = runs.shape
    for vectors in blocks:
        rows = whole[first : first + vectors * lanes][:, runs.reshape(-1)]
        shape = (vectors * lanes, segments, run // 4, 4)
        packed.append(np.ascontiguousarray(rows.reshape(shape).transpose(1, 2, 0, 3)))
        first += vectors * lanes
    return packed


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


def packed(parts: Sequence[Array], lanes: int) -> Array:
    """Return uint8 (vectors, bytes): for each vector its lanes of every part, zeros for channels that do not exist."""
    outputs = len(parts[0])
    whole = np.zeros(-(-outputs // lanes) * lanes, np.int64)
    rows = []
    for part in parts:
        whole[:outputs] = part
        rows.append(whole.astype(part.dtype).view(np.uint8).reshape(len(whole) // lanes, -1))
    return np.concatenate(rows, axis=1)


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
