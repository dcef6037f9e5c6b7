"""Running a program: one call for all of its operations, by one thread or by several together.

Threads share a program through a ticket counter and a tally for every operation. Both have the number of the run in
their upper half, so nothing has to be reset, and a thread that was asleep for a whole run finds its tickets void. A
ticket is one chunk. A thread without a ticket is not waited for, so a thread that loses its core delays only its chunk.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..ir import I32, I64, OPERATION, WORD, Emitter, constant

# distance of the counters of an operation, each in its own cache line
COUNTER = 64
# an arena for `many`: the addresses of its program, of the field with the sample's address, and of its report
ARENA = ("program", "word", "report")
# how often a waiting thread polls before it yields its core
LOOKS = 2000


def emit_run(module: Any) -> str:
    """Add `run(program, operations, size)`: all chunks of all operations by one thread."""
    kind = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
    e = Emitter(module, "run", kind)
    program, operations, size = e.arguments
    b = e.builder
    with e.loop(operations) as number:
        words = b.add(program, b.mul(number, size))
        function = e.pointer(e.load(words, I64, 8), OPERATION)
        with e.loop(e.load(b.add(words, constant(I64, 8)), I64, 8)) as chunk:
            b.call(function, [words, chunk])
    e.done()
    return "run"


def emit_many(module: Any) -> str:
    """Add `many(arenas, together, operations, alone, size, samples, source, step, bytes, results)`.

    Samples, at `source` + index * `step`, are taken in groups of `together`, each in its own arena; at `arenas` there
    is an ARENA for each. The first `alone` operations are done for one sample after the other. Then all samples of a
    group do a chunk before any of them does the next chunk, so that its weights are read from memory only once. `bytes`
    of every report, a multiple of 8, are copied to `results` + index * `bytes`.
    """
    e = Emitter(module, "many", ir.FunctionType(ir.VoidType(), [I64] * 10))
    arenas, together, operations, alone, size, samples, source, step, length, results = e.arguments
    b = e.builder

    def of(arena: Any, name: str) -> Any:
        place = b.add(b.mul(arena, constant(I64, WORD * len(ARENA))), constant(I64, WORD * ARENA.index(name)))
        return e.load(b.add(arenas, place), I64, 8)

    def chunks_of(number: Any) -> Any:
        return e.load(b.add(b.add(of(constant(I64, 0), "program"), b.mul(number, size)), constant(I64, WORD)), I64, 8)

    def work(arena: Any, number: Any, chunk: Any) -> None:
        words = b.add(of(arena, "program"), b.mul(number, size))
        b.call(e.pointer(e.load(words, I64, 8), OPERATION), [words, chunk])

    with e.loop(samples, 0, together) as first:
        count = e.least(together, b.sub(samples, first))
        with e.loop(count) as arena:
            e.store(b.add(source, b.mul(b.add(first, arena), step)), of(arena, "word"), 8)
            with e.loop(alone) as number, e.loop(chunks_of(number)) as chunk:
                work(arena, number, chunk)
        with e.loop(operations, alone) as number, e.loop(chunks_of(number)) as chunk, e.loop(count) as arena:
            work(arena, number, chunk)
        with e.loop(count) as arena:
            target = b.add(results, b.mul(b.add(first, arena), length))
            with e.loop(length, 0, 8) as at:
                e.store(e.load(b.add(of(arena, "report"), at), I64, 8), b.add(target, at), 8)
    e.done()
    return "many"


def emit_share(module: Any, pause: Callable[[Emitter], None] | None, *, yields: bool) -> str:
    """Add `share(program, operations, size, counters, run)`: the work of one of several threads in run number `run`.

    counters: address of two COUNTERs per operation, zeros before the first run. Returns when all operations are done,
    or when the run is over. pause: the pause instruction of a waiting core, if there is one. yields: whether the C
    library has sched_yield.
    """
    kind = ir.FunctionType(ir.VoidType(), [I64] * 5)
    e = Emitter(module, "share", kind)
    program, operations, size, counters, run = e.arguments
    b = e.builder
    base = b.shl(run, constant(I64, 32))
    with e.loop(operations) as number:
        words = b.add(program, b.mul(number, size))
        function = e.pointer(e.load(words, I64, 8), OPERATION)
        chunks = e.load(b.add(words, constant(I64, 8)), I64, 8)
        ticket = e.pointer(b.add(counters, b.mul(number, constant(I64, 2 * COUNTER))), I64)
        tally = b.gep(ticket, [constant(I64, COUNTER // 8)])
        take, work, wait, over = (e.function.append_basic_block(n) for n in ("take", "work", "wait", "over"))
        b.branch(take)

        b.position_at_end(take)
        seen = b.load_atomic(ticket, "acquire", 8)
        # a ticket of an earlier run counts as 0 of this run; a ticket of a later run ends this thread's part
        mine = b.select(b.icmp_unsigned("<", seen, base), constant(I64, 0), b.sub(seen, base))
        left = b.icmp_unsigned("<", mine, chunks)
        claim = e.function.append_basic_block("claim")
        b.cbranch(left, claim, wait)
        b.position_at_end(claim)
        swapped = b.cmpxchg(ticket, seen, b.add(base, b.add(mine, constant(I64, 1))), "acq_rel", "monotonic")
        b.cbranch(b.extract_value(swapped, 1), work, take)

        b.position_at_end(work)
        b.call(function, [words, mine])
        _count(e, tally, base)
        b.branch(take)

        b.position_at_end(wait)
        looks = e.slot(I64, constant(I64, 0))
        look = e.function.append_basic_block("look")
        b.branch(look)
        b.position_at_end(look)
        done = b.load_atomic(tally, "acquire", 8)
        again = e.function.append_basic_block("again")
        b.cbranch(b.icmp_unsigned(">=", done, b.add(base, chunks)), over, again)
        b.position_at_end(again)
        if pause is not None:
            pause(e)
        times = b.add(b.load(looks), constant(I64, 1))
        b.store(times, looks)
        if yields:
            with b.if_then(b.icmp_signed(">", times, constant(I64, LOOKS)), likely=False):
                e.call("sched_yield", I32)
        b.branch(look)
        b.position_at_end(over)
    e.done()
    return "share"


def _count(e: Emitter, tally: Any, base: Any) -> None:
    """Add one to the tally of this run; only threads with a chunk do this, and the run waits for them."""
    b = e.builder
    retry, counted = (e.function.append_basic_block(name) for name in ("retry", "counted"))
    b.branch(retry)
    b.position_at_end(retry)
    seen = b.load_atomic(tally, "acquire", 8)
    start = b.select(b.icmp_unsigned("<", seen, base), base, seen)
    swapped = b.cmpxchg(tally, seen, b.add(start, constant(I64, 1)), "acq_rel", "monotonic")
    b.cbranch(b.extract_value(swapped, 1), counted, retry)
    b.position_at_end(counted)
