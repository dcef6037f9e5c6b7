"""Profiles: every operation by its name, every MAC once, and a run like any other; no time is asserted."""

from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dqtsim.bench import peak, profile
from dqtsim.bench.measure import WARM_UP
from dqtsim.bench.profile import OperationTime, Profile, as_json, print_profile
from dqtsim.engines.native import native
from dqtsim.engines.native.compile.build import host
from dqtsim.engines.native.program import Fallback, Operation
from dqtsim.engines.native.run.loaded import Instance
from dqtsim.engines.registry import run
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.planner import Plan
from dqtsim.spec import Overflow
from dqtsim.structures import build
from tests import builders
from tests.builders import Array, compiled, network
from tests.engines.native.ones import ones
from tests.vectorkernels import kernel, kernels


@pytest.fixture(autouse=True)
def short_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "STEPS", 100)


def unproven() -> Graph:
    """Return a network with a layer without a proof between two others, the second of which has an addition."""
    random = np.random.default_rng(1)
    b = GraphBuilder("unproven", candidates=((4, 4),))
    ways: dict[str, Any] = {"bias": [[0] * 6], "multiplier": [[1 << 15] * 6], "shift": [[24] * 6], "row_widths": (8,)}
    ways |= {"zero_point": 128, "scale": 1.0, "clip": (0, 255)}
    x = b.input("x", (1, 6, 5, 5), zero_point=128, scale=1.0)
    weights = [random.integers(0, 256, (6, 6, 1, 1), np.uint8) for _ in range(3)]
    before = b.conv("before", x, weight=weights[0], **ways)
    first = b.conv("first", before, weight=weights[1], **ways)
    second = b.conv("second", first, weight=weights[2], **ways)
    b.output(b.add("sum", second, x, multiplier_a=3, multiplier_b=5, shift=3, zero_point=1, scale=1.0, clip=(0, 255)))
    graph = b.build([(4, 8), (4, 8), (8, 8)])
    return builders.unproven(graph)


def left_alone() -> Plan:
    """Return a network with a layer that is left to its ordinary kernel: its multiplier, aligned, leaves 32 bits."""
    graph = builders.dense([[100, -100]], bits=(4, 4), multiplier=(1 << 31) - 1, shift=38)
    return compiled(graph, multiplier_width=31)


PLANS = {
    "small": compiled(network()),
    "static": compiled(network(dynamic=False)),
    "resnet8": compiled(build("resnet8", dynamic=True)),
    "depthwise": compiled(build("mobilenetv2", input_size=32, classes=10)),
    "unproven": compiled(unproven()),
    "left alone": left_alone(),
    "each product": compiled(network(dynamic=False), accumulator_width=12, overflow=Overflow.SATURATE_EACH),
    "wraps": compiled(network(dynamic=False), accumulator_width=12, overflow=Overflow.WRAP),
    "vector": compiled(builders.dense(np.arange(-30, 30).reshape(4, 15), logits=True)),
    # blocks of channels in chunks: matrices are gathered by an operation of their own
    "blocks": compiled(builders.conv((9, 3, 4), np.ones((130, 9, 2, 2), int))),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
every_kernel = pytest.mark.parametrize("name", kernels())


def picture(plan: Plan, seed: int = 0, count: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *plan.graph.input.shape[1:]), np.uint8)


def test_the_plans_are_of_all_kinds() -> None:
    kinds = {}
    for name, plan in PLANS.items():
        operations = native(plan).program.operations
        operators = {step.node.name: step.node.operator for step in plan.steps}
        kinds[name] = {operators[op.step] if isinstance(op, Fallback) else op.function for op in operations}
    assert "NestedConv" in kinds["unproven"]
    assert "NestedGemm" in kinds["left alone"]
    assert any("each" in kind for kind in kinds["each product"])
    assert any("narrow" in kind for kind in kinds["wraps"])
    assert ("panels" in kinds["blocks"]) == (kernels()[0] == "amx")


