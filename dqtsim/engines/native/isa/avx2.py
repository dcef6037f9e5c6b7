"""AVX2: 256 bits, and no instruction that is exact for all products of uint8 and int8."""

from typing import Any

from ..ir import I8, I16, Emitter, constant, vector
from . import x86
from .base import SMALL, Depthwise, Isa, Product
from .peak import of_vectors


def _halves(lanes: Any) -> Any:
    """Return the type of the int16 that int32 lanes consist of."""
    return vector(I16, 2 * lanes.type.count)


def _split_weights(e: Emitter, lanes: Any) -> Any:
    """Two vectors of int16: the operands of even and of odd number."""
    b, halves = e.builder, _halves(lanes)
    both = b.bitcast(lanes, halves)
    eight = constant(halves, 8)
    return b.ashr(b.shl(both, eight), eight), b.ashr(both, eight)


def _split_pixels(e: Emitter, lanes: Any) -> Any:
    b, halves = e.builder, _halves(lanes)
    both = b.bitcast(lanes, halves)
    return b.and_(both, constant(halves, 255)), b.lshr(both, constant(halves, 8))


def _vpmaddwd(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Products of uint8 and int8 need 17 bits in pairs, which is why vpmaddubsw with its 16 is not exact for all."""
    for a, w in zip(pixels, weights, strict=True):
        accumulators = x86.vpmaddwd(e, accumulators, a, w)
    return accumulators


def _vpmaddubsw(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Pairs of products saturate at 16 bits, so they must fit; the product with 1 is what adds two of them."""
    b, halves = e.builder, _halves(accumulators)
    bytes_ = vector(I8, 2 * halves.count)
    pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", halves, b.bitcast(pixels, bytes_), b.bitcast(weights, bytes_))
    return x86.vpmaddwd(e, accumulators, pairs, constant(halves, 1))


def _pairs(e: Emitter, accumulators: Any, factor: Any) -> Any:
    """A + two products of 16-bit halves of a and f: vpmaddwd and vpaddd, the exact dot product of AVX2."""
    operands = [e.builder.bitcast(value, _halves(value)) for value in (accumulators, factor)]
    return x86.vpmaddwd(e, accumulators, *operands)


AVX2 = Isa(
    "avx2",
    "AVX2, two vpmaddwd of 256 bits",
    architecture=x86.ARCHITECTURE,
    needs=(("avx2",),),
    # with these features LLVM would replace the kernel's instructions by others
    hides=("amx", "avx10", "avx512", "avxvnni"),
    lanes=8,
    registers=16,
    dot=Product(_vpmaddwd, _split_weights, _split_pixels),
    dots={SMALL: Product(_vpmaddubsw)},
    shapes={2: (6, 5, 4, 1), 1: (6, 5, 4, 1)},
    depthwise=Depthwise(2),
    pause=x86.pause,
    peak=of_vectors("vpmaddwd of 256 bits", 8, 16, _pairs),
)
