"""Moves of elements by tables of offsets: Gather, Slice, Transpose, Reshape and Concat of any axes.

A tensor is `pixels` times `pieces` of `bytes` bytes. In the source, piece k of pixel p lies at the sum of an offset of
the pixel and one of the piece, and in the target at the sum of two others. A tensor whose elements do not lie like this
has pixels of one piece.
"""

from typing import Any

from ..ir import I8, I64, WORD, Emitter, Record, constant
from ..isa.base import Isa
from .copy import copy
from .rows import fields, rows_of

MOVE = Record(
    "source",
    "source_pixels",  # address of int64 per pixel
    "source_pieces",  # address of int64 per piece
    "target",
    "target_pixels",
    "target_pieces",
    "pixels",
    "pieces",  # of a pixel
    "bytes",  # of a piece
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "move" of MOVE records to `module`; return its name. Chunks split pixels."""
    e = Emitter(module, "move")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, MOVE, words)

    def place(start: Any, table: Any, number: Any) -> Any:
        return b.add(start, e.load(b.add(table, b.mul(number, constant(I64, WORD))), I64, 8))

    with rows_of(e, r.chunks, chunk, r.pixels) as pixel:
        at, to = place(r.source, r.source_pixels, pixel), place(r.target, r.target_pixels, pixel)
        with b.if_else(b.icmp_signed("==", r.bytes, constant(I64, 1))) as (single, longer):
            with single, e.loop(r.pieces) as piece:
                e.store(e.load(place(at, r.source_pieces, piece), I8), place(to, r.target_pieces, piece))
            with longer, e.loop(r.pieces) as piece:
                copy(e, isa, place(at, r.source_pieces, piece), place(to, r.target_pieces, piece), r.bytes)
    e.done()
    return "move"
