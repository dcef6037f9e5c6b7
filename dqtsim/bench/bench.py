"""One benchmark: pictures, contenders, rounds and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..engines.names import DEFAULT
from ..engines.native import native
from ..graph.model import Array
from ..planner import Plan
from .contenders import Reference, Rival, fastest_int8, float32, ours, reference, require_onnxruntime
from .measure import BURST, Contender, Timing, interleave
from .peak import Probe, probe

OURS = "dqtsim"


@dataclass(frozen=True)
class Row:
    """The result of one contender.

    macs: of one picture. agreeing: pictures of the batch that get dqtsim's class, None without classes.
    """

    name: str
    form: str
    timing: Timing
    macs: int
    agreeing: int | None = None


@dataclass(frozen=True)
class Finding:
    """The result of a benchmark.

    rows: dqtsim first, and again for each other plan. peak: the probe and its timing. different: the runs of dqtsim
    whose bits differ from the engine numba's; the first and the last run of every turn are compared. weights_bytes,
    live_bytes: of the first plan, see `memory`. held_bytes: the memory of the native engine for one sample at a time:
    its tables of constants for all widths, and one arena.
    """

    batch: int
    threads: int
    runs: int
    rows: tuple[Row, ...]
    probe: Probe
    peak: Timing
    different: int
    looked_at: int
    weights_bytes: int
    live_bytes: int
    held_bytes: int

    def milliseconds(self, seconds: float) -> float:
        """Return the milliseconds of one picture, from the seconds of a batch."""
        return seconds * 1e3 / self.batch

    def gmacs(self, row: Row) -> float:
        """Return the GMAC/s of a row's median."""
        return row.macs * self.batch / row.timing.median / 1e9

    @property
    def peak_gmacs(self) -> float:
        """Return the GMAC/s of the peak's fastest burst: the peak is the CPU's speed when nothing disturbs it."""
        return self.probe.macs / min(self.peak.seconds) / 1e9

    def speed(self, row: Row) -> float:
        """Return how many times as fast as `row` dqtsim is: above 1 dqtsim is faster."""
        return row.timing.median / self.rows[0].timing.median


def measure(
    plan: Plan,
    codes: Array,
    *,
    threads: int,
    runs: int,
    against: Sequence[str],
    done: Callable[[], None],
    beside: Mapping[str, Plan] | None = None,
) -> Finding:
    """Run the benchmark on `codes` uint8 (N, ...); `done` is called after each of the `runs` rounds.

    `against` names entries of AGAINST. `beside` names other plans, of other widths or targets, that take the same
    pictures in the same rounds. Raises InputError if onnxruntime is missing or cannot run the batch.
    """
    for name in against:
        require_onnxruntime(name)
    plans = {OURS: plan} | {f"{OURS}, {name}": other for name, other in (beside or {}).items()}
    expected = {name: reference(each, codes) for name, each in plans.items()}
    first = expected[OURS]
    makers: dict[str, Callable[[Plan, Array, int], Rival]] = {"onnxruntime": fastest_int8, "float": float32}
    rivals = {name: makers[name](plan, codes, threads) for name in against}
    different = looked_at = 0

    def check(right: Reference) -> Callable[[object], None]:
        def look(given: object) -> None:
            nonlocal different, looked_at
            assert isinstance(given, list)
            looked_at += 1
            different += not right.same(given)

        return look

    made = native(plan)
    burst = probe(threads, matrices=made.library.isa.matrices is not None)
    contenders = [Contender(name, ours(each, codes, threads), check(expected[name])) for name, each in plans.items()]
    contenders += [Contender(name, rival.run) for name, rival in rivals.items()]
    *timings, peak = interleave([*contenders, Contender("peak", burst.run)], runs, done, burst=BURST)
    form = f"engine {DEFAULT}, {made.library.isa.name}"
    rows = [
        Row(name, form, timing, right.results[0].macs, right.agreeing(first))
        for (name, right), timing in zip(expected.items(), timings[: len(plans)], strict=True)
    ]
    macs = first.results[0].macs
    for (name, rival), timing in zip(rivals.items(), timings[len(plans) :], strict=True):
        rows.append(Row(name, rival.form, timing, macs, rival.agreeing(first)))
    return Finding(
        len(codes), threads, runs, tuple(rows), burst, peak, different, looked_at, *memory(plan), made.held_bytes
    )


def memory(plan: Plan) -> tuple[int, int]:
    """Return (bytes of all constants, bytes of the largest set of tensors of one picture alive together).

    Codes take a byte. Accumulators and other scratch memory of kernels are not included.
    """
    last: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        last |= dict.fromkeys(step.node.inputs, index)
    last |= {value.name: len(plan.steps) for value in plan.graph.outputs}
    sizes = {name: int(np.prod(kind.shape)) * np.dtype(kind.dtype).itemsize for name, kind in plan.types.items()}
    alive = {plan.graph.input.name}
    largest = sizes[plan.graph.input.name]
    for index, step in enumerate(plan.steps):
        alive.add(step.node.outputs[0])
        largest = max(largest, sum(sizes[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > index}
    return sum(array.nbytes for array in plan.graph.initializers.values()), largest


def pictures(plan: Plan, batch: int, seed: int, given: Array | None = None) -> Array:
    """Return `batch` samples as codes uint8 (N, ...): those `given`, repeated as needed, or random ones."""
    if given is not None:
        return np.ascontiguousarray(given[np.arange(batch) % len(given)])
    shape = (batch, *plan.graph.input.shape[1:])
    return np.random.default_rng(seed).integers(0, 1 << plan.machine.n, shape, np.uint8)
