"""The peak of the CPU: how many multiply-accumulates a second its widest dot-product instruction can do, without loads.

A kernel is a loop over independent int32 accumulators that live in registers; every step multiplies an accumulator's
own bits, so that no compiler can take the product out of the loop. `KERNELS` lists what this file can emit, best first;
the first that the CPU has is measured. To add one, add an entry: nothing else in the benchmark knows an instruction.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

from ..engines.native.compile.build import host
from ..engines.native.emit.matrix import CONFIGURATION

# enough to hide the latency of a multiplication, and few enough for 16 vector registers
ACCUMULATORS = 12
# a burst of milliseconds: long beside the start of a thread, short beside what disturbs it
STEPS = 1 << 20
# no byte is 0
OPERAND = 0x0703_0205
Emit = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Kernel:
    """One way to multiply and accumulate.

    instruction: what the peak is of. feature: the CPU feature that it needs, by LLVM's name, "" for none. lanes: int32
    accumulators in a vector. macs: products of one step into one vector. emit: (IR builder, accumulators, operand) ->
    accumulators after one step, all three LLVM IR. matrices: accumulators are registers of AMX, which have a loop of
    their own. accumulators: how many there are.
    """

    instruction: str
    feature: str
    lanes: int
    macs: int
    emit: Emit
    matrices: bool = False
    accumulators: int = ACCUMULATORS


@dataclass(frozen=True)
class Probe:
    """A burst of multiply-accumulates: `run()` does `macs` of them on all threads together."""

    instruction: str
    threads: int
    macs: int
    run: Callable[[], None]


def peak(threads: int, bursts: int = 9, *, matrices: bool = False) -> tuple[float, str]:
    """Return (GMAC/s of `threads` threads together, instruction of which that is the peak): the fastest of `bursts`.

    matrices: whether the matrices of AMX count among the instructions.
    """
    found = probe(threads, matrices=matrices)
    seconds = []
    for _ in range(bursts):
        started = perf_counter()
        found.run()
        seconds.append(perf_counter() - started)
    return found.macs / min(seconds) / 1e9, found.instruction


def probe(threads: int, *, matrices: bool = False) -> Probe:
    """Return the burst of the best kernel that this CPU has, compiled and warm; see `peak` for `matrices`."""
    kernel = best(matrices=matrices)
    loop = compiled(kernel)
    pool = ThreadPoolExecutor(threads)

    def run() -> None:
        if threads == 1:
            loop(STEPS, OPERAND)
        else:
            list(pool.map(lambda operand: loop(STEPS, operand), [OPERAND] * threads))

    run()
    return Probe(kernel.instruction, threads, threads * STEPS * kernel.accumulators * kernel.macs, run)


def best(features: Mapping[str, bool] | None = None, *, matrices: bool = False) -> Kernel:
    """Return the first of KERNELS that a CPU with these `features` has; without them: this CPU. See `peak`."""
    if features is None:
        features = host()[1]
    return next(
        kernel
        for kernel in KERNELS
        if (matrices or not kernel.matrices) and (not kernel.feature or features.get(kernel.feature))
    )


@cache
def compiled(kernel: Kernel) -> Callable[[int, int], int]:
    """Return (steps, operand) -> sum of all accumulators, int32 and wrapped, compiled and without the GIL.

    Accumulator vector i starts with i + 1 in every lane; the operand, an int32, is in every lane of the other factor.
    """
    import numba
    from numba import extending, types

    def typed(_context: Any, steps: Any, operand: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return (_matrix_loop if kernel.matrices else _loop)(builder, kernel, *arguments)

        return types.int32(types.int64, types.int32), codegen

    burst: Any = extending.intrinsic(typed)

    def call(steps: int, operand: int) -> int:
        return burst(steps, np.int32(operand))  # type: ignore[no-any-return]

    loop: Callable[[int, int], int] = numba.njit(nogil=True)(call)
    return loop


def _loop(builder: Any, kernel: Kernel, steps: Any, operand: Any) -> Any:
    """Emit the loop and return the sum of its accumulators."""
    from llvmlite import ir

    index, lane = ir.IntType(64), ir.IntType(32)
    vector = ir.VectorType(lane, kernel.lanes)
    factor = ir.Constant(vector, ir.Undefined)
    for position in range(kernel.lanes):
        factor = builder.insert_element(factor, operand, ir.Constant(lane, position))
    before, body = builder.block, builder.append_basic_block("burst")
    after = builder.append_basic_block("burst.end")
    builder.branch(body)
    builder.position_at_end(body)
    counter = builder.phi(index)
    counter.add_incoming(ir.Constant(index, 0), before)
    sums = [builder.phi(vector) for _ in range(ACCUMULATORS)]
    stepped = [kernel.emit(builder, accumulator, factor) for accumulator in sums]
    following = builder.add(counter, ir.Constant(index, 1))
    counter.add_incoming(following, body)
    for number, (accumulator, value) in enumerate(zip(sums, stepped, strict=True), 1):
        accumulator.add_incoming(ir.Constant(vector, [number] * kernel.lanes), before)
        accumulator.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, steps), body, after)
    builder.position_at_end(after)
    whole = stepped[0]
    for value in stepped[1:]:
        whole = builder.add(whole, value)
    total = ir.Constant(lane, 0)
    for position in range(kernel.lanes):
        total = builder.add(total, builder.extract_element(whole, ir.Constant(lane, position)))
    return total


def _matrix_loop(builder: Any, kernel: Kernel, steps: Any, operand: Any) -> Any:
    """Emit the loop over matrices of the operand's bytes and return the sum of the accumulators' int32."""
    from llvmlite import ir

    byte, index, lane = ir.IntType(8), ir.IntType(64), ir.IntType(32)
    nothing = ir.VoidType()
    line, matrix = ir.Constant(index, 64), ir.ArrayType(lane, 256)

    def number(value: int) -> Any:
        return ir.Constant(byte, value)

    with builder.goto_entry_block():
        place = builder.alloca(matrix)
    start = builder.bitcast(place, byte.as_pointer())
    words = builder.bitcast(place, lane.as_pointer())
    setting = ir.GlobalVariable(builder.module, ir.ArrayType(byte, 64), builder.module.get_unique_name("matrices"))
    setting.linkage, setting.global_constant = "internal", True
    setting.initializer = ir.Constant(setting.type.pointee, bytearray(CONFIGURATION))
    _intrinsic(builder, "llvm.x86.ldtilecfg", nothing, builder.bitcast(setting, byte.as_pointer()))
    with _counted(builder, ir.Constant(index, 256)) as at:
        builder.store(operand, builder.gep(words, [at]))
    first = kernel.accumulators
    for register in range(8):
        if register < first:
            _intrinsic(builder, "llvm.x86.tilezero", nothing, number(register))
        else:
            _intrinsic(builder, "llvm.x86.tileloadd64", nothing, number(register), start, line)
    with _counted(builder, steps):
        for register in range(first):
            a, b = first + register // 2, first + 2 + register % 2
            _intrinsic(builder, "llvm.x86.tdpbusd", nothing, number(register), number(a), number(b))
    with builder.goto_entry_block():
        total = builder.alloca(lane)
    builder.store(ir.Constant(lane, 0), total)
    for register in range(first):
        _intrinsic(builder, "llvm.x86.tilestored64", nothing, number(register), start, line)
        with _counted(builder, ir.Constant(index, 256)) as at:
            builder.store(builder.add(builder.load(total), builder.load(builder.gep(words, [at]))), total)
    _intrinsic(builder, "llvm.x86.tilerelease", nothing)
    return builder.load(total)


@contextmanager
def _counted(builder: Any, count: Any) -> Iterator[Any]:
    """Emit the body of the with-statement `count` times, at least once; yields the number of the turn."""
    from llvmlite import ir

    before, body = builder.block, builder.append_basic_block("turn")
    after = builder.append_basic_block("turn.end")
    builder.branch(body)
    builder.position_at_end(body)
    turn = builder.phi(count.type)
    turn.add_incoming(ir.Constant(count.type, 0), before)
    yield turn
    following = builder.add(turn, ir.Constant(count.type, 1))
    turn.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)


def _multiply_add(builder: Any, accumulators: Any, factor: Any) -> Any:
    """A * f + f: every CPU has it, in an instruction or two."""
    return builder.add(builder.mul(accumulators, factor), factor)


def _pairs(builder: Any, accumulators: Any, factor: Any) -> Any:
    """A + two products of 16-bit halves of a and f: vpmaddwd and vpaddd, the exact dot product of AVX2."""
    from llvmlite import ir

    halves = ir.VectorType(ir.IntType(16), 16)
    operands = [builder.bitcast(value, halves) for value in (accumulators, factor)]
    return builder.add(accumulators, _intrinsic(builder, "llvm.x86.avx2.pmadd.wd", accumulators.type, *operands))


def _intrinsic(builder: Any, name: str, result: Any, *operands: Any) -> Any:
    """Call the LLVM intrinsic `name`."""
    from llvmlite import ir

    kind = ir.FunctionType(result, [operand.type for operand in operands])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, operands)


def _vpdpbusd(bits: int) -> Emit:
    """A + four products of the bytes of a, unsigned, and of f, signed."""

    def emit(builder: Any, accumulators: Any, factor: Any) -> Any:
        name = f"llvm.x86.avx512.vpdpbusd.{bits}"
        return _intrinsic(builder, name, accumulators.type, accumulators, accumulators, factor)

    return emit


def _none(_builder: Any, accumulators: Any, _factor: Any) -> Any:
    return accumulators


KERNELS = (
    Kernel("tdpbusd of 16 x 16 x 64", "amx-tile", 256, 16 * 16 * 64, _none, matrices=True, accumulators=4),
    Kernel("vpdpbusd of 512 bits", "avx512vnni", 16, 64, _vpdpbusd(512)),
    Kernel("vpdpbusd of 256 bits", "avxvnni", 8, 32, _vpdpbusd(256)),
    Kernel("vpmaddwd of 256 bits", "avx2", 8, 16, _pairs),
    Kernel("32-bit multiply and add of 4 lanes", "", 4, 4, _multiply_add),
)
