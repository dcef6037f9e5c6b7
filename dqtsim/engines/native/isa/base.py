"""Dot products: what one step of a convolution is on each kind of CPU.

A step adds four products to each int32 lane: the lane of `pixels` holds four codes uint8 of one pixel, the lane of
`weights` four operands int8 of one output channel. The sum is exact modulo 2^32; whoever uses it proves that the whole
sum fits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..ir import I8, I16, I32, Emitter, constant, vector

Dot = Callable[[Emitter, Any, Any, Any], Any]
SMALL, AND, XOR = "small_", "and_", "xor_"
# the feature of CPUs that count the bits of lanes
COUNTS = "avx512vpopcntdq"


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    says: what people are told of it. lanes: int32 in a vector. needs: the CPU's features, all of them.
    dot: (emitter, accumulators, pixels, weights) -> accumulators. weights, pixels: (emitter, int32 lanes) -> what `dot`
    wants of each; that of weights is kept for all pixels of a tile. packs: it has vpdpbusd and instructions that pack
    vectors to bytes, 128 bits of each in turn. ahead: how many bytes ahead weights are asked for, 0 where the caches
    keep up. matrices: convolutions multiply whole matrices, see `matrix.py`; the rest is done as by AVX-512. dots:
    others of lanes as they are, faster and for some layers only, by what the names of their kernels begin with.

    SMALL is exact where the products of a lane's bytes 0 and 1, and those of its bytes 2 and 3, have a sum that fits
    int16. AND and XOR are for operands of one bit, 32 in a lane; a CPU that cannot count bits goes without.
    """

    name: str
    says: str
    lanes: int
    needs: tuple[str, ...]
    dot: Dot
    weights: Callable[[Emitter, Any], Any]
    pixels: Callable[[Emitter, Any], Any]
    packs: bool = False
    ahead: int = 0
    matrices: bool = False
    dots: Mapping[str, Dot] = field(default_factory=dict, compare=False)


def _as_they_are(_e: Emitter, lanes: Any) -> Any:
    return lanes


def _vpdpbusd(bits: int) -> Dot:
    def dot(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
        return e.call(f"llvm.x86.avx512.vpdpbusd.{bits}", accumulators.type, accumulators, pixels, weights)

    return dot


def _split_weights(e: Emitter, lanes: Any) -> Any:
    """Two vectors of int16: the operands of even and of odd number."""
    b, halves = e.builder, vector(I16, 2 * lanes.type.count)
    both = b.bitcast(lanes, halves)
    eight = constant(halves, 8)
    return b.ashr(b.shl(both, eight), eight), b.ashr(both, eight)


def _split_pixels(e: Emitter, lanes: Any) -> Any:
    b, halves = e.builder, vector(I16, 2 * lanes.type.count)
    both = b.bitcast(lanes, halves)
    return b.and_(both, constant(halves, 255)), b.lshr(both, constant(halves, 8))


def _vpmaddwd(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Products of uint8 and int8 need 17 bits in pairs, which is why vpmaddubsw with its 16 is not exact for all."""
    for a, w in zip(pixels, weights, strict=True):
        accumulators = e.builder.add(accumulators, e.call("llvm.x86.avx2.pmadd.wd", accumulators.type, a, w))
    return accumulators


def _vpmaddubsw(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Pairs of products saturate at 16 bits, so they must fit; the product with 1 is what adds two of them."""
    b, count = e.builder, accumulators.type.count
    bytes_, halves = vector(I8, 4 * count), vector(I16, 2 * count)
    pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", halves, b.bitcast(pixels, bytes_), b.bitcast(weights, bytes_))
    return b.add(accumulators, e.call("llvm.x86.avx2.pmadd.wd", accumulators.type, pairs, constant(halves, 1)))


def _bits_of_both(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are -1 where a bit of `weights` is set, else 0: so many less as both have set."""
    return _less_bits(e, accumulators, e.builder.and_(pixels, weights))


def _bits_of_one(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are 1 where a bit of `weights` is set, else -1; accumulators hold how many are set in all `weights`.

    A product is then w - (u xor w), and a bit that is 0 in both adds nothing.
    """
    return _less_bits(e, accumulators, e.builder.xor(pixels, weights))


def _less_bits(e: Emitter, accumulators: Any, lanes: Any) -> Any:
    return e.builder.sub(accumulators, e.call(f"llvm.ctpop.v{lanes.type.count}i32", lanes.type, lanes))


def _fours(e: Emitter, lanes: Any, *, signed: bool) -> tuple[Any, ...]:
    """Return four vectors of int32, one per byte."""
    b, kind = e.builder, lanes.type
    shift = b.ashr if signed else b.lshr
    top = constant(kind, 24)
    return tuple(shift(b.shl(lanes, constant(kind, 24 - 8 * i)), top) for i in range(4))


def _four_products(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    for a, w in zip(pixels, weights, strict=True):
        accumulators = e.builder.add(accumulators, e.builder.mul(a, w))
    return accumulators


_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
ISAS = (
    Isa(
        "amx",
        "AMX, tdpbusd of 16 x 16 x 64, and AVX-512 VNNI",
        16,
        (*_AVX512, "amx-tile", "amx-int8"),
        _vpdpbusd(512),
        _as_they_are,
        _as_they_are,
        packs=True,
        matrices=True,
    ),
    Isa(
        "vnni512",
        "AVX-512 VNNI, vpdpbusd of 512 bits",
        16,
        _AVX512,
        _vpdpbusd(512),
        _as_they_are,
        _as_they_are,
        packs=True,
        # four steps of the widest tile: a core that starts two instructions a cycle needs 21 bytes of weights in each
        ahead=1024,
        dots={AND: _bits_of_both, XOR: _bits_of_one},
    ),
    Isa(
        "vnni256",
        "AVX-VNNI, vpdpbusd of 256 bits",
        8,
        ("avx2", "avxvnni"),
        _vpdpbusd(256),
        _as_they_are,
        _as_they_are,
        packs=True,
    ),
    Isa(
        "avx2",
        "AVX2, two vpmaddwd of 256 bits",
        8,
        ("avx2",),
        _vpmaddwd,
        _split_weights,
        _split_pixels,
        dots={SMALL: _vpmaddubsw},
    ),
    Isa(
        "portable",
        "32-bit products, four lanes, no particular CPU",
        4,
        (),
        _four_products,
        lambda e, lanes: _fours(e, lanes, signed=True),
        lambda e, lanes: _fours(e, lanes, signed=False),
    ),
)

__all__ = ["AND", "COUNTS", "I8", "I32", "ISAS", "SMALL", "XOR", "Isa"]
