"""VNNI: vpdpbusd multiplies bytes and adds four products to each lane, exactly. Of 512 bits, and of 256."""

from typing import Any

from ..ir import I8, I16, I32, Emitter, vector
from . import x86
from .base import AND, XOR, Depthwise, Dot, Isa, Packing, Product, Quads, bits_of_both, bits_of_one
from .peak import Peak, of_vectors

AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
# the feature of CPUs that count the bits of lanes
COUNTS = "avx512vpopcntdq"


def _vpdpbusd(bits: int) -> Dot:
    def dot(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
        return e.call(f"llvm.x86.avx512.vpdpbusd.{bits}", accumulators.type, accumulators, pixels, weights)

    return dot


def _packing(lanes: int, to_words: str, to_bytes: str, multiply_add: str) -> Packing:
    """Return the packing of instructions that take 128 bits of each vector in turn."""

    def pack(e: Emitter, codes: list[Any]) -> Any:
        """Saturate to int16 and then to uint8."""
        words = [e.call(to_words, vector(I16, 2 * lanes), codes[k], codes[k + 1]) for k in (0, 2)]
        return e.call(to_bytes, vector(I8, 4 * lanes), *words)

    def products(e: Emitter, one: Any, other: Any) -> Any:
        return e.call(multiply_add, vector(I32, lanes), one, other)

    return Packing(lanes, pack, products)


def _peak(bits: int) -> Peak:
    """A + four products of the bytes of a, unsigned, and of f, signed."""
    dot = _vpdpbusd(bits)
    name = f"vpdpbusd of {bits} bits"
    return of_vectors(name, bits // 32, bits // 8, lambda e, sums, factor: dot(e, sums, sums, factor))


_PACKINGS = (
    _packing(16, "llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512", "llvm.x86.avx512.pmaddw.d.512"),
    _packing(8, "llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb", "llvm.x86.avx2.pmadd.wd"),
    _packing(4, "llvm.x86.sse2.packssdw.128", "llvm.x86.sse2.packuswb.128", "llvm.x86.sse2.pmadd.wd"),
)
_QUADS = tuple(Quads(packing.lanes, _vpdpbusd(32 * packing.lanes)) for packing in _PACKINGS)

VNNI512 = Isa(
    "vnni512",
    "AVX-512 VNNI, vpdpbusd of 512 bits",
    families=("vnni",),
    architecture=x86.ARCHITECTURE,
    needs=(AVX512,),
    # LLVM splits vectors of 512 bits for CPUs that it expects to be faster with 256
    attributes={"prefer-vector-width": "512", "min-legal-vector-width": "512"},
    lanes=16,
    registers=32,
    dot=Product(_vpdpbusd(512)),
    dots={AND: Product(bits_of_both, needs=(COUNTS,)), XOR: Product(bits_of_one, needs=(COUNTS,))},
    shapes={4: (6, 5, 1), 3: (8, 6, 5, 1), 2: (8, 6, 5, 1), 1: (8, 6, 5, 1)},
    depthwise=Depthwise(4, _QUADS),
    packings=_PACKINGS,
    # four steps of the widest tile: a core that starts two instructions a cycle needs 21 bytes of weights in each
    ahead=1024,
    pause=x86.pause,
    peak=_peak(512),
)

VNNI256 = Isa(
    "vnni256",
    "AVX-VNNI, vpdpbusd of 256 bits",
    families=("vnni",),
    architecture=x86.ARCHITECTURE,
    # AVX-512 VNNI with VL has the same vpdpbusd of 256 bits that AVX-VNNI has
    needs=(("avx2", "avxvnni"), ("avx2", "avx512vl", "avx512vnni")),
    lanes=8,
    registers=16,
    dot=Product(_vpdpbusd(256)),
    shapes={2: (6, 5, 4, 1), 1: (6, 5, 4, 1)},
    depthwise=Depthwise(2, _QUADS[1:]),
    packings=_PACKINGS[1:],
    pause=x86.pause,
    peak=_peak(256),
)
