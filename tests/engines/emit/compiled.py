"""Operations of the vector kernels, compiled in memory for every instruction set that this machine has."""

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from dqtsim.engines.native.emit import (
    add,
    average_pool,
    centroid,
    copy,
    decision,
    max_pool,
    multiply,
    nest,
    one_bit,
    overflow,
    picture,
    planes,
    table,
    table_channels,
    window_nest,
)
from dqtsim.engines.native.emit.choice import NONE, WIDTHS
from dqtsim.engines.native.emit.requantize import rounded_shift
from dqtsim.engines.native.ir import I32, I64, Emitter, Record, vector
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.spec import Rounding

Bytes = np.ndarray[Any, Any]
GUARD = 67
# of functions that are here only: rounded shifts of one integer, of one vector of int32, of one of int64
SHIFTS = Record("values", "shifts", "target")
EMITTERS: tuple[Callable[[Any, Isa], str], ...] = (
    nest.emit,
    window_nest.emit,
    centroid.emit_columns,
    picture.emit,
    planes.emit,
    max_pool.emit,
    table.emit,
    table_channels.emit,
    copy.emit,
    decision.emit_argmax,
    decision.emit_gather_rows,
)


def features(isa: Isa) -> tuple[str, ...] | None:
    """Return the features to compile with, or None where this machine lacks them."""
    host = llvm.get_host_cpu_features()
    alternatives = isa.needs or ((),)
    return next((names for names in alternatives if all(host.get(name, False) for name in names)), None)


HERE = [isa for isa in ISAS if features(isa) is not None]


def _emit_shifts(module: Any, isa: Isa, rounding: Rounding, kind: Any) -> None:
    e = Emitter(module, f"shifts{kind.width}")
    lanes = vector(kind, isa.lanes)
    values, shifts, target = e.unpack(SHIFTS, e.arguments[0], "values", "shifts", "target")
    e.store(rounded_shift(e, e.load(values, lanes), e.load(shifts, lanes), rounding), target)
    e.done()


def _emit_scalar_shift(module: Any, rounding: Rounding) -> None:
    e = Emitter(module, "shift")
    values, shifts, target = e.unpack(SHIFTS, e.arguments[0], "values", "shifts", "target")
    e.store(rounded_shift(e, e.load(values, I64), e.load(shifts, I64), rounding), target)
    e.done()


@cache
def library(isa: Isa, rounding: Rounding = Rounding.TIES_UP) -> Callable[[str], Callable[[int, int], None]]:
    """Return what finds a function by its name. Operations without a rounding are there for TIES_UP only."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = ir.Module(isa.name)
    module.triple = llvm.get_process_triple()
    names = []
    if rounding == Rounding.TIES_UP:
        names += [*(emit(module, isa) for emit in EMITTERS), one_bit.emit(module)]
    names += [each.emit(module, isa, rounding) for each in (average_pool, add, multiply)]
    for operation in (overflow, centroid):
        names += [operation.emit(module, isa, rounding, logits=logits) for logits in (False, True)]
    names += [add.emit(module, isa, rounding, narrow=True), "shift", "shifts32", "shifts64"]
    _emit_scalar_shift(module, rounding)
    for kind in (I32, I64):
        _emit_shifts(module, isa, rounding, kind)

    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu="", features=",".join(f"+{name}" for name in features(isa) or ()), opt=2, jit=True
    )
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    found = {name: kind(engine.get_function_address(name)) for name in names}

    def find(name: str, _engine: Any = engine) -> Callable[[int, int], None]:
        return found[name]

    return find


def address(array: Bytes) -> int:
    return int(array.ctypes.data)


def fenced(values: Any, dtype: Any = np.uint8) -> Bytes:
    """Return the values at the end of a page behind which nothing can be read."""
    array = np.ascontiguousarray(values, dtype)
    if sys.platform != "linux":
        return array
    pages = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # 0: neither read nor written
    assert protect(address(whole) + pages, mmap.PAGESIZE, 0) == 0
    place: Bytes = np.frombuffer(memory, dtype, array.size, pages - array.nbytes).reshape(array.shape)
    place[...] = array
    return place


class Chosen:
    """The words CHOICE of layer 7 at the widths `pair`; numbers: of the variants. The table is fenced."""

    def __init__(self, pair: tuple[int, int], numbers: Mapping[tuple[int, int], int]) -> None:
        self.widths, self.refused = np.array(pair, np.int64), np.zeros(3, np.int64)
        table = np.full((WIDTHS, WIDTHS), NONE, np.uint8)
        for widths, number in numbers.items():
            table[widths] = number
        self.table = fenced(table)

    @property
    def words(self) -> dict[str, int]:
        """Return the words; this object must live as long as they are used."""
        return {
            "widths": address(self.widths),
            "choice": address(self.table),
            "refused": address(self.refused),
            "layer": 7,
        }


def arena(size: int, seed: int = 0) -> tuple[Bytes, Bytes]:
    """Return any bytes with a guard on both sides, aligned to nothing, and the `size` bytes between the guards."""
    whole = np.random.default_rng(seed).integers(0, 256, size + 2 * GUARD, np.uint8)
    return whole, whole[GUARD : GUARD + size]


def run(
    isa: Isa, name: str, record: Record, chunks: int, rounding: Rounding = Rounding.TIES_UP, /, **values: int
) -> None:
    """Run all chunks, the last one first."""
    function = library(isa, rounding)(name)
    words = np.array(record.words(function=0, chunks=chunks, **values), np.int64)
    for chunk in reversed(range(chunks)):
        function(address(words), chunk)


def each_chunk(
    isa: Isa, name: str, record: Record, chunks: int, target: Bytes, values: dict[str, int]
) -> Iterator[Bytes]:
    """Yield for every chunk which bytes of `target` it writes: those that do not keep what was there."""
    function = library(isa)(name)
    words = np.array(record.words(function=0, chunks=chunks, **values), np.int64)
    for chunk in range(chunks):
        kept = np.ones(target.shape, bool)
        for value in (0, 255):
            target[...] = value
            function(address(words), chunk)
            kept &= target == value
        yield ~kept
