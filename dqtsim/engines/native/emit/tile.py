"""The inner kernel of convolution: MR pixels times NV vectors of output channels, sums in registers (B1).

    P = corr + sum over taps of w * u,  corr = -zeta * sum of w     one int32 lane per output channel
    y = clamp((P * M + R) >> S, low, high)                          64-bit products of even and of odd lanes

`u` are nested codes uint8 with operand u - zeta, `w` operands int8. M is the multiplier times 2^e, the alignment; R is
bias * multiplier, plus rounding and output zero point if these can be added before the shift (TIES_UP, FLOOR). With a
residual, NestedAdd is applied to the code y before it is stored. Constants of a vector of channels, PARAMETER_BYTES
per lane: corr and M int32, R of even lanes, R of odd lanes, S of even lanes, S of odd lanes int64.

`proofs`, which makes the tables, proves that no sum exceeds 32 bits, no product 64, and no shifted product 32.
"""

from enum import StrEnum
from typing import Any, assert_never

from llvmlite import ir

from ..ir import I8, I32, I64, Emitter, Record, constant, vector
from ..isa.base import PACKED, Isa
from .choice import CHOICE

# corr, M: 4 bytes each; R, S: 8 bytes each
PARAMETER_BYTES = 24

CONV = Record(
    *CHOICE,
    "variants",  # address of VARIANT records
    "direct",  # address of the first tap of output pixel (0, 0) in the input's own buffer
    "nested",  # the same in the buffer of nested codes
    "offsets",  # address of int64 per pixel, repeated to whole tiles: first tap
    "tiles",
    "pixels",  # of a tile
    "block_count",
    "segments",  # address of int64: where each contiguous run of taps begins
    "segment_count",
    "run",  # bytes of a run, a multiple of 4
    "target",
    "target_offsets",
    "sums",  # address of int32 accumulators, or 0
    "sums_offsets",
    "flags",  # address of two int32: least and greatest accumulator
    "zero",  # output zero point, unless it is in R
    "low",
    "high",
    "group",  # number of tiles that use a block of weights while it is in the cache
    "by_blocks",  # chunks split blocks of channels, not tiles
    "matrices",  # how matrices find their taps, see `matrix.py`
    "panel",  # address of the panels, if taps are gathered
    "row_bytes",  # from a pixel of a matrix to the next
    "steps",  # matrices that hold one pixel's taps
    "step_offsets",  # address of int64: where each begins
    "residual",  # address, or 0
    "residual_offsets",
    "own_multiplier",
    "other_multiplier",
    "addend",  # zero points, rounding and output zero point of the addition
    "add_shift",
    "add_low",
    "add_high",
)
# "blocks": address of BLOCK records
VARIANT = ("direct", "weights", "parameters", "blocks")
BLOCK = ("function", "weights", "parameters", "input", "channel")

KIND = ir.FunctionType(ir.VoidType(), [I64] * 7)


class TileKind(StrEnum):
    """What a kernel does with its sums, or how it computes them; values are the prefixes of kernels' names."""

    CODES = "tile"
    LOGITS = "logits"
    DEPTH = "depth"
    QUADS = "quads"

    @property
    def depthwise(self) -> bool:
        """Return whether every channel has its own taps; a segment is then one tap, or four."""
        match self:
            case TileKind.CODES | TileKind.LOGITS:
                return False
            case TileKind.DEPTH | TileKind.QUADS:
                return True
            case _:
                assert_never(self)


CODES, LOGITS, DEPTH, QUADS = TileKind


