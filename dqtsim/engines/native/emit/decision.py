"""Decisions: the index of the largest logit, and rows of a table by index (B7, B8)."""

from typing import Any

from ..ir import I32, I64, Emitter, Record, constant
from ..isa.base import Isa
from .copy import copy
from .rows import fields, rows_of, share

ARGMAX = Record(
    "source",  # contiguous rows, int32 or int64
    "target",  # one int64 per row
    "rows",
    "columns",  # at least 1
    "wide",  # 1: int64
)
GATHER_ROWS = Record(
    "source",  # contiguous rows of `bytes` bytes
    "source_rows",
    "indices",  # one int64 per target row; negative ones count from the end
    "target",
    "rows",
    "bytes",
)


def emit_argmax(module: Any, _isa: Isa) -> str:
    """Add the operation "argmax" of ARGMAX records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "argmax")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, ARGMAX, words)
    first, last = share(e, r.chunks, chunk, r.rows)
    with b.if_else(b.icmp_signed("!=", r.wide, constant(I64, 0))) as branches:
        for branch, kind in zip(branches, (I64, I32), strict=True):
            with branch:
                _argmax(e, kind, r.source, r.target, first, last, r.columns)
    e.done()
    return "argmax"


def _argmax(e: Emitter, kind: Any, source: Any, target: Any, first: Any, last: Any, columns: Any) -> None:
    b = e.builder
    size = constant(I64, kind.width // 8)
    with e.loop(last, first) as y:
        row = b.add(source, b.mul(b.mul(y, columns), size))
        best, largest = e.slot(I64, constant(I64, 0)), e.slot(kind, e.load(row, kind))
        with e.loop(columns, 1) as x:
            value = e.load(b.add(row, b.mul(x, size)), kind)
            # only a larger value replaces an earlier one, so the first wins a tie
            better = b.icmp_signed(">", value, b.load(largest))
            b.store(b.select(better, x, b.load(best)), best)
            b.store(b.select(better, value, b.load(largest)), largest)
        e.store(b.load(best), b.add(target, b.mul(y, constant(I64, 8))))


def emit_gather_rows(module: Any, isa: Isa) -> str:
    """Add the operation "gather_rows" of GATHER_ROWS records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "gather_rows")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, GATHER_ROWS, words)
    with rows_of(e, r.chunks, chunk, r.rows) as y:
        index = e.load(b.add(r.indices, b.mul(y, constant(I64, 8))), I64)
        from_end = b.icmp_signed("<", index, constant(I64, 0))
        index = b.select(from_end, b.add(index, r.source_rows), index)
        copy(e, isa, b.add(r.source, b.mul(index, r.bytes)), b.add(r.target, b.mul(y, r.bytes)), r.bytes)
    e.done()
    return "gather_rows"