@every_plan
@every_kernel
def test_every_operation_has_its_name_and_every_mac_is_counted_once(plan: Plan, name: str) -> None:
    runs: list[int] = []
    with kernel(name):
        found = profile.profile(plan, picture(plan), 3, lambda: runs.append(1))
        operations = native(plan).program.operations
        idle = native(plan).loaded.idle
    # the instance is given back, and progress is told of measured runs
    assert (len(runs), len(idle)) == (3, 1)
    assert [part.function for part in found.parts] == [
        "fallback" if isinstance(operation, Fallback) else operation.function for operation in operations
    ]
    assert sum(part.macs for part in found.parts) == plan.total_macs
    by_step: dict[str, int] = {}
    for part in found.parts:
        by_step[part.step] = by_step.get(part.step, 0) + part.macs
    assert {step: macs for step, macs in by_step.items() if macs} == dict(plan.macs)
    # what belongs to no step makes place before the first, and the report behind the last
    steps = {step.node.name for step in plan.steps} | {""}
    assert set(by_step) <= steps
    for part, operation in zip(found.parts, operations, strict=True):
        assert part.seconds > 0
        assert part.macs == 0 or part.function in ("conv", "fallback")
        if isinstance(operation, Operation) and operation.function == "conv":
            assert part.macs == plan.macs[operation.step]
    assert found.seconds == sum(part.seconds for part in found.parts)
    assert found.instruction == peak.best(matrices=name == "amx").peak.instruction


@pytest.mark.skipif("vnni512" not in kernels() or not host()[1].get("avx512vpopcntdq"), reason="no kernel counts bits")
@pytest.mark.parametrize("later", [False, True])
def test_macs_are_those_of_the_operation_that_did_them(later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layer counts bits at some of its widths, one of its two convolutions has nothing to do."""
    plan = compiled(ones("TIES_UP"))
    with kernel("vnni512"):
        count = len(native(plan).program.operations)
        times = [number + 1 if later else count - number for number in range(count)]
        monkeypatch.setattr(profile, "_once", lambda *_: times)
        parts = profile.profile(plan, picture(plan), 1).parts
    pairs = 0
    for step in plan.macs:
        own = [part.macs for part in parts if part.step == step and part.function == "conv"]
        assert own == ([plan.macs[step]] if len(own) == 1 else [0, plan.macs[step]][:: 1 if later else -1])
        pairs += len(own) == 2
    assert pairs >= 2


@every_plan
@every_kernel
def test_operations_one_by_one_are_a_run(plan: Plan, name: str) -> None:
    """After all of them the arena is what a whole run leaves; `done` is called once for each, in order."""
    with kernel(name):
        loaded = native(plan).loaded
    one, whole = Instance(loaded), Instance(loaded)
    for seed in range(3):
        codes = picture(plan, seed)
        for contiguous in (codes, np.asfortranarray(codes)):
            calls: list[bytes] = []
            one.one_by_one(contiguous, lambda calls=calls: calls.append(one.arena.tobytes()))  # type: ignore[misc]
            whole.execute(codes)
            # one of them is before the first operation
            assert len(calls) == 1 + len(loaded.program.operations)
            assert calls[-1] == one.arena.tobytes()
            # records have addresses, which are not in an arena
            assert np.array_equal(one.report(), whole.report())
            assert np.array_equal(one.arena, whole.arena)
            assert dict(one.flags()) == dict(whole.flags())
        law = next(run(plan, codes, "numba"))
        for key, (at, place) in loaded.program.report.tensors.items():
            if key in law.outputs:
                assert one.report()[at : at + place.size].tobytes() == law.outputs[key].tobytes()
    # what it sees is the work of one operation more each time
    assert len(set(calls)) > 1


def test_steps_say_which_operations_are_theirs() -> None:
    plan = PLANS["unproven"]
    found = [(op.step, op.function) for op in native(plan).program.operations if isinstance(op, Operation)]
    names = [step for step, _ in found]
    assert names[:2] == ["", ""]
    assert [function for _, function in found][:2] == ["clear", "picture"]
    # nested where its width is narrow, alone where it is not; the addition goes with its convolution
    assert ("before", "conv") in found and ("second", "conv") in found
    assert "sum" not in names
    assert names[-1] == ""


def test_medians_without_the_time_of_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock whose look takes 100 ns; operations of 10, 20, ... ns, a little more each turn, far more before them."""
    plan = PLANS["vector"]
    operations = len(native(plan).program.operations)
    now = 0
    reads: list[int] = []
    turn = -WARM_UP

    def clock() -> int:
        nonlocal now, turn
        place = len(reads) % (1 + operations + 9)
        if place == 0 and reads:
            turn += 1
        work = 10 * place + (turn * turn if turn >= 0 else 10_000)
        now += 100 + (work if 1 <= place <= operations else 0)
        reads.append(now)
        return now

    monkeypatch.setattr(profile, "perf_counter_ns", clock)
    found = profile.profile(plan, picture(plan), 5)
    assert len(reads) == (WARM_UP + 5) * (1 + operations + 9)
    assert [round(part.seconds * 1e9) for part in found.parts] == [10 * k + 4 for k in range(1, operations + 1)]


def test_no_operation_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "perf_counter_ns", lambda: 5)
    plan = PLANS["vector"]
    found = profile.profile(plan, picture(plan), 1)
    assert {part.seconds for part in found.parts} == {1e-9}


