"""Weights that stand for the mean of their codes (CENTROID): half a master step of every product is taken off (B2').

    A = (P << e) - H,  H = ((U << e_a) + 1) >> 1,  U = sum of u - zeta over the taps of the window

"conv" multiplies as for MIDPOINT and stores P. Then "columns" adds the codes u of each group's channels, for every
pixel of the input with its border, and "centroid" adds these sums over the taps of a window, takes H off, and computes
the codes again; what "conv" stored as codes is overwritten. The sums of a pixel are int32 columns: one if all channels
of the output share it, else one for each channel of the output.

    y = clamp((A * M + R) >> S, low, high)          "centroid"
    y = A + B                                       "centroid_logits"

`proofs` shows that A and H fit 32 bits. Constants of vectors are as in `overflow`.
"""

from typing import Any

from ....spec.rules import Rounding
from ..ir import I8, I32, I64, WORD, Emitter, Record, constant, vector
from ..isa.base import Isa
from .choice import CHOICE, variant_of
from .overflow import CODE_BYTES, LOGIT_BYTES, RegisterToCodes, RegisterToLogits
from .rows import fields, pieces, rows_of

COLUMNS = Record(
    *CHOICE,
    "variants",  # address of SUMMED records
    "direct",  # address of the first pixel, border included, in the input's own buffer
    "nested",  # the same in the buffer of nested codes
    "pixels",  # with the border
    "step",  # bytes of a pixel
    "groups",
    "channels",  # of a group
    "copies",  # columns of a group, which have one value
    "columns",  # of a pixel, at least groups * copies
    "target",  # address of int32 [pixels][columns]
)
# whether the input itself is read
SUMMED = ("direct",)
CENTROID = Record(
    *CHOICE,
    "variants",  # address of HALVED records
    "columns",  # address of the column of the first tap of output pixel (0, 0)
    "offsets",  # address of int64 per pixel: the first tap
    "taps",  # address of int64 per tap, from the first
    "tap_count",
    "each",  # 1: every channel has its own column
    "sums",  # P, int32
    "stride",  # bytes of a pixel's sums
    "vectors",  # to compute
    "target",
    "target_offsets",  # address of int64 per pixel
    "pixels",
    "zero",  # output zero point, unless it is in R
    "low",
    "high",
)
# e; e_a; zeta times the products of a window; constants of all vectors
HALVED = ("exponent", "exponent_of_codes", "zeros", "parameters")
SIXTEEN = 16


def emit_columns(module: Any, isa: Isa) -> str:
    """Add the operation "columns" of COLUMNS records to `module`; return its name. Chunks split pixels."""
    e = Emitter(module, "columns")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, COLUMNS, words)
    variant = variant_of(e, COLUMNS, words, len(SUMMED))
    direct = b.icmp_signed("!=", e.load(variant, I64, 8), constant(I64, 0))
    source = b.select(direct, r.direct, r.nested)
    one = constant(I64, 1)
    single = b.and_(b.icmp_signed("==", r.channels, one), b.icmp_signed("==", r.copies, one))
    with rows_of(e, r.chunks, chunk, r.pixels) as pixel:
        at = b.add(source, b.mul(pixel, r.step))
        to = b.add(r.target, b.mul(pixel, b.shl(r.columns, constant(I64, 2))))
        with b.if_else(single) as (each, several):
            with each:
                for i, size in pieces(e, r.groups, isa.lanes, 1):
                    codes = b.zext(e.load(b.add(at, i), vector(I8, size)), vector(I32, size))
                    e.store(codes, b.add(to, b.shl(i, constant(I64, 2))))
            with several, e.loop(r.groups) as group:
                total = _sum(e, b.add(at, b.mul(group, r.channels)), r.channels)
                first = b.mul(group, r.copies)
                with e.loop(b.add(first, r.copies), first) as column:
                    e.store(total, b.add(to, b.shl(column, constant(I64, 2))))
    e.done()
    return "columns"


