"""A register that clamps after every product (B1, SATURATE_EACH): the sums are computed again, product by product.

Only vectors with a channel that can leave the register are computed again; the sums and codes of all others are final
already. For every tap, in the target's order,

    total = register + w * (u - zeta);  register = the limit nearest to total

in 32 bits: the register has fewer, and a product has 16. A clamped addition is counted as an overflow. The rest is as
in `narrow`, except the extremes: they are those of the registers at the end, so they are taken here, of all channels.
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, WORD, Emitter, Record, constant, vector
from ..isa.base import Isa
from .choice import CHOICE, variant_of
from .overflow import CODE_BYTES, LOGIT_BYTES, RegisterToCodes, RegisterToLogits
from .rows import fields, share

EACH = Record(
    *CHOICE,
    "variants",  # address of EACHED records
    "direct",  # address of the first tap of output pixel (0, 0) in the input's own buffer
    "nested",  # the same in the buffer of nested codes
    "offsets",  # address of int64 per pixel: first tap
    "taps",  # address of int64 per tap, in order
    "tap_count",
    "sums",  # int32, changed in place
    "stride",  # bytes of a pixel's sums
    "vectors",  # in a pixel's sums
    "target",
    "target_offsets",  # address of int64 per pixel
    "pixels",
    "events",  # address of int64: the number of clamped additions is added to it
    "flags",  # address of two int32: least and greatest register
    "unused",  # 32 less the register's bits
    "zero",  # output zero point, unless it is in R
    "low",
    "high",
)
# whether the input itself is read, zeta; operands int8 [vectors][taps][lanes]; then as NARROWED
EACHED = ("direct", "zeta", "weights", "count", "channels", "parameters")
# pixels at a time: each addition waits for the one before, so several pixels are interleaved
PIXELS = 4
PLAIN, LOGITS, DEPTH = "each", "each_logits", "each_depth"


def emit(module: Any, isa: Isa, rounding: Rounding, kind: str) -> str:
    """Add the operation of EACH records called `kind`; return its name. Chunks split pixels.

    DEPTH is depthwise: each channel has its own codes. LOGITS has int32 outputs.
    """
    e = Emitter(module, kind)
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, EACH, words)
    variant = variant_of(e, EACH, words, len(EACHED))
    direct, zeta, weights, count, channels, parameters = (
        e.load(b.add(variant, constant(I64, WORD * k)), I64, 8) for k in range(len(EACHED))
    )
    source = b.select(b.icmp_signed("!=", direct, constant(I64, 0)), r.direct, r.nested)
    scale, size = (4, LOGIT_BYTES) if kind == LOGITS else (1, CODE_BYTES)
    sums = _Sums(e, isa, r, e.splat(b.trunc(zeta, I32), isa.lanes), by_channel=kind == DEPTH)
    first, last = share(e, r.chunks, chunk, r.pixels)
    whole = b.add(first, b.and_(b.sub(last, first), constant(I64, -PIXELS)))
    with e.loop(count) as number:
        channel = e.load(b.add(channels, b.mul(number, constant(I64, WORD))), I64, 8)
        own = b.add(parameters, b.mul(number, constant(I64, size * isa.lanes)))
        operands = b.add(weights, b.mul(number, b.mul(r.tap_count, constant(I64, isa.lanes))))
        finish = RegisterToLogits(e, isa, own) if kind == LOGITS else RegisterToCodes(e, isa, rounding, own, r)
        start = b.add(source, channel) if kind == DEPTH else source
        for begin, end, together in ((first, whole, PIXELS), (whole, last, 1)):
            with e.loop(end, begin, together) as pixel:
                numbers = [b.add(pixel, constant(I64, i)) for i in range(together)]
                for number_, value in zip(numbers, sums.of(start, operands, numbers), strict=True):
                    at = b.add(b.mul(number_, r.stride), b.mul(channel, constant(I64, 4)))
                    e.store(value, b.add(r.sums, at), 4)
                    offset = e.load(b.add(r.target_offsets, b.mul(number_, constant(I64, WORD))), I64, 8)
                    place = b.add(b.add(r.target, b.mul(channel, constant(I64, scale))), offset)
                    e.store(finish.of(value), place)
    overflows = e.call(f"llvm.vector.reduce.add.v{isa.lanes}i32", I32, b.load(sums.overflows))
    b.atomic_rmw("add", e.pointer(r.events, I64), b.zext(overflows, I64), "monotonic")
    _extremes(e, isa, r, first, last)
    e.done()
    return kind


class _Sums:
    """Registers of a few pixels, for one vector of channels."""

    def __init__(self, e: Emitter, isa: Isa, r: Any, zeta: Any, *, by_channel: bool) -> None:
        b = e.builder
        self.e, self.isa, self.r, self.zeta, self.by_channel = e, isa, r, zeta, by_channel
        self.lanes = vector(I32, isa.lanes)
        most = b.lshr(constant(I32, (1 << 31) - 1), b.trunc(r.unused, I32))
        self.most, self.least = (e.splat(x, isa.lanes) for x in (most, b.not_(most)))
        self.overflows = e.slot(self.lanes, constant(self.lanes, 0))

    def of(self, source: Any, operands: Any, pixels: list[Any]) -> list[Any]:
        """Return the register values at the end. operands: address of the vector's weights."""
        e, b, r, nothing = self.e, self.e.builder, self.r, constant(self.lanes, 0)
        starts = [b.add(source, e.load(b.add(r.offsets, b.mul(i, constant(I64, WORD))), I64, 8)) for i in pixels]
        registers = [e.slot(self.lanes) for _ in pixels]
        for register in registers:
            b.store(nothing, register)
        bytes_ = vector(I8, self.isa.lanes)
        with e.loop(r.tap_count) as tap:
            at = e.load(b.add(r.taps, b.mul(tap, constant(I64, WORD))), I64, 8)
            w = b.sext(e.load(b.add(operands, b.mul(tap, constant(I64, self.isa.lanes))), bytes_), self.lanes)
            for start, register in zip(starts, registers, strict=True):
                place = b.add(start, at)
                if self.by_channel:
                    code = b.zext(e.load(place, bytes_), self.lanes)
                else:
                    code = e.splat(b.zext(e.load(place, I8), I32), self.isa.lanes)
                total = b.add(b.load(register), b.mul(w, b.sub(code, self.zeta)))
                value = e.least(e.greatest(total, self.least), self.most)
                # a lane of a comparison is -1 if it is true
                clamped = b.sext(b.icmp_signed("!=", value, total), self.lanes)
                b.store(b.sub(b.load(self.overflows), clamped), self.overflows)
                b.store(value, register)
        return [b.load(register) for register in registers]


def _extremes(e: Emitter, isa: Isa, r: Any, first: Any, last: Any) -> None:
    """Note the extremes of all registers of a chunk, and 0."""
    b, lanes = e.builder, vector(I32, isa.lanes)
    found = [e.slot(lanes, constant(lanes, 0)) for _ in range(2)]
    with e.loop(last, first) as pixel:
        begin = b.add(r.sums, b.mul(pixel, r.stride))
        with e.loop(r.vectors) as number:
            value = e.load(b.add(begin, b.mul(number, constant(I64, 4 * isa.lanes))), lanes, 4)
            for place, better in zip(found, (e.least, e.greatest), strict=True):
                b.store(better(b.load(place), value), place)
    for k, which in enumerate(("min", "max")):
        extreme = e.call(f"llvm.vector.reduce.s{which}.v{isa.lanes}i32", I32, b.load(found[k]))
        b.atomic_rmw(which, e.pointer(b.add(r.flags, constant(I64, 4 * k)), I32), extreme, "monotonic")
