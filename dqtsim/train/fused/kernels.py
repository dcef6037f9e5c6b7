"""Single passes over bfloat16 tensors, compiled by Numba.

NumPy has no bfloat16, so arrays hold its bits as uint16: the upper half of a float32. Arithmetic is in float32, rounded
to bfloat16 wherever PyTorch's chain of operations rounds, so that results are the same bits.

Arrays are flat, channels innermost. Constants per channel come as a *tile*: repeated until it is long enough for
vectors. An array's length is a multiple of the channels, and tiles begin with channel 0. Every kernel works on blocks
`first` to `last` - 1 and sums within a block, so that results do not depend on the number of threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core.extending import intrinsic

Bits = npt.NDArray[np.uint16]
Reals = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Real = np.float32
F = TypeVar("F", bound=Callable[..., object])

# Elements of a block without channels, and tiles of a block with channels; a float32 sum has at most that many terms
# before it continues in float64.
BLOCK = 1 << 15
TILES = 64

_HALF, _WORD, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
_ZERO = np.float32(0)


def kernel(function: F) -> F:
    """Compile `function` on first use, without the GIL; no arithmetic is reordered."""
    return cast(F, njit(cache=True, nogil=True)(function))


def _instructions(build: Callable[[Any, Any], Any], result: Any, argument: Any) -> Callable[..., Any]:
    """An inlined function made of LLVM's instructions: Numba has no bitcasts that vectorise."""

    def typed(context: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
        return result(argument), lambda context, builder, signature, arguments: build(builder, arguments[0])

    return cast(Callable[..., Any], intrinsic(typed))


def _upper(builder: Any, word: Any) -> Any:
    return builder.trunc(builder.lshr(word, ir.Constant(_WORD, 16)), _HALF)


def _nearest(builder: Any, value: Any) -> Any:
    word = builder.bitcast(value, _WORD)
    odd = builder.and_(builder.lshr(word, ir.Constant(_WORD, 16)), ir.Constant(_WORD, 1))
    return _upper(builder, builder.add(builder.add(word, ir.Constant(_WORD, 0x7FFF)), odd))


def _extended(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(bits, _WORD), ir.Constant(_WORD, 16)), _FLOAT)


# The float32 of bfloat16 bits; the bits of a float32 that is a bfloat16; those of the nearest bfloat16, ties to even.
_wide = _instructions(_extended, types.float32, types.uint16)
_cut = _instructions(lambda builder, value: _upper(builder, builder.bitcast(value, _WORD)), types.uint16, types.float32)
_round = _instructions(_nearest, types.uint16, types.float32)


def widened(bits: Bits) -> Reals:
    """The float32 of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@kernel
def _code(value: Real, high: Real) -> np.uint16:
    """A code's bits from a value in code units: ties to even, clipped to 0 to `high`; NaN stays NaN."""
    value = _ZERO if value < _ZERO else value
    value = high if value > high else value
    code: np.uint16 = _cut(np.rint(value))
    return code


@kernel
def _inside(grad: np.uint16, code: np.uint16, high: np.uint16) -> Real:
    """A gradient where a code is strictly between its clips, else 0; bits of numbers >= 0 compare as the numbers do."""
    value: Real = _wide(grad) if (code > 0) & (code < high) else _ZERO
    return value


@kernel
def _by_channel(one: Reals, two: Reals, sums: Sums) -> None:
    """Add two tiles to sums [2, C]."""
    channels = sums.shape[1]
    for begin in range(0, len(one), channels):
        for c in range(channels):
            sums[0, c] += one[begin + c]
            sums[1, c] += two[begin + c]


@kernel
def nest(
    first: int, last: int, codes: Bits, out: Bits, half: Real, scale: Real, top: Real, zero: Real, unit: Real
) -> None:
    """A1-A5: (min(floor((codes + half) * scale), top) - zero) * unit."""
    for block in range(first, last):
        source, target = codes[block * BLOCK : (block + 1) * BLOCK], out[block * BLOCK : (block + 1) * BLOCK]
        for j in range(len(source)):
            value = np.floor(_wide(_round(_wide(source[j]) + half)) * scale)
            value = top if value > top else value
            target[j] = _cut((value - zero) * unit)