def _sum(e: Emitter, start: Any, count: Any) -> Any:
    """Return the sum of `count` bytes, i32."""
    b, lanes = e.builder, vector(I32, SIXTEEN)
    wide, rest = e.slot(lanes, constant(lanes, 0)), e.slot(I32, constant(I32, 0))
    for i, size in pieces(e, count, SIXTEEN, 1):
        at = b.add(start, i)
        if size == 1:
            b.store(b.add(b.load(rest), b.zext(e.load(at, I8), I32)), rest)
        else:
            b.store(b.add(b.load(wide), b.zext(e.load(at, vector(I8, size)), lanes)), wide)
    return b.add(b.load(rest), e.call(f"llvm.vector.reduce.add.v{SIXTEEN}i32", I32, b.load(wide)))


def emit(module: Any, isa: Isa, rounding: Rounding, *, logits: bool = False) -> str:
    """Add the operation "centroid" or "centroid_logits" of CENTROID records; return its name. Chunks split pixels.

    If pixels are smaller than a vector of codes, there must be only one chunk: a store overwrites following pixels.
    """
    name = "centroid_logits" if logits else "centroid"
    e = Emitter(module, name)
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, CENTROID, words)
    variant = variant_of(e, CENTROID, words, len(HALVED))
    exponent, of_codes, zeros, parameters = (
        e.load(b.add(variant, constant(I64, WORD * k)), I64, 8) for k in range(len(HALVED))
    )
    lanes = vector(I32, isa.lanes)
    half = _Half(e, b.trunc(of_codes, I32), b.trunc(zeros, I32))
    raised = e.splat(b.trunc(exponent, I32), isa.lanes)
    scale, size = (4, LOGIT_BYTES) if logits else (1, CODE_BYTES)

    def vectors(pixel: Any, halves: Any) -> None:
        """Compute a pixel; halves: gives H of the vector whose first channel is given."""
        sums = b.add(r.sums, b.mul(pixel, r.stride))
        target = b.add(r.target, e.load(b.add(r.target_offsets, b.mul(pixel, constant(I64, WORD))), I64, 8))
        with e.loop(r.vectors) as number:
            own = b.add(parameters, b.mul(number, constant(I64, size * isa.lanes)))
            finish = RegisterToLogits(e, isa, own) if logits else RegisterToCodes(e, isa, rounding, own, r)
            channel = b.mul(number, constant(I64, isa.lanes))
            p = e.load(b.add(sums, b.mul(channel, constant(I64, 4))), lanes, 4)
            value = b.sub(b.shl(p, raised), halves(channel))
            e.store(finish.of(value), b.add(target, b.mul(channel, constant(I64, scale))))

    def total(start: Any, kind: Any) -> Any:
        """Return the sum of the taps of a window."""
        found = e.slot(kind, constant(kind, 0))
        with e.loop(r.tap_count) as tap:
            place = b.add(start, e.load(b.add(r.taps, b.mul(tap, constant(I64, WORD))), I64, 8))
            b.store(b.add(b.load(found), e.load(place, kind, 4)), found)
        return b.load(found)

    with rows_of(e, r.chunks, chunk, r.pixels) as pixel:
        start = b.add(r.columns, e.load(b.add(r.offsets, b.mul(pixel, constant(I64, WORD))), I64, 8))
        with b.if_else(b.icmp_signed("!=", r.each, constant(I64, 0))) as (each, shared):
            with each:
                vectors(pixel, lambda channel: half.of(total(b.add(start, b.mul(channel, constant(I64, 4))), lanes)))
            with shared:
                one = e.splat(half.of(total(start, I32)), isa.lanes)
                vectors(pixel, lambda _channel: one)
    e.done()
    return name


class _Half:
    """H for the sum of the codes of a window; of an integer, or of every lane of a vector."""

    def __init__(self, e: Emitter, exponent: Any, zeros: Any) -> None:
        self.e, self.exponent, self.zeros = e, exponent, zeros

    def of(self, codes: Any) -> Any:
        """Return ((U << e_a) + 1) >> 1 with U = `codes` - zeros."""
        b, kind = self.e.builder, codes.type
        exponent, zeros = (x if kind == I32 else self.e.splat(x, kind.count) for x in (self.exponent, self.zeros))
        one = constant(kind, 1)
        return b.ashr(b.add(b.shl(b.sub(codes, zeros), exponent), one), one)