class Tile:
    """A kernel while it is emitted: its arguments, and later the sums of each pixel and vector."""

    def __init__(self, e: Emitter, isa: Isa, pixels: int, vectors: int, lanes: int) -> None:
        self.e, self.isa = e, isa
        # which of the dot products of `isa`, "" for the usual one
        self.product = ""
        self.pixels, self.vectors, self.count = pixels, vectors, lanes
        # how its codes are packed, or None
        self.packing = isa.packing(lanes, vectors)
        self.lanes = vector(I32, lanes)
        self.input, self.weights, self.parameters, self.table, self.channel, self.words, self.limits = e.arguments
        self.sums: list[list[Any]] = []

    def word(self, name: str) -> Any:
        return self.e.word(CONV, self.words, name)

    def places(self, base: str, table: str, scale: int) -> list[Any]:
        """Return the address of the first channel of every pixel; a channel is `scale` bytes."""
        e, b = self.e, self.e.builder
        start = b.add(self.word(base), b.mul(self.channel, constant(I64, scale)))
        offsets = b.add(self.word(table), self.table)
        return [b.add(start, e.load(b.add(offsets, constant(I64, 8 * i)), I64, 8)) for i in range(self.pixels)]

    def multiply_and_accumulate(self, kind: TileKind) -> None:
        """Emit the loops over segments and over the steps of a run, and leave the sums in registers."""
        e, b = self.e, self.e.builder
        offsets = b.add(self.word("offsets"), self.table)
        pixels = [b.add(self.input, e.load(b.add(offsets, constant(I64, 8 * i)), I64, 8)) for i in range(self.pixels)]
        per_vector = PARAMETER_BYTES * self.count
        first = [
            e.load(b.add(self.parameters, constant(I64, j * per_vector)), self.lanes, 4) for j in range(self.vectors)
        ]
        segments, count = self.word("segments"), self.word("segment_count")
        run = constant(I64, 1) if kind.depthwise else self.word("run")
        before = b.block
        outer, inner, after, done = (e.function.append_basic_block(n) for n in ("segment", "step", "next", "sums"))
        b.branch(outer)

        b.position_at_end(outer)
        number, weights = b.phi(I64), b.phi(I64)
        carried = self.phis()
        number.add_incoming(constant(I64, 0), before)
        weights.add_incoming(self.weights, before)
        begin = self.begin_of(kind, segments, number)
        end = b.add(begin, run)
        b.branch(inner)

        b.position_at_end(inner)
        at, w_at = b.phi(I64), b.phi(I64)
        sums = self.phis()
        at.add_incoming(begin, outer)
        w_at.add_incoming(weights, outer)
        added = self.step_of(kind, sums, pixels, at, w_at)
        following = b.add(at, constant(I64, 4))
        w_following = b.add(w_at, constant(I64, 4 * self.count * self.vectors))
        at.add_incoming(following, inner)
        w_at.add_incoming(w_following, inner)
        b.cbranch(b.icmp_signed("<", following, end), inner, after)

        b.position_at_end(after)
        next_number = b.add(number, constant(I64, 1))
        number.add_incoming(next_number, after)
        weights.add_incoming(w_following, after)
        for i in range(self.pixels):
            for j in range(self.vectors):
                carried[i][j].add_incoming(first[j], before)
                carried[i][j].add_incoming(added[i][j], after)
                sums[i][j].add_incoming(carried[i][j], outer)
                sums[i][j].add_incoming(added[i][j], inner)
        b.cbranch(b.icmp_signed("<", next_number, count), outer, done)
        b.position_at_end(done)
        self.sums = added

    def begin_of(self, kind: TileKind, segments: Any, number: Any) -> Any:
        """Return the beginning of a segment: its offset from the first tap, or for QUADS its table of four offsets."""
        e, b = self.e, self.e.builder
        match kind:
            case TileKind.QUADS:
                return b.add(segments, b.mul(number, constant(I64, 4 * 8)))
            case TileKind.CODES | TileKind.LOGITS | TileKind.DEPTH:
                return e.load(b.add(segments, b.mul(number, constant(I64, 8))), I64, 8)
            case _:
                assert_never(kind)

    def step_of(self, kind: TileKind, sums: list[list[Any]], pixels: list[Any], at: Any, weights: Any) -> Any:
        """Return the sums after one step of a segment; `at` is the result of `begin_of`."""
        b = self.e.builder
        match kind:
            case TileKind.CODES | TileKind.LOGITS:
                return self.step(sums, [b.add(pixel, at) for pixel in pixels], weights)
            case TileKind.DEPTH:
                return self.step_of_depth(sums, [b.add(pixel, at) for pixel in pixels], weights)
            case TileKind.QUADS:
                return self.step_of_quads(sums, pixels, at, weights)
            case _:
                assert_never(kind)

    def phis(self) -> list[list[Any]]:
        """Return accumulators of the whole tile, not yet defined."""
        return [[self.e.builder.phi(self.lanes) for _ in range(self.vectors)] for _ in range(self.pixels)]

    def step(self, sums: list[list[Any]], taps: list[Any], weights: Any) -> list[list[Any]]:
        """Return the sums after four taps of every pixel."""
        e, b, isa = self.e, self.e.builder, self.isa
        size = 4 * isa.lanes
        loaded = [e.load(b.add(weights, constant(I64, j * size)), self.lanes, size) for j in range(self.vectors)]
        product = isa.dots[self.product] if self.product else isa.dot
        operands = [product.weights(e, lanes) for lanes in loaded]
        if isa.ahead:
            # prefetch each cache line once, early enough for its step; past the end this has no effect
            for j in range(self.vectors):
                e.prefetch(b.add(weights, constant(I64, isa.ahead + j * size)))
        added = []
        for i in range(self.pixels):
            four = e.splat(e.load(taps[i], I32), isa.lanes)
            codes = product.pixels(e, four)
            added.append([product.add(e, sums[i][j], codes, operands[j]) for j in range(self.vectors)])
        return added

    def step_of_depth(self, sums: list[list[Any]], taps: list[Any], weights: Any) -> list[list[Any]]:
        """Return the sums after one tap of every pixel, each channel with its own weight."""
        e, b, lanes = self.e, self.e.builder, self.isa.lanes
        size = 4 * lanes
        own = [e.load(b.add(weights, constant(I64, j * size)), self.lanes, size) for j in range(self.vectors)]
        added = []
        for i in range(self.pixels):
            row = []
            for j in range(self.vectors):
                codes = e.load(b.add(taps[i], constant(I64, lanes * j)), vector(I8, lanes))
                row.append(b.add(sums[i][j], b.mul(b.zext(codes, self.lanes), own[j])))
            added.append(row)
        return added

    def step_of_quads(self, sums: list[list[Any]], pixels: list[Any], taps: Any, weights: Any) -> list[list[Any]]:
        """Return the sums after four taps of every pixel, each channel with its own weights.

        Bytes of four taps are interleaved so that each lane has the four of one channel, in the order of the packing.
        """
        e, b, size = self.e, self.e.builder, 4 * self.count
        offsets = [e.load(b.add(taps, constant(I64, 8 * t)), I64, 8) for t in range(4)]
        own = [e.load(b.add(weights, constant(I64, j * size)), self.lanes, size) for j in range(PACKED)]
        dot = next(each.dot for each in self.isa.depthwise.quads if each.lanes == self.count)
        added = []
        for i in range(self.pixels):
            first, second, third, fourth = (e.load(b.add(pixels[i], at), vector(I8, size)) for at in offsets)
            pairs = [(self.weave(first, second, 8, k), self.weave(third, fourth, 8, k)) for k in range(2)]
            fours = [self.weave(*pairs[j // 2], 16, j % 2) for j in range(PACKED)]
            added.append([dot(e, sums[i][j], fours[j], own[j]) for j in range(PACKED)])
        return added

    def weave(self, a: Any, other: Any, bits: int, half: int) -> Any:
        """Return elements of `bits` bits of a and other, interleaved: one half of each group that the packing takes."""
        b = self.e.builder
        assert self.packing is not None
        each = 32 * self.packing.in_turn // bits
        kind = vector(ir.IntType(bits), 32 * self.count // bits)
        order = []
        for start in range(0, kind.count, each):
            for k in range(each // 2):
                at = start + half * (each // 2) + k
                order += [at, kind.count + at]
        mask = ir.Constant(vector(I32, kind.count), order)
        woven = b.shuffle_vector(b.bitcast(a, kind), b.bitcast(other, kind), mask)
        return b.bitcast(woven, self.lanes)

    def note_extremes(self) -> None:
        """Emit the extremes of all sums; a vector of the greatest follows a vector of the least."""
        e, b = self.e, self.e.builder
        size = 4 * self.count
        second = b.add(self.limits, constant(I64, 4 * self.isa.lanes))
        for place, better in ((self.limits, e.least), (second, e.greatest)):
            # pairwise, so that chains of dependent instructions are short
            found = [total for row in self.sums for total in row] + [e.load(place, self.lanes, size)]
            while len(found) > 1:
                found = [better(*pair) for pair in zip(found[::2], found[1::2], strict=False)] + found[
                    len(found) // 2 * 2 :
                ]
            e.store(found[0], place, size)

    def keep_sums(self) -> None:
        b = self.e.builder
        with b.if_then(b.icmp_signed("!=", self.word("sums"), constant(I64, 0)), likely=False):
            for i, place in enumerate(self.places("sums", "sums_offsets", 4)):
                for j in range(self.vectors):
                    self.store_in_order(self.sums[i][j], place, j)

    def store_in_order(self, value: Any, place: Any, j: int) -> None:
        """Store int32 lanes of vector `j` where their channels belong; four lanes are four channels in a row."""
        e, b = self.e, self.e.builder
        order = self.isa.channel_order(self.count, self.vectors)
        for lane in range(0, self.count, 4):
            part = ir.Constant(vector(I32, 4), list(range(lane, lane + 4)))
            four = b.shuffle_vector(value, value, part)
            e.store(four, b.add(place, constant(I64, 4 * order[j * self.count + lane])))


__all__ = [
    "BLOCK",
    "CODES",
    "CONV",
    "DEPTH",
    "KIND",
    "LOGITS",
    "PACKED",
    "PARAMETER_BYTES",
    "QUADS",
    "VARIANT",
    "TileKind",
]