@kernel
def moments(first: int, last: int, x: Bits, shift: Reals, sums: Sums) -> None:
    """Sums [blocks, 2, C] of x - shift and of its square; `shift` is a tile near the mean."""
    tile = len(shift)
    one, two = np.empty_like(shift), np.empty_like(shift)
    for block in range(first, last):
        one[:] = _ZERO
        two[:] = _ZERO
        rows = x[block * TILES * tile : (block + 1) * TILES * tile]
        for start in range(0, len(rows), tile):
            row = rows[start : start + tile]
            for j in range(len(row)):
                value = _wide(row[j]) - shift[j]
                one[j] += value
                two[j] += value * value
        _by_channel(one, two, sums[block])


@kernel
def normalise(first: int, last: int, x: Bits, slope: Reals, start: Reals, high: Real, out: Bits) -> None:
    """Codes of x * slope + start; two tiles."""
    tile = len(slope)
    for begin in range(first * TILES * tile, min(last * TILES * tile, len(x)), tile):
        row, target = x[begin : begin + tile], out[begin : begin + tile]
        for j in range(len(row)):
            target[j] = _code(_wide(_round(_wide(row[j]) * slope[j] + start[j])), high)


@kernel
def _through(grad: np.uint16, value: Real, bottom: Real, top: Real) -> Real:
    """A gradient where `value` is from `bottom` to less than `top`, else 0."""
    through: Real = _wide(grad) if (value >= bottom) & (value < top) else _ZERO
    return through


@kernel
def masked_moments(
    first: int, last: int, grad: Bits, x: Bits, slope: Reals, start: Reals, bottom: Real, top: Real, mean: Reals,
    sums: Sums,
) -> None:  # fmt: skip
    """Sums [blocks, 2, C] of g and of g * (x - mean); `slope`, `start` and `mean` are tiles.

    g is the gradient of a code if the code lies between its clips, else 0; the clips are where x * slope + start is
    `bottom` and `top`. Computing this again is faster than reading the codes.
    """
    tile = len(mean)
    one, two = np.empty_like(mean), np.empty_like(mean)
    for block in range(first, last):
        one[:] = _ZERO
        two[:] = _ZERO
        for begin in range(block * TILES * tile, min((block + 1) * TILES * tile, len(x)), tile):
            row, row_grad = x[begin : begin + tile], grad[begin : begin + tile]
            for j in range(len(row)):
                here = _wide(row[j])
                value = _through(row_grad[j], here * slope[j] + start[j], bottom, top)
                one[j] += value
                two[j] += value * (here - mean[j])
        _by_channel(one, two, sums[block])


@kernel
def normalise_backward(
    first: int, last: int, grad: Bits, x: Bits, slope: Reals, start: Reals, bottom: Real, top: Real, tilt: Reals,
    lift: Reals, out: Bits,
) -> None:  # fmt: skip
    """Write g * slope + x * tilt + lift, with g as above; two more tiles."""
    tile = len(slope)
    for begin in range(first * TILES * tile, min(last * TILES * tile, len(x)), tile):
        row, row_grad, target = x[begin : begin + tile], grad[begin : begin + tile], out[begin : begin + tile]
        for j in range(len(row)):
            here = _wide(row[j])
            value = _through(row_grad[j], here * slope[j] + start[j], bottom, top)
            target[j] = _round(value * slope[j] + here * tilt[j] + lift[j])


@kernel
def add(
    first: int, last: int, a: Bits, b: Bits, ratio_a: Real, ratio_b: Real, offset: Real, high: Real, out: Bits
) -> None:
    """Codes of ratio_a * a + ratio_b * b - offset."""
    for block in range(first, last):
        one, two = a[block * BLOCK : (block + 1) * BLOCK], b[block * BLOCK : (block + 1) * BLOCK]
        target = out[block * BLOCK : (block + 1) * BLOCK]
        for j in range(len(one)):
            value = _wide(_round(_wide(one[j]) * ratio_a)) + _wide(two[j]) * ratio_b
            target[j] = _code(_wide(_round(_wide(_round(value)) - offset)), high)


