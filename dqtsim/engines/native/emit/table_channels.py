"""Tables of 256 codes, one per channel, looked up byte by byte (B9').

A piece is a pixel: its bytes are channels, and byte c is looked up in the c-th table.
"""

from typing import Any

from ..ir import I8, I64, Emitter, Record, constant
from ..isa.base import Isa
from .rows import fields, pieces, rows_of

TABLE_CHANNELS = Record(
    "source",
    "source_row",
    "source_step",
    "target",
    "target_row",
    "target_step",
    "rows",
    "columns",  # pieces of a row
    "channels",  # bytes of a piece
    "tables",  # 256 bytes of each channel
)
# codes of one channel
CODES = 256
# codes of one i64
EIGHT = 8


def emit(module: Any, _isa: Isa) -> str:
    """Add the operation "table.channels" of TABLE_CHANNELS records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "table.channels")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, TABLE_CHANNELS, words)
    with rows_of(e, r.chunks, chunk, r.rows) as y:
        row, to_row = b.add(r.source, b.mul(y, r.source_row)), b.add(r.target, b.mul(y, r.target_row))
        with e.loop(r.columns) as x:
            at, to = b.add(row, b.mul(x, r.source_step)), b.add(to_row, b.mul(x, r.target_step))
            for c, size in pieces(e, r.channels, EIGHT, 1):
                near, far = b.add(at, c), b.add(to, c)
                tables = b.add(r.tables, b.mul(c, constant(I64, CODES)))
                if size == 1:
                    e.store(e.load(b.add(tables, b.zext(e.load(near, I8), I64)), I8), far)
                    continue
                # one load and one store for eight codes: each code's place in the integer stays the same
                codes, found = e.load(near, I64), constant(I64, 0)
                for place in range(EIGHT):
                    code = b.and_(b.lshr(codes, constant(I64, 8 * place)), constant(I64, 255))
                    table = b.add(tables, constant(I64, CODES * place))
                    image = b.zext(e.load(b.add(table, code), I8), I64)
                    found = b.or_(found, b.shl(image, constant(I64, 8 * place)))
                e.store(found, far)
    e.done()
    return "table.channels"
