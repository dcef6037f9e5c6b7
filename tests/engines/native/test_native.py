"""Threads, batches and results: however a plan is run, its bits are the same."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from threading import Event, Thread
from time import sleep

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.memory import Spot
from dqtsim.engines.native.program import Report
from dqtsim.engines.native.run.engine import LayerFlags, Numbers, Ran, Reports
from dqtsim.engines.native.run.loaded import Instance
from dqtsim.engines.native.run.team import Team
from dqtsim.engines.registry import engine, run, traced
from dqtsim.engines.result import Result
from dqtsim.errors import InputError
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.planner import Plan
from dqtsim.spec import Flags
from dqtsim.structures import build
from tests import builders
from tests.builders import Array, network, picture
from tests.vectorkernels import kernel, kernels

from .same import assert_native, same_result


def left_to_kernels() -> Graph:
    """Return a network with a layer that lacks a proof."""
    random = np.random.default_rng(5)
    b = GraphBuilder("mixed", candidates=((4, 4), (8, 8)))

    def conv(name: str, x: object) -> object:
        return b.conv(
            name,
            x,  # type: ignore[arg-type]
            weight=random.integers(0, 256, (8, 8, 3, 3), np.uint8),
            bias=random.integers(-9000, 9000, (1, 8)),
            multiplier=random.integers(1 << 15, 1 << 16, (1, 8)),
            shift=np.full((1, 8), 24),
            row_widths=(8,),
            zero_point=128,
            scale=1.0,
            clip=(0, 255),
            pads=(1, 1, 1, 1),
        )

    x = b.input("x", (1, 8, 6, 6), zero_point=128, scale=1.0)
    y = conv("second", conv("first", x))
    b.output(y)  # type: ignore[arg-type]
    graph = b.build([(4, 8), (8, 4)])
    return builders.unproven(graph)


PLANS = {
    "small": builders.compiled(network()),
    "static": builders.compiled(network(dynamic=False)),
    "resnet8": builders.compiled(build("resnet8", dynamic=True)),
    "mixed": builders.compiled(left_to_kernels()),
    "vector": builders.compiled(builders.dense(np.arange(-30, 30).reshape(4, 15), logits=True)),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def batch_of(plan: Plan, count: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, *plan.graph.input.shape[1:]), np.uint8)


def expected(plan: Plan, codes: Array) -> list[Result]:
    return list(run(plan, codes, "numba"))


def test_only_the_mixed_network_is_left_to_kernels() -> None:
    assert {name for name, plan in PLANS.items() if not native(plan).loaded.whole} == {"mixed"}
    assert len(native(PLANS["mixed"]).program.segments) == 3
    assert_native(PLANS["mixed"], batch_of(PLANS["mixed"], 1), whole=False, threads=(1, 2))


@every_plan
@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_batches_and_threads(plan: Plan, count: int) -> None:
    codes = batch_of(plan, count)
    law = expected(plan, codes)
    for name in kernels():
        with kernel(name):
            found = [list(run(plan, codes, "jit", threads)) for threads in (1, 2, 3)]
        for results in found:
            for one, other in zip(results, law, strict=True):
                same_result(one, other)


@every_plan
def test_samples_need_not_lie_side_by_side(plan: Plan) -> None:
    codes = batch_of(plan, 6)
    for view in (codes[::2], codes[::-1], np.asfortranarray(codes)):
        for one, other in zip(run(plan, view, "jit", 2), expected(plan, view), strict=True):
            same_result(one, other)
        sample = view[3:4] if len(view) > 3 else view[:1]
        law, execute = expected(plan, sample)[0], engine(plan, "jit")
        for alone in (sample, np.asfortranarray(sample)):
            same_result(execute(alone, ()), law)
            same_result(next(run(plan, alone, "jit", 2)), law)


@every_plan
def test_traces_stay_as_they_are(plan: Plan) -> None:
    codes = batch_of(plan, 2)
    first = traced(plan, codes[:1], "jit")[1]
    kept = {name: array.copy() for name, array in first.items()}
    traced(plan, 255 - codes[:1], "jit")
    assert all(np.array_equal(first[name], array) for name, array in kept.items())


@every_plan
def test_no_samples(plan: Plan) -> None:
    assert list(run(plan, batch_of(plan, 1)[:0], "jit", 2)) == []


@every_plan
def test_results_stay_as_they_are(plan: Plan) -> None:
    codes = batch_of(plan, 5)
    law = expected(plan, codes)
    execute = engine(plan, "jit")
    found = [execute(codes[i : i + 1], ()) for i in range(5)]
    found += [next(run(plan, codes[i : i + 1], "jit", 2)) for i in range(5)]
    found += list(run(plan, codes, "jit"))
    # whoever writes into one result changes no other
    outputs = [array for result in found for array in result.outputs.values()]
    kept = [array.copy() for array in outputs]
    for _ in range(3):
        list(run(plan, 255 - codes, "jit", 2))
    for array, copy in zip(outputs, kept, strict=True):
        assert np.array_equal(array, copy)
    for one, other in zip(found, law * 3, strict=True):
        same_result(one, other)


def test_groups_of_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS["small"]
    codes = batch_of(plan, 7)
    sizes = []
    made = native(plan)
    group = made._group

    def counted(part: Array) -> list[Ran]:
        sizes.append(len(part))
        return group(part)

    monkeypatch.setattr(made, "_group", counted)
    # the function of that name hides the module
    module = import_module("dqtsim.engines.native.run.engine")
    monkeypatch.setattr(module, "GROUP_MACS", 3 * plan.total_macs)
    law = expected(plan, codes)
    for threads, parts in ((1, [3, 3, 1]), (3, [3, 3, 1]), (4, [2, 2, 2, 1])):
        sizes.clear()
        for one, other in zip(run(plan, codes, "jit", threads), law, strict=True):
            same_result(one, other)
        assert sorted(sizes, reverse=True) == parts
    monkeypatch.setattr(module, "GROUP_MACS", 1)
    sizes.clear()
    list(run(plan, codes, "jit", 1))
    assert sizes == [1] * 7
    # samples that take turns stay together
    monkeypatch.setattr(made.loaded, "together", 4)
    sizes.clear()
    list(run(plan, codes, "jit", 1))
    assert sizes == [4, 3]


# ---- threads that share a sample ----


@pytest.mark.parametrize("name", ["resnet8", "small", "mixed"])
def test_many_callers_with_teams(name: str) -> None:
    """Teams of unlike sizes, from several threads, on instances that wander between them."""
    plan = PLANS[name]
    codes = batch_of(plan, 3)
    law = expected(plan, codes)

    def calls(first: int) -> list[tuple[int, Result]]:
        found = []
        for turn in range(25):
            index = (first + turn) % 3
            threads = (first + turn) % 4 + 1
            found.append((index, next(run(plan, codes[index : index + 1], "jit", threads))))
        return found

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(calls, range(4)):
            for index, result in results:
                same_result(result, law[index])


def as_many_as_allowed(_total: int, *, at_most: int, least: int = 1) -> int:
    return max(1, at_most) * min(1, least)


FEW = builders.conv((5, 9, 9), np.random.default_rng(0).integers(-128, 128, (3, 5, 3, 3)), bits=(4, 4), shift=24)


@pytest.mark.parametrize(
    "graph",
    [
        network(),
        left_to_kernels(),
        FEW,
        build("resnet8", dynamic=True),
        build("mobilenetv2", input_size=32, classes=10),
    ],
    ids=["small", "mixed", "few channels", "resnet8", "mobilenetv2"],
)
def test_operations_in_as_many_chunks_as_they_can_have(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers are not worth a chunk; here they have as many as large ones, and more threads than cores."""
    for module in ("layer", "nest", "elementwise", "pools"):
        monkeypatch.setattr(import_module(f"dqtsim.engines.native.lower.{module}"), "spread", as_many_as_allowed)
    plan = builders.compiled(graph)
    codes = batch_of(plan, 2)
    law = expected(plan, codes)
    for name in kernels():
        with kernel(name):
            segments = native(plan).program.segments
            found = [
                (turn % 2, next(run(plan, codes[turn % 2 : turn % 2 + 1], "jit", threads)))
                for threads in (1, 2, 3)
                for turn in range(8)
            ]
        assert max(op.chunks for segment in segments if isinstance(segment, tuple) for op in segment) >= (
            1 if graph is FEW and name != "portable" else 2
        )
        for index, result in found:
            same_result(result, law[index])


