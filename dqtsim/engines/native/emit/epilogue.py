"""The epilogue: from sums to codes, before an inner kernel stores (B2-B5, B7)."""

from typing import Any, assert_never

from llvmlite import ir

from ....spec.rules import Rounding
from ..ir import I8, I16, I32, I64, Emitter, constant, vector
from ..isa.base import PACKED, Isa, Packing
from .requantize import is_folded, rounded_shift
from .tile import KIND, PARAMETER_BYTES, Tile, TileKind


def emit_tile(
    module: Any,
    isa: Isa,
    rounding: Rounding,
    pixels: int,
    vectors: int,
    kind: TileKind = TileKind.CODES,
    lanes: int | None = None,
    *,
    product: str = "",
) -> str:
    """Add a kernel `(input, weights, parameters, table offset, channel, words, limits)` to `module`; return its name.

    input, weights, parameters: addresses for this block of channels. table offset: bytes from the start of each offset
    table to this tile. channel: first channel. words: the CONV record. limits: address of the least and the
    greatest accumulator of every lane so far. LOGITS gives int32 outputs (P << e) + B (B7) instead of codes. DEPTH is
    depthwise: each channel has its own weights, int32, one tap a segment. QUADS is depthwise with dot products: a
    segment is four taps with an offset each, and the vectors may have fewer `lanes` than the instruction set's.
    product: which of the instruction set's dot products; it is the prefix of the kernel's name.
    """
    name = f"{product}{kind}_{pixels}x{vectors}" + ("" if lanes is None else f"x{lanes}")
    e = Emitter(module, name, KIND)
    tile = EpilogueTile(e, isa, rounding, pixels, vectors, lanes or isa.lanes)
    tile.product = product
    tile.multiply_and_accumulate(kind)
    tile.note_extremes()
    tile.keep_sums()
    match kind:
        case TileKind.LOGITS:
            tile.finish_logits()
        case TileKind.CODES | TileKind.DEPTH | TileKind.QUADS:
            tile.finish_codes()
        case _:
            assert_never(kind)
    e.done()
    return name


