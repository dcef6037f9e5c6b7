"""The fields of each operation of a program, by the name of its native function."""

from collections.abc import Mapping

from .emit.add import ADD
from .emit.average_pool import AVERAGE_POOL
from .emit.centroid import CENTROID, COLUMNS
from .emit.clear import CLEAR
from .emit.copy import COPY
from .emit.decision import ARGMAX, GATHER_ROWS
from .emit.max_pool import MAX_POOL
from .emit.move import MOVE
from .emit.multiply import MULTIPLY
from .emit.nest import NEST
from .emit.one_bit import BITS
from .emit.overflow import NARROW
from .emit.picture import PICTURE
from .emit.planes import PLANES
from .emit.saturate_each import DEPTH, EACH, LOGITS, PLAIN
from .emit.table import TABLE
from .emit.table_channels import TABLE_CHANNELS
from .emit.tile import CONV
from .emit.window_nest import WINDOW_NEST
from .ir import Record

RECORDS: Mapping[str, Record] = {
    "add": ADD,
    "add.narrow": ADD,
    "argmax": ARGMAX,
    "average_pool": AVERAGE_POOL,
    "bits": BITS,
    "centroid": CENTROID,
    "centroid_logits": CENTROID,
    "clear": CLEAR,
    "columns": COLUMNS,
    "conv": CONV,
    "copy_rows": COPY,
    PLAIN: EACH,
    DEPTH: EACH,
    LOGITS: EACH,
    "gather_rows": GATHER_ROWS,
    "max_pool": MAX_POOL,
    "move": MOVE,
    "multiply": MULTIPLY,
    "narrow": NARROW,
    "narrow_logits": NARROW,
    "nest": NEST,
    "panels": CONV,
    "picture": PICTURE,
    "planes": PLANES,
    "table": TABLE,
    "table.channels": TABLE_CHANNELS,
    "window_nest": WINDOW_NEST,
}
# the first two fields of every record, which are filled in when a program is loaded
GIVEN = ("function", "chunks")


def words_of(function: str) -> tuple[str, ...]:
    """Return the names of an operation's fields, in order, without GIVEN. Raises KeyError for an unknown function."""
    return RECORDS[function].names[len(GIVEN) :]
