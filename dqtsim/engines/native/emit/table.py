"""A table of 256 codes, looked up byte by byte: any function of one code, such as NestedRequantize."""

from typing import Any

from ..ir import I8, I64, Emitter, Record, constant
from ..isa.base import Isa
from .rows import fields, pieces, rows_of

TABLE = Record("source", "source_row", "target", "target_row", "rows", "row_bytes", "table")
# codes of one i64
EIGHT = 8


def emit(module: Any, _isa: Isa) -> str:
    """Add the operation "table" of TABLE records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "table")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, TABLE, words)
    with rows_of(e, r.chunks, chunk, r.rows) as y:
        at, to = b.add(r.source, b.mul(y, r.source_row)), b.add(r.target, b.mul(y, r.target_row))
        for i, size in pieces(e, r.row_bytes, EIGHT, 1):
            near, far = b.add(at, i), b.add(to, i)
            if size == 1:
                e.store(e.load(b.add(r.table, b.zext(e.load(near, I8), I64)), I8), far)
                continue
            # one load and one store for eight codes: each code's place in the integer stays the same
            codes, found = e.load(near, I64), constant(I64, 0)
            for place in range(0, 8 * size, 8):
                code = b.and_(b.lshr(codes, constant(I64, place)), constant(I64, 255))
                image = b.zext(e.load(b.add(r.table, code), I8), I64)
                found = b.or_(found, b.shl(image, constant(I64, place)))
            e.store(found, far)
    e.done()
    return "table"
