"""Constants of a layer at one pair of widths, in the layout of the kernels, and their proofs (A1-A5, B1-B4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np

from ....graph.model import Array
from ....ops import Bound, Machine
from ....spec.rules import Nesting, Rounding
from ..emit.tile import PARAMETER_BYTES, QUADS
from ..isa.base import PACKED, Isa

I32_MOST = (1 << 31) - 1
I64_SAFE = 1 << 62
# larger than every code plus any zero point
FAR = 1 << 16


def nested(codes: Array, b: int, n: int, rule: Nesting) -> Array:
    """Return int64: master codes nested to width `b`, before the zero point is subtracted (A1-A3).

    MIDPOINT and CENTROID codes are doubled so that their half is an integer; `dropped` takes the factor 2 into account.
    """
    wide = codes.astype(np.int64)
    k = n - b
    if k == 0:
        return wide
    match rule:
        case Nesting.TIES_UP:
            limited: Array = np.minimum((wide + (1 << (k - 1))) >> k, (1 << b) - 1)
            return limited
        case Nesting.FLOOR:
            return wide >> k
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return 2 * (wide >> k) + 1
        case _:
            assert_never(rule)


def zeta(z: int, b: int, n: int, rule: Nesting) -> int:
    """Return `nested` minus the operand: the nested zero point (A4, A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return int(nested(np.array(z), b, n, rule))
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return 2 * (z >> (n - b)) if b < n else z
        case _:
            assert_never(rule)


def greatest(z: int, b: int, n: int, rule: Nesting) -> int:
    """Return the greatest byte in a nested input, of its codes and its border."""
    return max(int(nested(np.arange(1 << n), b, n, rule).max()), zeta(z, b, n, rule))


def dropped(b: int, n: int, rule: Nesting) -> int:
    """Return the exponent that puts an operand of width `b` into master steps (A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return n - b
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return n - b - int(b < n)
        case _:
            assert_never(rule)


def is_below_middle(b: int, n: int, rule: Nesting) -> bool:
    """Return whether a weight of width `b` stands for half a master step less than its operand says (A3', B2')."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return False
        case Nesting.CENTROID:
            return b != n
        case _:
            assert_never(rule)


def weight_operands(codes: Array, b: int, machine: Machine) -> Array:
    """Return int8 operands of master weight codes, same shape: one look-up each."""
    n, rule = machine.n, machine.weight_rule
    operands = nested(np.arange(1 << n), b, n, rule) - zeta(1 << (n - 1), b, n, rule)
    found: Array = operands.astype(np.int8)[codes]
    return found


@dataclass(frozen=True)
class Scaling:
    """Per output channel: y = clamp((P * multiplier + addend) >> shift) if not folded, rounding is still to be done."""

    multiplier: Array
    addend: Array
    shift: Array


def scaling(
    bound: Bound, bias: Array, multiplier: Array, shift: Array, exponent: int, zero: int, rounding: Rounding
) -> Scaling | None:
    """Return the constants of the epilogue, or None if 32 and 64 bits are not proven to be enough (B2-B4).

    bias: the value of the bias register. If the least and the greatest sum of a channel give the same code, the channel
    is constant; it needs no shift then, which might be too large for a vector.
    """
    if int(bound.lowest.min()) < -I32_MOST - 1 or int(bound.highest.max()) > I32_MOST:
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
    added = folded_half(s, rounding)
    if added is not None:
        addend = addend + (zero << s) + added
    ends = np.concatenate([lowest * factor + addend - half, highest * factor + addend + half])
    if factor.max() > I32_MOST or s.max() > 62 or max(abs(addend).max(), abs(ends).max()) >= I64_SAFE:
        return None
    if max(abs(ends >> np.concatenate([s, s]))) + 256 > I32_MOST:
        return None
    return Scaling(factor.astype(np.int32), addend.astype(np.int64), s.astype(np.int64))


def _bits(bound: Bound, bias: Array, multiplier: Array, shift: Array, exponent: int, zero: int) -> int:
    """Return the number of bits, without the sign, that every number of the epilogue needs."""
    sums, b, m, s = (int(np.abs(a).max()) for a in (np.minimum(bound.lowest, -bound.highest), bias, multiplier, shift))
    return (((sums << exponent) + b) * m + (zero + 2 << s)).bit_length()


def divided(value: Any, s: Any, rounding: Rounding) -> Any:
    """Return value / 2^s, rounded; of integers or of arrays."""
    whole = value >> s
    twice = 2 * (value - (whole << s)) - (1 << s)
    match rounding:
        case Rounding.FLOOR:
            return whole
        case Rounding.TIES_UP:
            return whole + (twice >= 0)
        case Rounding.TIES_AWAY:
            return whole + ((twice > 0) | ((twice == 0) & (value > 0)))
        case Rounding.TIES_EVEN:
            return whole + ((twice > 0) | ((twice == 0) & (whole & 1 == 1)))
        case _:
            assert_never(rounding)


def folded_half(s: Any, rounding: Rounding) -> Any:
    """Return the number that rounding adds to a sum before its shift by `s`, or None if that depends on the sum."""
    match rounding:
        case Rounding.TIES_UP:
            return (1 << s) >> 1
        case Rounding.FLOOR:
            return 0
        case Rounding.TIES_AWAY | Rounding.TIES_EVEN:
            return None
        case _:
            assert_never(rounding)


@dataclass(frozen=True)
class Block:
    """Output channels that one kernel computes: its name, its lanes, and which channel each lane holds, in order."""

    kernel: str
    lanes: int
    order: Array

    @property
    def first(self) -> int:
        """Return the first channel."""
        return int(self.order.min())


def blocks_of(isa: Isa, kind: str, pixels: int, outputs: int, most: int) -> list[Block]:
    """Return the blocks of a layer: of `most` vectors, then what is left."""
    sizes = []
    if kind == QUADS:
        widths = [quads.lanes for quads in isa.depthwise.quads]
        least = widths[-1]
        left = -(-outputs // (PACKED * least))
        for lanes in widths:
            sizes += [(PACKED, lanes)] * (left // (lanes // least))
            left %= lanes // least
    else:
        vectors = -(-outputs // isa.lanes)
        sizes = [(most, isa.lanes)] * (vectors // most) + ([(vectors % most, isa.lanes)] if vectors % most else [])
    blocks = []
    first = 0
    for vectors, lanes in sizes:
        name = f"{kind}_{pixels}x{vectors}" + (f"x{lanes}" if kind == QUADS else "")
        order = first + np.array(isa.channel_order(lanes, vectors), np.int64)
        blocks.append(Block(name, lanes, order))
        first += lanes * vectors
    return blocks


def _of_lanes(values: Array, block: Block) -> Array:
    """Return the rows of `values` in the order of a block, zeros for the channels that do not exist."""
    there = block.order < len(values)
    rows = np.zeros((len(block.order), *values.shape[1:]), values.dtype)
    rows[there] = values[block.order[there]]
    return rows


def padded(runs: Array, multiple: int) -> Array:
    """Return runs (segments, run) whose length is rounded up to `multiple` bytes; the added bytes have no tap."""
    return np.pad(runs, ((0, 0), (0, -runs.shape[1] % multiple)), constant_values=-1)


def packed_weights(operands: Array, runs: Array, blocks: Sequence[Block], least: int = 4) -> list[Array]:
    """Return int8 [bytes of all runs / 4][channels][4] of every block, with zeros up to a multiple of `least` bytes.

    operands: (O, taps); runs int64 (segments, run): the tap of each byte of a run, or -1 for none.
    """
    flat = runs.reshape(-1)
    flat = np.concatenate([flat, np.full(-len(flat) % least, -1, np.int64)])
    outputs, taps = operands.shape
    order = np.concatenate([block.order for block in blocks])
    there = order < outputs
    whole = np.zeros((taps + 1, len(order)), np.int8)
    whole[:-1, there] = operands[order[there]].T
    # a row of all channels at a time; the last row is for bytes without a tap
    rows = whole[flat].reshape(len(flat) // 4, 4, -1)
    parts = np.split(rows, np.cumsum([len(block.order) for block in blocks])[:-1], axis=2)
    return [np.ascontiguousarray(part.swapaxes(1, 2)) for part in parts]


def pair_sums(part: Array) -> tuple[int, int]:
    """Return, over all pairs of operands, the least sum of negative operands and the greatest sum of positive ones.

    part: from `packed_weights`; bytes 0 and 1, and bytes 2 and 3, of every four are pairs. With codes from 0 to c, the
    sum of a pair's two products lies between c times the first and c times the second of these.
    """
    pairs = part.reshape(-1, 2).astype(np.int16)
    return int(np.minimum(pairs, 0).sum(1).min()), int(np.maximum(pairs, 0).sum(1).max())


def fits_pairs(sums: tuple[int, int], code: int) -> bool:
    """Return whether the sum of a pair's two products always fits int16, with codes from 0 to `code`.

    sums: from `pair_sums`. A byte without a tap may be above `code`; its operand is 0.
    """
    lowest, highest = sums
    return lowest * code >= -(1 << 15) and highest * code < 1 << 15


def packed_taps(operands: Array, vectors: Array, lanes: int) -> Array:
    """Return int8 [vectors][taps][lanes] of some vectors of channels; operands: (O, taps)."""
    outputs, taps = operands.shape
    whole = np.zeros((-(-outputs // lanes) * lanes, taps), np.int8)
    whole[:outputs] = operands
    return np.ascontiguousarray(whole.reshape(-1, lanes, taps)[vectors].transpose(0, 2, 1))


def packed_depth(operands: Array, blocks: Sequence[Block]) -> list[Array]:
    """Return int8 views of int32 [taps][channels] of every block; operands: (O, taps)."""
    wide = operands.astype(np.int32)
    return [np.ascontiguousarray(_of_lanes(wide, block).T).view(np.int8) for block in blocks]


def packed_quads(operands: Array, blocks: Sequence[Block]) -> list[Array]:
    """Return int8 [quads][channels][4] of every block; operands: (O, taps), zeros for the taps that do not exist."""
    outputs, taps = operands.shape
    whole = np.zeros((outputs, -(-taps // 4), 4), np.int8)
    whole.reshape(outputs, -1)[:, :taps] = operands
    return [np.ascontiguousarray(_of_lanes(whole, block).transpose(1, 0, 2)) for block in blocks]


def packed_parameters(correction: Array, scale: Scaling, blocks: Sequence[Block]) -> Array:
    """Return uint8: PARAMETER_BYTES for every lane of all blocks, vector by vector."""
    rows = []
    for block in blocks:
        c, m, r, s = (
            _of_lanes(values, block).reshape(-1, block.lanes)
            for values in (_wrapped(correction), scale.multiplier, scale.addend, scale.shift)
        )
        rows.append(_joined((c, m, r[:, 0::2], r[:, 1::2], s[:, 0::2], s[:, 1::2]), block.lanes))
    return np.concatenate(rows)


def packed_logits(correction: Array, exponent: int, bias: Array, blocks: Sequence[Block]) -> Array:
    """Return the parameters of logits: correction, exponent and bias int32."""
    aligned = np.full(len(correction), exponent, np.int32)
    rows = []
    for block in blocks:
        parts = [
            _of_lanes(values, block).reshape(-1, block.lanes)
            for values in (_wrapped(correction), aligned, _wrapped(bias))
        ]
        rows.append(_joined(parts, block.lanes))
    return np.concatenate(rows)


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
    """Return uint8: the parts of each vector one after the other, filled with zeros to PARAMETER_BYTES a lane."""
    rows = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in parts]
    joined = np.concatenate(rows, axis=1)
    whole = np.zeros((len(joined), PARAMETER_BYTES * lanes), np.uint8)
    whole[:, : joined.shape[1]] = joined
    return whole.reshape(-1)
