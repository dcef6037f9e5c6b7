"""The peak of the CPU: multiply-accumulates per second of its widest dot-product instruction, without loads.

Each instruction set has a loop to time, see `engines/native/isa/peak.py`; the best set that the CPU has is measured.
"""

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..engines.native.compile import build

if TYPE_CHECKING:
    from ..engines.native.isa import Isa

# a burst of milliseconds: long compared with the start of a thread, short compared with disturbances
STEPS = 1 << 20
# no byte is 0
OPERAND = 0x0703_0205
NAME = "burst"


@dataclass(frozen=True)
class Probe:
    """A burst of multiply-accumulates: `run()` does `macs` of them on all threads together."""

    instruction: str
    threads: int
    macs: int
    run: Callable[[], None]


def peak(threads: int, bursts: int = 9, *, matrices: bool = False) -> tuple[float, str]:
    """Return (GMAC/s of `threads` threads together, name of the instruction), for the fastest of `bursts`.

    matrices: whether instructions that multiply matrices count.
    """
    found = probe(threads, matrices=matrices)
    seconds = []
    for _ in range(bursts):
        started = perf_counter()
        found.run()
        seconds.append(perf_counter() - started)
    return found.macs / min(seconds) / 1e9, found.instruction


def probe(threads: int, *, matrices: bool = False) -> Probe:
    """Return the burst of the best instruction that this CPU has, compiled and warm; see `peak` for `matrices`."""
    isa = best(matrices=matrices)
    loop = compiled(isa)
    pool = ThreadPoolExecutor(threads)

    def run() -> None:
        if threads == 1:
            loop(STEPS, OPERAND)
        else:
            list(pool.map(lambda operand: loop(STEPS, operand), [OPERAND] * threads))

    run()
    return Probe(isa.peak.instruction, threads, threads * STEPS * isa.peak.accumulators * isa.peak.macs, run)


def best(features: Mapping[str, bool] | None = None, *, matrices: bool = False) -> "Isa":
    """Return the first instruction set that a CPU with these `features` has; without them: this CPU. See `peak`."""
    from ..engines.native.isa import ISAS

    return next(isa for isa in ISAS if (matrices or isa.matrices is None) and not build.missing(isa, features))


def compiled(isa: "Isa") -> Callable[[int, int], int]:
    """Return (steps, operand) -> sum of all accumulators, int32 and wrapped, compiled and without the GIL."""
    address = build.load_object(build.compile_module(emitted(isa), isa), [NAME])[NAME]
    loop: Callable[[int, int], int] = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int32)(address)
    return loop


def emitted(isa: "Isa") -> Any:
    """Return the module of llvmlite.ir with an instruction set's burst."""
    from llvmlite import ir

    from ..engines.native.ir import I32, I64, Emitter

    module = ir.Module("peak")
    e = Emitter(module, NAME, ir.FunctionType(I32, [I64, I32]))
    steps, operand = e.arguments
    e.builder.ret(isa.peak.burst(e, steps, operand))
    return module
