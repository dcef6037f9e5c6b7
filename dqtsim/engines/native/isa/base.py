"""The definition of an instruction set: everything that the engine needs of one, without the name of any CPU.

A step of a convolution adds four products to each int32 lane: the lane of `pixels` holds four codes uint8 of one pixel,
the lane of `weights` four operands int8 of one output channel. The sum is exact modulo 2^32; `proofs` shows that
the whole sum fits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..ir import Emitter
from .peak import Peak

Dot = Callable[[Emitter, Any, Any, Any], Any]
Prepare = Callable[[Emitter, Any], Any]
# prefixes of the names of kernels that use another dot product than the usual one
SMALL, AND, XOR = "small_", "and_", "xor_"
# vectors of a block whose codes are packed together
PACKED = 4


def as_they_are(_e: Emitter, lanes: Any) -> Any:
    """Return int32 lanes as they were loaded."""
    return lanes


@dataclass(frozen=True)
class Product:
    """A dot product.

    add: (emitter, accumulators, pixels, weights) -> accumulators. weights, pixels: (emitter, int32 lanes) -> the
    form that `add` takes; that of weights is kept for all pixels of a tile. needs: features of the CPU in addition to
    those of the instruction set.
    """

    add: Dot
    weights: Prepare = as_they_are
    pixels: Prepare = as_they_are
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packing:
    """Vectors of `lanes` int32 whose codes are packed to bytes, PACKED vectors to one.

    pack: (emitter, PACKED vectors) -> their bytes, saturated to 0 .. 255. multiply_add: (emitter, int16 lanes, int16
    lanes) -> int32 lanes, each the sum of the products of two neighbours; a fused addition (B5) uses it. in_turn: the
    number of lanes that `pack` takes from each vector in turn, a multiple of 4; channels are ordered in the vectors so
    that their bytes come out in order.
    """

    lanes: int
    pack: Callable[[Emitter, list[Any]], Any]
    multiply_add: Callable[[Emitter, Any, Any], Any]
    in_turn: int = 4

    def order(self) -> list[int]:
        """Return the channel of a block in each lane of its PACKED vectors."""
        turn = self.in_turn
        return [
            PACKED * turn * (lane // turn) + turn * k + lane % turn for k in range(PACKED) for lane in range(self.lanes)
        ]


@dataclass(frozen=True)
class Quads:
    """A depthwise step of four taps a lane, on vectors of `lanes` whose codes are packed. dot: operands as they are."""

    lanes: int
    dot: Dot


@dataclass(frozen=True)
class Depthwise:
    """Depthwise layers: each channel has its own taps.

    pixels: of a tile. quads: blocks of four taps a step, the widest vectors first, each with a packing of as many
    lanes; the narrowest have four lanes. Without any, a step is one tap, an int32 product.
    """

    pixels: int
    quads: tuple[Quads, ...] = ()


@dataclass(frozen=True)
class Matrices:
    """Registers that hold whole matrices of bytes, and their instructions.

    rows: of a matrix; a row is a pixel, or in weights four taps. depth: bytes of a row. pixels: sizes of tiles, the
    largest first, multiples of `rows`. sums, taps, weights: numbers of the registers of each; there is one register of
    sums for each pair of the others. begin, end: (emitter), before and after a thread uses them. load, store: (emitter,
    register, address, bytes between rows). multiply: (emitter, sums, taps, weights), adds the products of uint8 taps
    and int8 weights to int32 sums.
    """

    rows: int
    depth: int
    pixels: tuple[int, ...]
    sums: tuple[int, ...]
    taps: tuple[int, ...]
    weights: tuple[int, ...]
    begin: Callable[[Emitter], None]
    end: Callable[[Emitter], None]
    load: Callable[[Emitter, int, Any, Any], None]
    store: Callable[[Emitter, int, Any, Any], None]
    multiply: Callable[[Emitter, int, int, int], None]


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    name, says: its name, and its description for users.
    families: other names in DQTSIM_KERNEL, each of which means the first usable one of several instruction sets.
    architecture: the beginning of LLVM's triple for computers that have it; none for all computers.
    needs: alternative sets of CPU features, of which one is enough; none for all CPUs, and then the code is not
    compiled for a particular CPU. asks: features that a process may use only after a request to the system: the
    request. hides: prefixes of features that are switched off for LLVM. attributes: of all functions, for LLVM.
    lanes, registers: int32 in a vector, and vectors that fit the registers.
    dot: the usual dot product. dots: others, faster and for some layers only, by the prefix of their kernels' names.
    SMALL is exact if the products of a lane's bytes 0 and 1, and those of its bytes 2 and 3, have a sum that fits
    int16. AND and XOR are for operands of one bit, 32 in a lane.
    shapes: sums that a tile may keep in registers: for each number of vectors of channels the numbers of pixels, in the
    order in which they are tried; one pixel is always among them.
    packings: vectors whose codes are packed to bytes, the widest first, which have `lanes`; none if it cannot pack.
    matrices: convolutions multiply whole matrices, see `emit/matrix.py`; vectors do the rest.
    ahead: the distance in bytes of prefetches of weights, 0 for no prefetches. pause: (emitter), the pause instruction
    of a waiting core. peak: its widest dot product as `bench` times it.

    Raises ValueError if these do not fit together.
    """

    name: str
    says: str
    lanes: int
    registers: int
    dot: Product
    shapes: Mapping[int, tuple[int, ...]] = field(compare=False)
    depthwise: Depthwise
    peak: Peak
    families: tuple[str, ...] = ()
    architecture: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    asks: Mapping[str, Callable[[], bool]] = field(default_factory=dict, compare=False)
    hides: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False)
    dots: Mapping[str, Product] = field(default_factory=dict, compare=False)
    packings: tuple[Packing, ...] = ()
    matrices: Matrices | None = None
    ahead: int = 0
    pause: Callable[[Emitter], None] | None = None

    def __post_init__(self) -> None:
        """Refuse an instruction set for which no kernels can be emitted."""
        packed = [packing.lanes for packing in self.packings]
        quads = [each.lanes for each in self.depthwise.quads]
        # the sums of a tile, and its weights
        registers = max(vectors * (max(sizes) + 1) for vectors, sizes in self.shapes.items())
        wrong = {
            "lanes are no multiple of 4": self.lanes % 4,
            "not all numbers of vectors up to the greatest have tiles": set(self.shapes)
            ^ {*range(1, len(self.shapes) + 1)},
            "a number of vectors has no tile of one pixel": not all(1 in sizes for sizes in self.shapes.values()),
            # the last block of a layer may have fewer vectors, of the same pixels
            "fewer vectors lack a size of tiles that more have": any(
                set(more) - set(self.shapes.get(count - 1, more)) for count, more in self.shapes.items()
            ),
            f"a tile needs {registers} registers, and there are {self.registers}": registers > self.registers,
            "the widest packing is not of its vectors": packed and packed[0] != self.lanes,
            "a packing parts four channels": any(
                each.in_turn % 4 or each.lanes % each.in_turn for each in self.packings
            ),
            "a depthwise block cannot be packed": not {*quads} <= {*packed},
            "the narrowest depthwise block is not of 4 lanes": quads and quads[-1] != 4,
            "a depthwise block does not divide the one before": any(a % b or a <= b for a, b in pairwise(quads)),
        }
        for what, found in wrong.items():
            if found:
                raise ValueError(f"The parts of an instruction set fit together; in '{self.name}', {what}.")

    @property
    def packs(self) -> bool:
        """Return whether it packs codes to bytes."""
        return bool(self.packings)

    def packing(self, lanes: int, vectors: int) -> Packing | None:
        """Return how a block of so many vectors of `lanes` is packed, None if its vectors are stored one by one."""
        if vectors != PACKED:
            return None
        return next((packing for packing in self.packings if packing.lanes == lanes), None)

    def channel_order(self, lanes: int, vectors: int) -> list[int]:
        """Return the channel of a block in each lane of its vectors."""
        packing = self.packing(lanes, vectors)
        return list(range(lanes * vectors)) if packing is None else packing.order()


def bits_of_both(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are -1 where a bit of `weights` is set, else 0: subtract the number of bits that are set in both."""
    return _less_bits(e, accumulators, e.builder.and_(pixels, weights))


def bits_of_one(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are 1 if a bit of `weights` is set, else -1; accumulators begin with the set bits of all `weights`.

    A product is then w - (u xor w), and a bit that is 0 in both adds nothing.
    """
    return _less_bits(e, accumulators, e.builder.xor(pixels, weights))


def _less_bits(e: Emitter, accumulators: Any, lanes: Any) -> Any:
    return e.builder.sub(accumulators, e.call(f"llvm.ctpop.v{lanes.type.count}i32", lanes.type, lanes))
