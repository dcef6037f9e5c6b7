"""The inner kernel of convolution: MR pixels times NV vectors of output channels, sums in registers (B1-B5).

    P = corr + sum over taps of w * u,  corr = -zeta * sum of w     one int32 lane per output channel
    y = clamp((P * M + R) >> S, low, high)                          64-bit products of even and of odd lanes

`u` are nested codes uint8 with operand u - zeta, `w` operands int8. M is the multiplier times 2^e, the alignment; R is
bias * multiplier, to which rounding and output zero point are added where both can be (TIES_UP, FLOOR). With a
residual, the code y goes on through NestedAdd before it is stored. Constants of a vector of channels, PARAMETER_BYTES
per lane: corr and M int32, R of even lanes, R of odd lanes, S of even lanes, S of odd lanes int64.

That no sum leaves 32 bits, no product 64, and no shifted product 32 is proven by whoever fills the tables.
"""

from typing import Any

from llvmlite import ir

from .emit import I8, I32, I64, Emitter, Record, constant, vector
from .isa import Isa

# corr, M: 4 bytes each; R, S: 8 bytes each
PARAMETER_BYTES = 24
TIES_UP, FLOOR, TIES_AWAY, TIES_EVEN = range(4)

CONV = Record(
    "widths",  # address of two int64
    "choice",  # address of uint8 [9 * 9]: variant of each pair of widths
    "variants",  # address of VARIANT records
    "direct",  # address of the first tap of output pixel (0, 0) in the input's own buffer
    "nested",  # the same in the buffer of nested codes
    "offsets",  # address of int64 per pixel, repeated to whole tiles: first tap
    "tiles",
    "pixels",  # of a tile
    "blocks",  # address of BLOCK records
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
    "group",  # tiles that share a block of weights while it is in cache
    "by_blocks",  # chunks split blocks of channels, not tiles
    "residual",  # address, or 0
    "residual_offsets",
    "own_multiplier",
    "other_multiplier",
    "addend",  # zero points, rounding and output zero point of the addition
    "add_shift",
    "add_low",
    "add_high",
)
VARIANT = ("direct", "weights", "parameters")
BLOCK = ("function", "weights", "parameters", "input", "channel")

KIND = ir.FunctionType(ir.VoidType(), [I64] * 7)


# what a kernel does with its sums, or how it makes them
CODES, LOGITS, DEPTH = "tile", "logits", "depth"


def emit_tile(module: Any, isa: Isa, rounding: int, pixels: int, vectors: int, kind: str = CODES) -> str:
    """Add a kernel `(input, weights, parameters, table offset, channel, words, limits)` to `module`; return its name.

    input, weights, parameters: addresses for this block of channels. table offset: bytes from the start of each offset
    table to this tile. channel: first channel. words: of the CONV record. limits: address of the least and the
    greatest accumulator of every lane so far. LOGITS gives int32 outputs (P << e) + B (B7) instead of codes. DEPTH is
    depthwise: each channel meets its own weights, int32, one tap a segment.
    """
    name = f"{kind}_{pixels}x{vectors}"
    e = Emitter(module, name, KIND)
    tile = _Tile(e, isa, rounding, pixels, vectors)
    tile.multiply_and_accumulate(depth=kind == DEPTH)
    tile.note_extremes()
    tile.keep_sums()
    if kind == LOGITS:
        tile.finish_logits()
    else:
        tile.finish_codes()
    e.done()
    return name


