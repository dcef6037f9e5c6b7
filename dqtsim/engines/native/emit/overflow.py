"""The accumulator register (B1, C2, C3): exact sums stored by "conv" are wrapped or clamped, and become codes again.

Only vectors with a channel that can leave the register are computed; the codes of all others are final already. Sums
are stored as [pixel][channel], channels in their natural order. The register has 32 - `unused` bits. A sum that it
changes is counted as an overflow, and is replaced in memory by the register value.

    value = P modulo 2^W, or the limit nearest to P
    y = clamp((value * M + R) >> S, low, high)          "narrow"
    y = (value << e) + B                                "narrow_logits"

Constants of a vector, all lanes in order: M int32, R int64, S int64; of logits e int32, B int32. R is as in `tile`, and
so are the proofs: the product is that of the register value.
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, WORD, Emitter, Record, constant, vector
from ..isa.base import Isa
from .choice import CHOICE, variant_of
from .requantize import is_folded, rounded_shift
from .rows import fields, share

NARROW = Record(
    *CHOICE,
    "variants",  # address of NARROWED records
    "sums",  # int32, changed in place
    "stride",  # bytes of a pixel's sums
    "target",
    "target_offsets",  # address of int64 per pixel
    "pixels",
    "events",  # address of int64: the number of sums that did not fit is added to it
    "wraps",  # 1 if the register wraps, 0 if it is clamped
    "unused",  # 32 less the register's bits
    "zero",  # output zero point, unless it is in R
    "low",
    "high",
)
# number of vectors that can leave the register, their first channels int64, their constants
NARROWED = ("count", "channels", "parameters")
# bytes of a lane's constants
CODE_BYTES, LOGIT_BYTES = 20, 8


def emit(module: Any, isa: Isa, rounding: Rounding, *, logits: bool = False) -> str:
    """Add the operation "narrow" or "narrow_logits" of NARROW records; return its name. Chunks split pixels.

    If pixels are smaller than a vector of codes, there must be only one chunk: a store overwrites following pixels.
    """
    name = "narrow_logits" if logits else "narrow"
    e = Emitter(module, name)
    b, lanes = e.builder, vector(I32, isa.lanes)
    words, chunk = e.arguments
    r = fields(e, NARROW, words)
    variant = variant_of(e, NARROW, words, len(NARROWED))
    count, channels, parameters = (e.load(b.add(variant, constant(I64, WORD * k)), I64, 8) for k in range(3))
    register = _Register(e, isa, r)
    scale, size = (4, LOGIT_BYTES) if logits else (1, CODE_BYTES)
    overflows = e.slot(lanes, constant(lanes, 0))
    first, last = share(e, r.chunks, chunk, r.pixels)
    with e.loop(count) as number:
        channel = e.load(b.add(channels, b.mul(number, constant(I64, WORD))), I64, 8)
        own = b.add(parameters, b.mul(number, constant(I64, size * isa.lanes)))
        finish = RegisterToLogits(e, isa, own) if logits else RegisterToCodes(e, isa, rounding, own, r)
        sums = b.add(r.sums, b.mul(channel, constant(I64, 4)))
        target = b.add(r.target, b.mul(channel, constant(I64, scale)))
        with e.loop(last, first) as pixel:
            place = b.add(sums, b.mul(pixel, r.stride))
            exact = e.load(place, lanes, 4)
            value = register.of(exact)
            # a lane of a comparison is -1 if it is true
            changed = b.sext(b.icmp_signed("!=", value, exact), lanes)
            b.store(b.sub(b.load(overflows), changed), overflows)
            e.store(value, place, 4)
            offset = e.load(b.add(r.target_offsets, b.mul(pixel, constant(I64, WORD))), I64, 8)
            e.store(finish.of(value), b.add(target, offset))
    total = e.call(f"llvm.vector.reduce.add.v{isa.lanes}i32", I32, b.load(overflows))
    b.atomic_rmw("add", e.pointer(r.events, I64), b.zext(total, I64), "monotonic")
    e.done()
    return name


class _Register:
    """The register value for an exact sum."""

    def __init__(self, e: Emitter, isa: Isa, r: Any) -> None:
        b = e.builder
        self.e = e
        unused = b.trunc(r.unused, I32)
        most = b.lshr(constant(I32, (1 << 31) - 1), unused)
        self.unused, self.most, self.least = (e.splat(x, isa.lanes) for x in (unused, most, b.not_(most)))
        self.wraps = e.splat(b.icmp_signed("!=", r.wraps, constant(I64, 0)), isa.lanes)

    def of(self, exact: Any) -> Any:
        """Return the lanes after narrowing (B1)."""
        e, b = self.e, self.e.builder
        wrapped = b.ashr(b.shl(exact, self.unused), self.unused)
        clamped = e.least(e.greatest(exact, self.least), self.most)
        return b.select(self.wraps, wrapped, clamped)


class RegisterToCodes:
    """From register values to codes (B2-B4); `own`: address of the vector's constants."""

    def __init__(self, e: Emitter, isa: Isa, rounding: Rounding, own: Any, r: Any) -> None:
        b, lanes = e.builder, isa.lanes
        self.e, self.folded = e, is_folded(rounding)
        self.rounding = rounding
        self.narrow, self.wide, self.codes = vector(I32, lanes), vector(I64, lanes), vector(I8, lanes)
        self.multiplier = b.sext(e.load(own, self.narrow, 4), self.wide)
        self.addend = e.load(b.add(own, constant(I64, 4 * lanes)), self.wide, 4)
        self.shift = e.load(b.add(own, constant(I64, 12 * lanes)), self.wide, 4)
        self.zero, self.low, self.high = (e.splat(b.trunc(x, I32), lanes) for x in (r.zero, r.low, r.high))

    def of(self, value: Any) -> Any:
        """Return the codes uint8 of a vector."""
        e, b = self.e, self.e.builder
        product = b.add(b.mul(b.sext(value, self.wide), self.multiplier), self.addend)
        # for TIES_UP the addend contains the half already
        shifted = b.ashr(product, self.shift) if self.folded else rounded_shift(e, product, self.shift, self.rounding)
        code = b.trunc(shifted, self.narrow)
        if not self.folded:
            code = b.add(code, self.zero)
        return b.trunc(e.least(e.greatest(code, self.low), self.high), self.codes)


class RegisterToLogits:
    """From register values to int32 logits (B7)."""

    def __init__(self, e: Emitter, isa: Isa, own: Any) -> None:
        lanes = vector(I32, isa.lanes)
        self.e = e
        self.exponent = e.load(own, lanes, 4)
        self.bias = e.load(e.builder.add(own, constant(I64, 4 * isa.lanes)), lanes, 4)

    def of(self, value: Any) -> Any:
        """Return the logits of a vector."""
        b = self.e.builder
        return b.add(b.shl(value, self.exponent), self.bias)
