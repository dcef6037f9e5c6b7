"""Parts of an operation's work: the rows of a chunk, the pieces of a row."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from ..ir import I8, I64, Emitter, Record, constant


def fields(e: Emitter, record: Record, words: Any) -> Any:
    """Return the fields of a record as attributes, i64."""
    return SimpleNamespace(**dict(zip(record.names, e.unpack(record, words, *record.names), strict=True)))


def share(e: Emitter, chunks: Any, chunk: Any, total: Any) -> tuple[Any, Any]:
    """Return the first of the chunk's rows among `total`, and the first row after them."""
    b = e.builder
    first, last = (b.sdiv(b.mul(total, c), chunks) for c in (chunk, b.add(chunk, constant(I64, 1))))
    return first, last


@contextmanager
def rows_of(e: Emitter, chunks: Any, chunk: Any, total: Any) -> Iterator[Any]:
    """Emit the body of the with-statement for every row of a chunk."""
    first, last = share(e, chunks, chunk, total)
    with e.loop(last, first) as y:
        yield y


def pieces(e: Emitter, total: Any, *sizes: int) -> Iterator[tuple[Any, int]]:
    """Emit the body of the for-statement for every piece of 0 .. total - 1, the largest first; yields (offset, size).

    Sizes are powers of two in any order. A rest smaller than the least size is left out.
    """
    start = constant(I64, 0)
    for size in sorted(set(sizes), reverse=True):
        stop = e.builder.and_(total, constant(I64, -size))
        with e.loop(stop, start, size) as at:
            yield at, size
        # a total below 0 has no pieces at all
        start = stop


def fill(e: Emitter, address: Any, value: Any, count: Any) -> None:
    """Write `count` bytes of one value."""
    e.call("llvm.memset.p0.i64", ir.VoidType(), e.pointer(address, I8), value, count, constant(ir.IntType(1), 0))
