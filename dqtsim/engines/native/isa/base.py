"""What an instruction set is: all that the engine asks of one, with no CPU's name in it.

A step of a convolution adds four products to each int32 lane: the lane of `pixels` holds four codes uint8 of one pixel,
the lane of `weights` four operands int8 of one output channel. The sum is exact modulo 2^32; whoever uses it proves
that the whole sum fits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..ir import Emitter
from .peak import Peak

Dot = Callable[[Emitter, Any, Any, Any], Any]
Prepare = Callable[[Emitter, Any], Any]
# what the names of kernels begin with that multiply by another dot product than the usual one
SMALL, AND, XOR = "small_", "and_", "xor_"
# vectors of a block whose codes are packed together
PACKED = 4


def as_they_are(_e: Emitter, lanes: Any) -> Any:
    """Return int32 lanes as they were loaded."""
    return lanes


@dataclass(frozen=True)
class Product:
    """A dot product.

    add: (emitter, accumulators, pixels, weights) -> accumulators. weights, pixels: (emitter, int32 lanes) -> what `add`
    wants of each; that of weights is kept for all pixels of a tile. needs: features of the CPU beside those of the
    instruction set.
    """

    add: Dot
    weights: Prepare = as_they_are
    pixels: Prepare = as_they_are
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packing:
    """Vectors of `lanes` int32 whose codes are packed to bytes, PACKED vectors to one.

    pack: (emitter, PACKED vectors) -> their bytes, numbers below 0 as 0, above 255 as 255. multiply_add: (emitter,
    int16 lanes, int16 lanes) -> int32 lanes, each the sum of the products of two neighbours; what a fused addition
    (B5) is made of. in_turn: how many lanes `pack` takes of each vector in turn, a multiple of 4; channels lie in the
    vectors so that their bytes are in order.
    """

    lanes: int
    pack: Callable[[Emitter, list[Any]], Any]
    multiply_add: Callable[[Emitter, Any, Any], Any]
    in_turn: int = 4

    def order(self) -> list[int]:
        """Return which channel of a block each lane of its PACKED vectors holds."""
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
    """Layers whose channels each have taps of their own.

    pixels: of a tile. quads: blocks of four taps a step, the widest vectors first, each with a packing of as many
    lanes; the narrowest have four lanes. Without any, a step is one tap, an int32 product.
    """

    pixels: int
    quads: tuple[Quads, ...] = ()


@dataclass(frozen=True)
class Matrices:
    """Registers that hold whole matrices of bytes, and what multiplies them.

    rows: of a matrix, which are pixels, or of weights every four taps. depth: bytes of a row. pixels: sizes of tiles,
    the largest first, multiples of `rows`. sums, taps, weights: numbers of the registers of each; there are as many
    sums as pairs of the others. begin, end: (emitter), around all that a thread does with them. load, store: (emitter,
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

    name, says: what people call it, and what they are told of it. families: other names in DQTSIM_KERNEL that mean the
    first of several.
    architecture: what LLVM calls the computers that have it, by what a triple begins with; none for all computers.
    needs: features of the CPU, alternatives of which one is enough; none for all CPUs, for none of which in particular
    it is then compiled. asks: features that the system lets a process use only when it asks: how to ask.
    hides: features that LLVM is not told of, by what their names begin with. attributes: of all functions, for LLVM.
    lanes, registers: int32 in a vector, and vectors that fit the registers.
    dot: the usual dot product. dots: others, faster and for some layers only, by what the names of their kernels begin
    with. SMALL is exact where the products of a lane's bytes 0 and 1, and those of its bytes 2 and 3, have a sum that
    fits int16. AND and XOR are for operands of one bit, 32 in a lane.
    shapes: sums that a tile may keep in registers: for each number of vectors of channels, how many pixels, the sizes
    that are tried first before the others; one pixel is always among them.
    packings: vectors whose codes are packed to bytes, the widest first, which have `lanes`; none if it cannot pack.
    matrices: convolutions multiply whole matrices, see `emit/matrix.py`; the rest is done by vectors.
    ahead: how many bytes ahead weights are asked for, 0 where the caches keep up. pause: (emitter), what a waiting
    core is told. peak: its widest dot product as `bench` times it.

    Raises ValueError where these do not fit together.
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
        """Refuse what no kernels can be made of."""
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
        """Return how a block of so many vectors of `lanes` is packed, None where its vectors are stored one by one."""
        if vectors != PACKED:
            return None
        return next((packing for packing in self.packings if packing.lanes == lanes), None)

    def channel_order(self, lanes: int, vectors: int) -> list[int]:
        """Return which channel of a block each lane of its vectors holds."""
        packing = self.packing(lanes, vectors)
        return list(range(lanes * vectors)) if packing is None else packing.order()


def bits_of_both(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are -1 where a bit of `weights` is set, else 0: subtract the number of bits that are set in both."""
    return _less_bits(e, accumulators, e.builder.and_(pixels, weights))


def bits_of_one(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Operands are 1 where a bit of `weights` is set, else -1; accumulators hold how many are set in all `weights`.

    A product is then w - (u xor w), and a bit that is 0 in both adds nothing.
    """
    return _less_bits(e, accumulators, e.builder.xor(pixels, weights))


def _less_bits(e: Emitter, accumulators: Any, lanes: Any) -> Any:
    return e.builder.sub(accumulators, e.call(f"llvm.ctpop.v{lanes.type.count}i32", lanes.type, lanes))
