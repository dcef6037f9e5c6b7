"""Copies of bytes: what Concat and outputs need."""

from typing import Any

from ..ir import I8, Emitter, Record, vector
from ..isa.base import Isa
from .rows import fields, pieces, rows_of

COPY = Record(
    "source",
    "source_row",  # bytes to the next row
    "source_step",  # bytes to the next column
    "target",
    "target_row",
    "target_step",
    "rows",
    "columns",
    "bytes",  # contiguous bytes of a column
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "copy_rows" of COPY records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "copy_rows")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, COPY, words)
    with rows_of(e, r.chunks, chunk, r.rows) as y, e.loop(r.columns) as x:
        at = b.add(r.source, b.add(b.mul(y, r.source_row), b.mul(x, r.source_step)))
        to = b.add(r.target, b.add(b.mul(y, r.target_row), b.mul(x, r.target_step)))
        copy(e, isa, at, to, r.bytes)
    e.done()
    return "copy_rows"


def copy(e: Emitter, isa: Isa, source: Any, target: Any, count: Any) -> None:
    """Copy `count` bytes between places that do not overlap."""
    b = e.builder
    for i, size in pieces(e, count, 4 * isa.lanes, 16, 4, 1):
        e.store(e.load(b.add(source, i), vector(I8, size)), b.add(target, i))
