"""Operations at widths for which they have no variant: they note layer and widths, and touch nothing (B8)."""

import ctypes
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest

from dqtsim.engines.native import emit
from dqtsim.engines.native.compile.functions import Functions
from dqtsim.engines.native.emit import saturate_each
from dqtsim.engines.native.emit.centroid import CENTROID, COLUMNS
from dqtsim.engines.native.emit.choice import CHOICE, ELSEWHERE
from dqtsim.engines.native.emit.nest import NEST
from dqtsim.engines.native.emit.one_bit import BITS
from dqtsim.engines.native.emit.overflow import NARROW
from dqtsim.engines.native.emit.tile import CONV
from dqtsim.engines.native.emit.window_nest import WINDOW_NEST
from dqtsim.engines.native.ir import Record
from dqtsim.engines.native.isa import ISAS
from dqtsim.spec import Rounding
from tests.vectorkernels import kernels

from .compiled import HERE, Chosen, address, library

RECORDS = {
    "nest": NEST,
    "window_nest": WINDOW_NEST,
    "columns": COLUMNS,
    "centroid": CENTROID,
    "centroid_logits": CENTROID,
    "conv": CONV,
    "narrow": NARROW,
    "narrow_logits": NARROW,
    saturate_each.PLAIN: saturate_each.EACH,
    saturate_each.LOGITS: saturate_each.EACH,
    saturate_each.DEPTH: saturate_each.EACH,
}
PLANNED = {(2, 2): 0, (4, 8): 1, (8, 8): ELSEWHERE}
HUGE = (1 << 63) - 1
# no variant; beyond the table on either side; sums and products that wrap round to a place in it
UNPLANNED = [(5, 5), (8, 4), (0, 0), (2, 9), (9, 2), (-1, 8), (8, -1), (99, 99), (1, -7), (HUGE, HUGE), (-HUGE - 1, 2)]
UNPLANNED += [(1 << 30, 1 << 30), (1, 1 << 63 >> 1), (((1 << 64) // 9 + 1), 3), (0, 20), (3, -7), (2, 2 - (1 << 62))]
Operation = Callable[[int, int], None]


def operations() -> Iterator[tuple[str, Record, Operation]]:
    """Yield every operation that depends on widths, by every kernel of this machine."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    for isa in ISAS:
        if isa.name in kernels():
            functions = Functions(isa, Rounding.TIES_UP)
            for name, record in RECORDS.items():
                yield f"{isa.name}-{name}", record, kind(functions[name])
            if isa.matrices:
                yield f"{isa.name}-panels", CONV, kind(functions["panels"])
    # plain IR, which any instruction set runs
    yield "bits", BITS, library(HERE[0])("bits")


OPERATIONS = {name: (record, function) for name, record, function in operations()}
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def run(name: str, chosen: Chosen, chunks: int = 3) -> None:
    """Run all chunks with a record that is 0 but for its choice: whoever reads or writes more ends the process."""
    record, function = OPERATIONS[name]
    values = dict.fromkeys(record.names, 0) | chosen.words | {"chunks": chunks}
    words = np.array(record.words(**values), np.int64)
    for chunk in range(chunks):
        function(address(words), chunk)


@every_operation
@pytest.mark.parametrize("pair", UNPLANNED, ids=str)
def test_widths_without_a_variant_are_noted_and_nothing_else_is_done(name: str, pair: tuple[int, int]) -> None:
    chosen = Chosen(pair, PLANNED)
    run(name, chosen)
    assert chosen.refused.tolist() == [7, *pair]


@every_operation
def test_the_first_layer_that_was_noted_stays(name: str) -> None:
    chosen = Chosen((5, 5), PLANNED)
    chosen.refused[:] = 3, 6, 6
    run(name, chosen)
    assert chosen.refused.tolist() == [3, 6, 6]


@every_operation
def test_widths_that_another_operation_serves_are_passed_over(name: str) -> None:
    chosen = Chosen((8, 8), PLANNED)
    run(name, chosen)
    assert chosen.refused.tolist() == [0, 0, 0]


def test_no_other_record_has_widths() -> None:
    """Whatever reads widths reads them by its choice."""
    modules = [import_module(f"{emit.__name__}.{info.name}") for info in iter_modules(emit.__path__)]
    records = {id(x): x for module in modules for x in vars(module).values() if isinstance(x, Record)}.values()
    with_widths = [record for record in records if "widths" in record.names]
    assert {id(record) for record in with_widths} == {id(record) for record, _ in OPERATIONS.values()}
    assert all(record.names[2:6] == CHOICE for record in with_widths)
