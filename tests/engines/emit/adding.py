"""A native function that adds: the smallest that shows that what was compiled is what was written."""

import ctypes
from typing import Any

from dqtsim.engines.native.ir import Emitter, Record

ADD = Record("a", "b", "out")


def emit_add(module: Any) -> None:
    """Write `add`: out = a + b, 64 bits; beside it a private function and one of LLVM's, which nobody may ask for."""
    Emitter(module, "unused", private=True).done()
    e = Emitter(module, "add")
    a, b, out = e.unpack(ADD, e.arguments[0], "a", "b", "out")
    e.store(e.builder.add(e.least(a, a), b), out)
    e.done()


def called(address: int, a: int, b: int) -> int:
    """Return what the function at `address` makes of a and b."""
    out = ctypes.c_int64(-1)
    words = ADD.words(function=address, chunks=1, a=a, b=b, out=ctypes.addressof(out))
    record = (ctypes.c_int64 * len(words))(*words)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(ctypes.addressof(record), 0)
    return out.value
