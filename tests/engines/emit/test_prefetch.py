"""Weights are asked for ahead where an instruction set says so: each line of them once a step, and nowhere else."""

import ctypes
import re
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from dqtsim.engines.native.compile import build
from dqtsim.engines.native.emit import epilogue
from dqtsim.engines.native.emit.libraries import shapes_of
from dqtsim.engines.native.emit.tile import CODES, LOGITS, TileKind
from dqtsim.engines.native.ir import I64, Emitter, Record
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.spec import Rounding

HERE = [isa for isa in ISAS if not build.missing(isa, build.host()[1])]
ASKS = re.compile(r"call void @\"?llvm\.prefetch\.p0\"?\(i8\* %\S+, i32 0, i32 3, i32 1\)")
PLACE = Record("at", "out")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", [CODES, LOGITS])
def test_a_step_asks_for_each_line_of_weights_once(isa: Isa, kind: TileKind) -> None:
    for pixels, vectors in shapes_of(isa):
        module: Any = ir.Module()
        epilogue.emit_tile(module, isa, Rounding.TIES_UP, pixels, vectors, kind)
        text = str(module)
        assert len(ASKS.findall(text)) == (vectors if isa.ahead else 0)
        assert text.count('call void @"llvm.prefetch') == len(ASKS.findall(text))
        # a vector of weights is a line, and all are as far ahead
        assert not isa.ahead or 4 * isa.lanes == 64
        for j in range(vectors if isa.ahead else 0):
            assert f", {isa.ahead + 64 * j}\n" in text


def test_who_asks() -> None:
    assert {isa.name: isa.ahead for isa in ISAS if isa.ahead} == {"vnni512": 1024}


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_any_address_will_do(isa: Isa) -> None:
    """No memory is there, and none has to be: what follows is done all the same."""
    module: Any = ir.Module()
    e = Emitter(module, "ask")
    at, out = e.unpack(PLACE, e.arguments[0], "at", "out")
    e.prefetch(at)
    e.store(e.builder.add(at, ir.Constant(I64, 1)), out)
    e.done()
    function = build.load_object(build.compile_module(module, isa), ["ask"])["ask"]
    for address in (0, 1, 64, -64, (1 << 47) - 1, 1 << 47, (1 << 63) - 1, -(1 << 63)):
        found = np.zeros(1, np.int64)
        words = np.array(PLACE.words(function=0, chunks=1, at=address, out=found.ctypes.data), np.int64)
        ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(function)(words.ctypes.data, 0)
        assert found[0] == (address + 1 if address < (1 << 63) - 1 else -(1 << 63))