def test_the_first_picture_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS["small"]
    given: list[Array] = []
    real = Instance.one_by_one

    def spy(self: Instance, codes: Array, done: Any) -> None:
        given.append(codes)
        real(self, codes, done)

    monkeypatch.setattr(Instance, "one_by_one", spy)
    codes = picture(plan, count=3)
    profile.profile(plan, codes, 2)
    assert len(given) == WARM_UP + 2
    assert all(np.array_equal(found, codes[:1]) for found in given)


def test_an_instance_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled(network())
    monkeypatch.setattr(profile, "_once", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        profile.profile(plan, picture(plan), 1)
    assert len(native(plan).loaded.idle) == 1


def test_the_peak_is_the_faster_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    for bursts in ([3.0, 7.0], [7.0, 3.0]):
        left = iter(bursts)
        monkeypatch.setattr(profile, "peak", lambda _threads, matrices, left=left: (next(left), "wide"))
        found = profile.profile(PLANS["vector"], picture(PLANS["vector"]), 1)
        assert (found.peak_gmacs, found.instruction) == (7.0, "wide")


FOUND = Profile(
    (
        OperationTime("", "clear", 1e-6, 0),
        OperationTime("a", "conv", 2e-6, 8000),
        OperationTime("b", "fallback", 5e-6, 5000),
    ),
    8.0,
    "w",
)


def test_shares() -> None:
    assert found_shares(FOUND) == [0.0, 0.5, 0.125]
    assert FOUND.seconds == pytest.approx(8e-6, rel=1e-15)
    assert as_json(FOUND, model="m") == {
        "model": "m",
        "peak": {"instruction": "w", "gmacs_per_second": 8.0},
        "operations": [
            {"step": "", "operation": "clear", "seconds": 1e-6, "macs": 0},
            {"step": "a", "operation": "conv", "seconds": 2e-6, "macs": 8000},
            {"step": "b", "operation": "fallback", "seconds": 5e-6, "macs": 5000},
        ],
    }


def found_shares(found: Profile) -> list[float]:
    return [round(found.share(part), 12) for part in found.parts]


def test_a_table() -> None:
    stream = StringIO()
    print_profile(Console(file=stream, width=100), FOUND, "title")
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0] == "title"
    assert lines[1].split("  ")[0] == "step"
    assert [line.split() for line in lines[2:5]] == [
        ["-", "clear", "1.00", "12.5", "%"],
        ["a", "conv", "2.00", "25.0", "%", "4.0", "50.0", "%"],
        ["b", "fallback", "5.00", "62.5", "%", "1.0", "12.5", "%"],
    ]
    assert " ".join(lines[5:]) == (
        "8.0 microseconds in all, 87.5 % in operations that multiply; 20.3 % of the peak of 8.0 GMAC/s, w"
    )