class _Tile:
    def __init__(self, e: Emitter, isa: Isa, rounding: int, pixels: int, vectors: int) -> None:
        self.e, self.isa, self.rounding = e, isa, rounding
        self.pixels, self.vectors = pixels, vectors
        self.lanes = vector(I32, isa.lanes)
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

    def multiply_and_accumulate(self, *, depth: bool) -> None:
        """Emit the loops over segments and over the steps of a run, and leave the sums in registers."""
        e, b, isa = self.e, self.e.builder, self.isa
        offsets = b.add(self.word("offsets"), self.table)
        pixels = [b.add(self.input, e.load(b.add(offsets, constant(I64, 8 * i)), I64, 8)) for i in range(self.pixels)]
        per_vector = PARAMETER_BYTES * isa.lanes
        first = [
            e.load(b.add(self.parameters, constant(I64, j * per_vector)), self.lanes, 4) for j in range(self.vectors)
        ]
        segments, count = self.word("segments"), self.word("segment_count")
        run = constant(I64, 1) if depth else self.word("run")
        before = b.block
        outer, inner, after, done = (e.function.append_basic_block(n) for n in ("segment", "step", "next", "sums"))
        b.branch(outer)

        b.position_at_end(outer)
        number, weights = b.phi(I64), b.phi(I64)
        carried = self.phis()
        number.add_incoming(constant(I64, 0), before)
        weights.add_incoming(self.weights, before)
        begin = e.load(b.add(segments, b.mul(number, constant(I64, 8))), I64, 8)
        end = b.add(begin, run)
        b.branch(inner)

        b.position_at_end(inner)
        at, w_at = b.phi(I64), b.phi(I64)
        sums = self.phis()
        at.add_incoming(begin, outer)
        w_at.add_incoming(weights, outer)
        added = (self.step_of_depth if depth else self.step)(sums, [b.add(pixel, at) for pixel in pixels], w_at)
        following = b.add(at, constant(I64, 4))
        w_following = b.add(w_at, constant(I64, 4 * isa.lanes * self.vectors))
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

    def phis(self) -> list[list[Any]]:
        """Return accumulators of the whole tile, not yet defined."""
        return [[self.e.builder.phi(self.lanes) for _ in range(self.vectors)] for _ in range(self.pixels)]

    def step(self, sums: list[list[Any]], taps: list[Any], weights: Any) -> list[list[Any]]:
        """Return the sums after four taps of every pixel."""
        e, b, isa = self.e, self.e.builder, self.isa
        size = 4 * isa.lanes
        loaded = [e.load(b.add(weights, constant(I64, j * size)), self.lanes, size) for j in range(self.vectors)]
        operands = [isa.weights(e, lanes) for lanes in loaded]
        added = []
        for i in range(self.pixels):
            four = isa.pixels(e, e.splat(e.load(taps[i], I32), isa.lanes))
            added.append([isa.dot(e, sums[i][j], four, operands[j]) for j in range(self.vectors)])
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

    def note_extremes(self) -> None:
        e, b = self.e, self.e.builder
        size = 4 * self.isa.lanes
        for place, better in ((self.limits, e.least), (b.add(self.limits, constant(I64, size)), e.greatest)):
            # pairwise, so that no chain of dependent instructions is as long as the tile
            found = [total for row in self.sums for total in row] + [e.load(place, self.lanes, size)]
            while len(found) > 1:
                found = [better(*pair) for pair in zip(found[::2], found[1::2], strict=False)] + found[
                    len(found) // 2 * 2 :
                ]
            e.store(found[0], place, size)

    def keep_sums(self) -> None:
        e, b = self.e, self.e.builder
        with b.if_then(b.icmp_signed("!=", self.word("sums"), constant(I64, 0)), likely=False):
            for i, place in enumerate(self.places("sums", "sums_offsets", 4)):
                for j in range(self.vectors):
                    e.store(self.sums[i][j], b.add(place, constant(I64, 4 * self.isa.lanes * j)))

    def finish_codes(self) -> None:
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
        return self.e.splat(self.e.builder.trunc(self.word(name), I32), self.isa.lanes)

    def store_codes(self, *, residual: bool) -> None:
        e, b, lanes = self.e, self.e.builder, self.isa.lanes
        places = self.places("target", "target_offsets", 1)
        others = self.places("residual", "residual_offsets", 1) if residual else []
        low, high = self.splat32("low"), self.splat32("high")
        zero = None if self.rounding in (TIES_UP, FLOOR) else self.splat32("zero")
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
        e, b, lanes = self.e, self.e.builder, self.isa.lanes
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
        b, lanes = self.e.builder, self.isa.lanes
        m_even, m_odd, r_even, r_odd, s_even, s_odd = constants
        even, odd = self.halves(b.bitcast(total, vector(I64, lanes // 2)))
        even = self.shift(b.add(b.mul(even, m_even), r_even), s_even)
        odd = self.shift(b.add(b.mul(odd, m_odd), r_odd), s_odd)
        mask = ir.Constant(vector(I32, lanes), [k if k % 2 == 0 else lanes + k - 1 for k in range(lanes)])
        return b.shuffle_vector(b.bitcast(even, self.lanes), b.bitcast(odd, self.lanes), mask)

    def shift(self, value: Any, s: Any) -> Any:
        """Return value / 2^s; TIES_UP has its half in R already."""
        b, kind = self.e.builder, value.type
        if self.rounding in (TIES_UP, FLOOR):
            return b.ashr(value, s)
        half = b.lshr(b.shl(constant(kind, 1), s), constant(kind, 1))
        some = b.sext(b.icmp_signed("!=", s, constant(kind, 0)), kind)
        if self.rounding == TIES_AWAY:
            # a negative tie goes down: one less than what rounds it up
            down = b.and_(b.ashr(value, constant(kind, 63)), some)
        else:
            # a tie goes up only where the last kept bit is odd
            odd = b.and_(b.ashr(value, s), constant(kind, 1))
            down = b.and_(b.sub(odd, constant(kind, 1)), some)
        return b.ashr(b.add(value, b.add(half, down)), s)

    def finish_logits(self) -> None:
        e, b, lanes = self.e, self.e.builder, self.isa.lanes
        places = self.places("target", "target_offsets", 4)
        for j in range(self.vectors):
            start = b.add(self.parameters, constant(I64, j * PARAMETER_BYTES * lanes + 4 * lanes))
            alignment, bias = (e.load(b.add(start, constant(I64, 4 * lanes * k)), self.lanes, 4) for k in (0, 1))
            for i in range(self.pixels):
                total = b.add(b.shl(self.sums[i][j], alignment), bias)
                e.store(total, b.add(places[i], constant(I64, 4 * lanes * j)))


_ADD = ("own_multiplier", "other_multiplier", "addend", "add_shift", "add_low", "add_high")

__all__ = ["BLOCK", "CODES", "CONV", "DEPTH", "KIND", "LOGITS", "PARAMETER_BYTES", "VARIANT", "emit_tile"]