class EpilogueTile(Tile):
    """A kernel with its epilogue: from sums to stored codes or logits."""

    def __init__(self, e: Emitter, isa: Isa, rounding: Rounding, pixels: int, vectors: int, lanes: int) -> None:
        super().__init__(e, isa, pixels, vectors, lanes)
        self.rounding = rounding

    def finish_codes(self) -> None:
        """Emit the epilogue of codes, with or without the addition of a residual."""
        e, b = self.e, self.e.builder
        plain, add, end = (e.function.append_basic_block(name) for name in ("codes", "add", "end"))
        b.cbranch(b.icmp_signed("==", self.word("residual"), constant(I64, 0)), plain, add)
        b.position_at_end(plain)
        self.store_codes(residual=False)
        b.branch(end)
        b.position_at_end(add)
        self.store_codes(residual=True)
        b.branch(end)
        b.position_at_end(end)

    def splat32(self, name: str) -> Any:
        """Return a field of the record in every int32 lane."""
        return self.e.splat(self.e.builder.trunc(self.word(name), I32), self.count)

    def splat8(self, name: str) -> Any:
        """Return the low byte of a field of the record in every byte of a packed pixel."""
        return self.e.splat(self.e.builder.trunc(self.word(name), I8), 4 * self.count)

    def store_packed(self, packing: Packing, *, residual: bool) -> None:
        """Store the vectors of a pixel as bytes in one store; packing saturates, so the clip is done on bytes."""
        e, b = self.e, self.e.builder
        places = self.places("target", "target_offsets", 1)
        others = self.places("residual", "residual_offsets", 1) if residual else []
        low, high = self.splat8("low"), self.splat8("high")
        zero = None if is_folded(self.rounding) else self.splat32("zero")
        addition = Addition(self, packing) if residual else None
        codes: list[list[Any]] = [[] for _ in range(self.pixels)]
        # all pixels of one vector of channels first: its constants stay in registers, and codes replace sums
        for j in range(PACKED):
            constants = self.load_constants(j)
            for i in range(self.pixels):
                code = self.requantize(self.sums[i][j], constants)
                codes[i].append(code if zero is None else b.add(code, zero))
        for i in range(self.pixels):
            packed = e.least(e.greatest(packing.pack(e, codes[i]), low, signed=False), high, signed=False)
            if addition is not None:
                packed = addition.of(packed, e.load(others[i], packed.type))
            e.store(packed, places[i])

    def store_codes(self, *, residual: bool) -> None:
        """Store the codes uint8 of all pixels, vector by vector, if the instruction set has no packing."""
        if self.packing is not None:
            self.store_packed(self.packing, residual=residual)
            return
        e, b, lanes = self.e, self.e.builder, self.count
        places = self.places("target", "target_offsets", 1)
        others = self.places("residual", "residual_offsets", 1) if residual else []
        low, high = self.splat32("low"), self.splat32("high")
        zero = None if is_folded(self.rounding) else self.splat32("zero")
        sides = {name: self.splat32(name) for name in _ADD} if residual else {}
        for j in range(self.vectors):
            constants = self.load_constants(j)
            for i in range(self.pixels):
                code = self.requantize(self.sums[i][j], constants)
                if zero is not None:
                    code = b.add(code, zero)
                code = e.least(e.greatest(code, low), high)
                if residual:
                    other = e.load(b.add(others[i], constant(I64, lanes * j)), vector(I8, lanes))
                    own = b.mul(code, sides["own_multiplier"])
                    total = b.add(own, b.mul(b.zext(other, self.lanes), sides["other_multiplier"]))
                    code = b.ashr(b.add(total, sides["addend"]), sides["add_shift"])
                    code = e.least(e.greatest(code, sides["add_low"]), sides["add_high"])
                e.store(b.trunc(code, vector(I8, lanes)), b.add(places[i], constant(I64, lanes * j)))

    def load_constants(self, j: int) -> tuple[Any, ...]:
        """Return M, R and S of vector `j`, each for even and for odd lanes."""
        e, b, lanes = self.e, self.e.builder, self.count
        wide = vector(I64, lanes // 2)
        start = b.add(self.parameters, constant(I64, j * PARAMETER_BYTES * lanes + 4 * lanes))
        both = e.load(start, wide, 4)
        rest = [e.load(b.add(start, constant(I64, 4 * lanes * (1 + k))), wide, 4) for k in range(4)]
        return (*self.halves(both), *rest)

    def halves(self, both: Any) -> tuple[Any, Any]:
        """Return the even and the odd int32 lanes of a vector of int64, each with its sign."""
        b = self.e.builder
        half = constant(both.type, 32)
        return b.ashr(b.shl(both, half), half), b.ashr(both, half)

    def requantize(self, total: Any, constants: tuple[Any, ...]) -> Any:
        """Return (total * M + R) / 2^S of int32 lanes, as int32: even and odd lanes are multiplied in 64 bits (B4)."""
        b, lanes = self.e.builder, self.count
        m_even, m_odd, r_even, r_odd, s_even, s_odd = constants
        even, odd = self.halves(b.bitcast(total, vector(I64, lanes // 2)))
        even = self.shift(b.add(b.mul(even, m_even), r_even), s_even)
        odd = self.shift(b.add(b.mul(odd, m_odd), r_odd), s_odd)
        mask = ir.Constant(vector(I32, lanes), [k if k % 2 == 0 else lanes + k - 1 for k in range(lanes)])
        return b.shuffle_vector(b.bitcast(even, self.lanes), b.bitcast(odd, self.lanes), mask)

    def shift(self, value: Any, s: Any) -> Any:
        """Return value / 2^s; for TIES_UP, R contains the half already."""
        if is_folded(self.rounding):
            return self.e.builder.ashr(value, s)
        return rounded_shift(self.e, value, s, self.rounding)

    def finish_logits(self) -> None:
        """Emit the epilogue of logits: (P << e) + B, stored as int32 (B7)."""
        e, b, lanes = self.e, self.e.builder, self.count
        places = self.places("target", "target_offsets", 4)
        for j in range(self.vectors):
            start = b.add(self.parameters, constant(I64, j * PARAMETER_BYTES * lanes + 4 * lanes))
            alignment, bias = (e.load(b.add(start, constant(I64, 4 * lanes * k)), self.lanes, 4) for k in (0, 1))
            for i in range(self.pixels):
                total = b.add(b.shl(self.sums[i][j], alignment), bias)
                self.store_in_order(total, places[i], j)


class Addition:
    """NestedAdd of a pixel's bytes, interleaved with the other tensor's so that one instruction multiplies both (B5).

    A multiplier m has 16 unsigned bits, but the instruction takes signed 16 bits. So it multiplies by ⌊m/2⌋ and by
    ⌈m/2⌉, which are separate fields of the record, and the two sums are added.
    """

    def __init__(self, tile: EpilogueTile, packing: Packing) -> None:
        self.tile, self.packing = tile, packing
        b = tile.e.builder
        own, other = (tile.word(name) for name in ("own_multiplier", "other_multiplier"))
        self.halves = []
        for carry in (0, 1):
            mine, others = (b.lshr(b.add(m, constant(I64, carry)), constant(I64, 1)) for m in (own, other))
            pair = b.or_(b.trunc(mine, I32), b.shl(b.trunc(others, I32), constant(I32, 16)))
            self.halves.append(b.bitcast(tile.e.splat(pair, tile.count), vector(I16, 2 * tile.count)))
        self.addend, self.shift = tile.splat32("addend"), tile.splat32("add_shift")
        self.low, self.high = tile.splat8("add_low"), tile.splat8("add_high")

    def of(self, codes: Any, other: Any) -> Any:
        """Return the bytes of the sum."""
        tile, e, b = self.tile, self.tile.e, self.tile.e.builder
        nothing = constant(codes.type, 0)
        words = [(tile.weave(codes, nothing, 8, k), tile.weave(other, nothing, 8, k)) for k in range(2)]
        totals = []
        for j in range(PACKED):
            pairs = b.bitcast(tile.weave(*words[j // 2], 16, j % 2), vector(I16, 2 * tile.count))
            total = self.addend
            for half in self.halves:
                total = b.add(total, self.packing.multiply_add(e, pairs, half))
            totals.append(b.ashr(total, self.shift))
        return e.least(e.greatest(self.packing.pack(e, totals), self.low, signed=False), self.high, signed=False)


_ADD = ("own_multiplier", "other_multiplier", "addend", "add_shift", "add_low", "add_high")
