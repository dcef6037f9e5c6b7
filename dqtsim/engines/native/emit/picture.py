"""Pictures: the caller's codes, one plane per channel, are copied into the layout of the kernels."""

from typing import Any

from ..ir import I8, I32, I64, Emitter, Record, constant, vector
from ..isa.base import Isa
from .rows import fields, fill, pieces, rows_of

PICTURE = Record("source", "channels", "height", "width", "target", "target_row", "step")
# most pictures have at most that many channels, and then pixels of four bytes
FEW = 4


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "picture" of PICTURE records to `module`; return its name. Chunks split rows.

    With at most four channels the bytes of channels that do not exist become 0, otherwise they are not written.
    """
    e = Emitter(module, "picture")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, PICTURE, words)
    plane = b.mul(r.height, r.width)
    few = b.icmp_signed("<=", r.channels, constant(I64, FEW))
    packed = b.and_(few, b.icmp_signed("==", r.step, constant(I64, FEW)))
    # channels that do not exist are read from the first plane and masked away
    exists = [b.icmp_signed("<", constant(I64, c), r.channels) for c in range(FEW)]
    starts = [b.select(there, b.mul(plane, constant(I64, c)), constant(I64, 0)) for c, there in enumerate(exists)]
    masks = [b.sext(there, I32) for there in exists]
    with rows_of(e, r.chunks, chunk, r.height) as y:
        at, to = b.add(r.source, b.mul(y, r.width)), b.add(r.target, b.mul(y, r.target_row))
        with b.if_else(packed) as (together, apart):
            with together:
                for x, size in pieces(e, r.width, isa.lanes, 1):
                    lanes, pixels = vector(I32, size), constant(vector(I32, size), 0)
                    for c, (start, mask) in enumerate(zip(starts, masks, strict=True)):
                        codes = b.zext(e.load(b.add(b.add(at, start), x), vector(I8, size)), lanes)
                        codes = b.and_(codes, e.splat(mask, size))
                        pixels = b.or_(pixels, b.shl(codes, constant(lanes, 8 * c)))
                    e.store(pixels, b.add(to, b.mul(x, constant(I64, FEW))))
            with apart:
                with b.if_then(few):
                    fill(e, to, constant(I8, 0), b.mul(r.width, r.step))
                with e.loop(r.width) as x:
                    near, far = b.add(at, x), b.add(to, b.mul(x, r.step))
                    with e.loop(r.channels) as c:
                        e.store(e.load(b.add(near, b.mul(c, plane)), I8), b.add(far, c))
    e.done()
    return "picture"