@kernel
def add_backward(
    first: int, last: int, grad: Bits, codes: Bits, a: Bits, b: Bits, ratio_a: Real, ratio_b: Real, high: np.uint16,
    to_a: Bits, to_b: Bits, sums: Sums,
) -> None:  # fmt: skip
    """The gradients of a and b for `grad`, and sums [blocks, 3] of it, of its product with a, and of that with b."""
    tile = BLOCK // TILES
    parts = np.empty((3, tile), np.float32)
    total, with_a, with_b = parts
    for block in range(first, last):
        parts[:] = _ZERO
        for begin in range(block * BLOCK, min((block + 1) * BLOCK, len(a)), tile):
            row_grad, row_codes = grad[begin : begin + tile], codes[begin : begin + tile]
            one, two = a[begin : begin + tile], b[begin : begin + tile]
            to_one, to_two = to_a[begin : begin + tile], to_b[begin : begin + tile]
            for j in range(len(one)):
                value = _inside(row_grad[j], row_codes[j], high)
                total[j] += value
                with_a[j] += value * _wide(one[j])
                with_b[j] += value * _wide(two[j])
                to_one[j] = _round(value * ratio_a)
                to_two[j] = _round(value * ratio_b)
        for i in range(3):
            for j in range(tile):
                sums[block, i] += parts[i, j]


@kernel
def affine(first: int, last: int, x: Bits, slope: Reals, start: Reals, high: Real, out: Bits) -> None:
    """Codes of x * slope + start, each operation rounded; two tiles."""
    tile = len(slope)
    for begin in range(first * TILES * tile, min(last * TILES * tile, len(x)), tile):
        row, target = x[begin : begin + tile], out[begin : begin + tile]
        for j in range(len(row)):
            target[j] = _code(_wide(_round(_wide(_round(_wide(row[j]) * slope[j])) + start[j])), high)


@kernel
def affine_backward(
    first: int, last: int, grad: Bits, index: Places, codes: Bits, x: Bits, slope: Reals, high: np.uint16, out: Bits,
    sums: Sums,
) -> None:  # fmt: skip
    """The gradient of x for the gradient of codes, and sums [pictures, 2, C] of that gradient times x, and of itself.

    `grad` covers all pictures; `index` says which of them `codes`, `x` and `out` hold. Blocks are pictures.
    """
    tile, size = len(slope), len(x) // max(1, len(index))
    one, two = np.empty_like(slope), np.empty_like(slope)
    for block in range(first, last):
        one[:] = _ZERO
        two[:] = _ZERO
        whole = grad[index[block] * size : (index[block] + 1) * size]
        for begin in range(0, size, tile):
            end = min(begin + tile, size)
            row_grad, row_codes = whole[begin:end], codes[block * size + begin : block * size + end]
            row, target = x[block * size + begin : block * size + end], out[block * size + begin : block * size + end]
            for j in range(len(row)):
                value = _inside(row_grad[j], row_codes[j], high)
                one[j] += value * _wide(row[j])
                two[j] += value
                target[j] = _round(value * slope[j])
        _by_channel(one, two, sums[block])


@kernel
def differences(first: int, last: int, grad: Bits, branch: Bits, chosen: Bits, sums: Sums) -> None:
    """Sums [pictures] of grad * (branch - chosen); blocks are pictures."""
    size = len(grad) // len(sums)
    parts = np.empty(min(size, TILES), np.float32)
    for block in range(first, last):
        parts[:] = _ZERO
        for begin in range(block * size, (block + 1) * size, TILES):
            end = min(begin + TILES, (block + 1) * size)
            row, one, two = grad[begin:end], branch[begin:end], chosen[begin:end]
            for j in range(len(row)):
                parts[j] += _wide(_round(_wide(row[j]) * (_wide(one[j]) - _wide(two[j]))))
        for j in range(len(parts)):
            sums[block] += parts[j]