def many_chunks() -> Plan:
    random = np.random.default_rng(0)
    graph = builders.conv(
        (16, 96, 96), random.integers(-128, 128, (16, 16, 3, 3)), shift=26, multiplier=40000, pads=(1, 1, 1, 1)
    )
    return builders.compiled(graph)


def test_a_thread_that_comes_late_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that begins after its run is over, before and during later runs, touches nothing."""
    plan = many_chunks()
    loaded = native(plan).loaded
    assert max(op.chunks for segment in loaded.segments if isinstance(segment, tuple) for op in segment) > 4
    codes = batch_of(plan, 2)
    law = expected(plan, codes)
    instance = Instance(loaded)
    late: list[tuple[int, ...]] = []
    real = loaded.share

    def share(*words: int) -> None:
        late.append(words)
        real(*words)

    monkeypatch.setattr(loaded, "share", share)
    instance.execute_together(codes[:1], Team(1))
    monkeypatch.undo()
    before = instance.report()
    arena = instance.arena.copy()
    # after its run
    for words in late:
        loaded.share(*words)
    assert np.array_equal(instance.arena, arena)
    # in the middle of a later one: it takes no ticket, and counts nothing
    (counters,) = instance._counters
    finished = counters.copy()
    counters.view(np.int64)[:] = 5 << 32
    for words in late:
        loaded.share(*words)
    assert np.array_equal(instance.arena, arena)
    assert set(counters.view(np.int64).tolist()) == {5 << 32}
    # counters are never reset: they stand where a run left them
    counters[:] = finished
    # while later runs are under way
    stop = Event()

    def again() -> None:
        while not stop.is_set():
            for words in late:
                loaded.share(*words)

    disturber = Thread(target=again)
    disturber.start()
    try:
        for turn in range(30):
            instance.execute_together(codes[turn % 2 : turn % 2 + 1], Team.of(2))
            report = instance.report()
            place = loaded.program.report.tensors["y"]
            found = report[place[0] : place[0] + place[1].size].reshape(law[0].outputs["y"].shape)
            assert np.array_equal(found, law[turn % 2].outputs["y"])
    finally:
        stop.set()
        disturber.join()
    flags = law[0].flags["y"]
    assert flags is not None
    assert before[:8].view(np.int32).tolist() == [flags.lowest, flags.highest]


def test_whoever_is_free_takes_the_next_chunk() -> None:
    """All chunks are done once, by whichever threads there are; the caller alone is enough."""
    done: list[int] = []
    team = Team(3)
    started = Event()

    def job() -> None:
        done.append(1)
        started.set()

    team.together(job)
    assert started.is_set()
    for _ in range(200):
        if len(done) == 3:
            break
        sleep(0.01)
    assert len(done) == 3
    assert Team(1).size == 1
    assert Team.of(2) is Team.of(2)
    assert Team.of(2) is not Team.of(3)


def test_a_team_keeps_nothing_alive() -> None:
    import gc
    import weakref

    class Memory:
        """Something that a job holds."""

    memory = Memory()
    gone = weakref.ref(memory)

    def job(_: Memory = memory) -> None:
        """Do nothing."""

    team = Team(2)
    team.together(job)
    del job, memory
    for _ in range(200):
        gc.collect()
        if gone() is None:
            break
        sleep(0.01)
    assert gone() is None


def test_memory_of_an_engine_is_free_when_its_plan_is_gone() -> None:
    """Reference counts are enough: arenas need not wait for the garbage collector."""
    import gc
    import weakref

    plan = builders.compiled(network(dynamic=False))
    next(run(plan, picture(), "jit"))
    traced(plan, picture(), "jit")
    gone = [weakref.ref(loaded.idle[0]) for loaded in (native(plan).loaded, native(plan)._kept) if loaded is not None]
    assert len(gone) == 2
    gc.disable()
    try:
        del plan
        assert [instance() for instance in gone] == [None, None]
    finally:
        gc.enable()


def test_instances_are_used_again() -> None:
    plan = builders.compiled(network(dynamic=False))
    loaded = native(plan).loaded
    list(run(plan, picture(count=4), "jit"))
    assert len(loaded.idle) == 1
    first = loaded.idle[0]
    list(run(plan, picture(count=4), "jit"))
    assert loaded.idle == [first]


# ---- which engine ----


def test_a_plan_has_one_engine_per_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = builders.compiled(network())
    found = []
    for name in kernels():
        with kernel(name):
            found.append(native(plan))
            assert native(plan) is found[-1]
            assert found[-1].library.isa.name == name
    assert len({id(made) for made in found}) == len(kernels())
    monkeypatch.setenv("DQTSIM_KERNEL", "mmx")
    with pytest.raises(InputError, match="DQTSIM_KERNEL is one of"):
        list(run(plan, picture(), "jit"))


# ---- flags ----


def test_flags_are_a_mapping() -> None:
    numbers = Numbers({"a": 0, "b": 1, "c": 2}, {"a": 0}, wraps=False)
    place = Report(Spot(0), 32, {}, ("a", "b", "c"), ("a",), ())
    rows = [np.array([*extremes, 9, 0], np.int32) for extremes in ([-3, 4, -5, 6, 0, 0], [-1, 2, 9, 9, 0, 7])]
    reports = Reports(numbers, place, np.array(rows).view(np.uint8))
    own = {"b": Flags(1, 2, -7, 8)}
    flags = LayerFlags(reports, 0, own)
    same = {"a": Flags(9, 0, -3, 4), "b": Flags(1, 2, -7, 8), "c": Flags(0, 0, 0, 0)}
    assert flags == same
    assert same == flags
    assert dict(flags) == same
    assert list(flags) == ["a", "b", "c"]
    assert len(flags) == 3
    assert flags != {**same, "c": Flags(0, 0, 0, 1)}
    assert flags != {"a": same["a"]}
    assert flags != 3
    assert repr(flags) == repr(same)
    assert "d" not in flags
    assert flags.get("d") is None
    assert flags == LayerFlags(reports, 0, {"b": Flags(1, 2, -7, 8)})
    assert dict(LayerFlags(reports, 1, {})) == {
        "a": Flags(9, 0, -1, 2), "b": Flags(0, 0, 9, 9), "c": Flags(0, 0, 0, 7)
    }  # fmt: skip
    assert Reports(replace(numbers, wraps=True), place, reports.array).flags(0, "a") == Flags(0, 9, -3, 4)
    with pytest.raises(TypeError):
        hash(flags)
