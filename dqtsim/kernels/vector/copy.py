"""Copies of bytes: what Concat, Slice and outputs need."""

from typing import Any

from .emit import I8, Emitter, Record, vector
from .isa import Isa
from .rows import pieces, share

COPY = Record(
    "source",
    "source_row",  # bytes to the next row
    "source_step",  # bytes to the next column
    "target",
    "target_row",
    "target_step",
    "rows",
    "columns",
    "bytes",  # of a column, which are contiguous
)


def emit(module: Any, isa: Isa) -> str:
    """Add the operation "copy_rows" of COPY records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "copy_rows")
    b = e.builder
    words, chunk = e.arguments
    source, source_row, source_step, target, target_row, target_step, rows, columns, count = e.unpack(
        COPY, words, *COPY.names[2:]
    )
    with e.loop(*reversed(share(e, COPY, words, chunk, rows))) as y:
        with e.loop(columns) as x:
            at = b.add(source, b.add(b.mul(y, source_row), b.mul(x, source_step)))
            to = b.add(target, b.add(b.mul(y, target_row), b.mul(x, target_step)))
            copy(e, isa, at, to, count)
    e.done()
    return "copy_rows"


def copy(e: Emitter, isa: Isa, source: Any, target: Any, count: Any) -> None:
    """Copy `count` bytes between places that do not overlap."""
    b = e.builder
    for i, size in pieces(e, count, 4 * isa.lanes, 16, 4, 1):
        e.store(e.load(b.add(source, i), vector(I8, size)), b.add(target, i))
