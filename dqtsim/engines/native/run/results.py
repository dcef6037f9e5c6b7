"""The native engine for the registry: results instead of reports."""

from collections.abc import Iterator, Sequence

from ....graph.model import Array
from ....graph.results import scores
from ....planner import Plan
from ....spec.mac import Flags
from ...result import Execute, Observer, Result, summarize
from .engine import Ran, native


def native_engine(plan: Plan) -> Execute:
    """Return the engine for one sample of `plan`; with observers, a program runs that keeps every tensor."""
    made = native(plan)

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        if not observers:
            return _finished(plan, made.execute(codes))
        values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
        flags: dict[str, Flags | None] = {}
        for step, outcome in made.trace(codes):
            values[step.node.outputs[0]] = outcome.output
            if outcome.flags is not None:
                flags[step.node.name] = outcome.flags
            for observer in observers:
                observer(step, outcome)
        return summarize(plan, values, flags)

    return execute


def native_batch(plan: Plan, codes: Array, threads: int) -> Iterator[Result]:
    """Yield the results of samples uint8 (N, ...); the threads share a single sample."""
    made = native(plan)
    if len(codes) == 1:
        yield _finished(plan, made.execute(codes, threads))
        return
    for ran in made.batch(codes, threads):
        yield _finished(plan, ran)


def _finished(plan: Plan, ran: Ran) -> Result:
    return Result(ran.outputs, scores(plan.graph), ran.bits, ran.flags, plan.total_macs, ran.bitops)
