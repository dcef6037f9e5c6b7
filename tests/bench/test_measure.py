"""Rounds, statistics, the peak's arithmetic, memory, and the check of our own bits; no time is asserted."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding

from dqtsim.bench import bench, contenders, peak
from dqtsim.bench.bench import Finding, Row, measure, memory, pictures
from dqtsim.bench.measure import WARM_UP, Contender, Timing, interleave, order
from dqtsim.bench.peak import OPERAND, best, compiled, emitted, probe
from dqtsim.engines.native.compile.build import missing, optimized
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.engines.registry import run
from dqtsim.engines.result import Result
from dqtsim.graph import GraphBuilder
from dqtsim.spec.mac import Flags
from dqtsim.widths import apply_bits
from tests import builders
from tests.builders import network, picture


def test_rounds_are_interleaved() -> None:
    ran: list[str] = []
    checked: list[str] = []
    rounds: list[int] = []
    now = iter(range(1000))

    def contender(name: str) -> Contender:
        def run_() -> str:
            ran.append(name)
            return name

        return Contender(name, run_, checked.append)

    timings = interleave(
        [contender(name) for name in "abc"], 4, lambda: rounds.append(len(ran)), lambda: float(next(now)) ** 2
    )
    assert WARM_UP == 2
    assert "".join(ran) == "acbbac" + "abcbcacabcba"
    assert checked == ran
    assert rounds == [9, 12, 15, 18]
    # the clock reads n^2, so run i takes (2i + 1)^2 - (2i)^2 = 4i + 1
    assert timings[0].seconds == tuple(float(4 * i + 1) for i in (6, 11, 13, 17))


@pytest.mark.parametrize("count", range(1, 9))
def test_everyone_comes_behind_everyone_else_equally_often(count: int) -> None:
    rounds = [order(round_, count) for round_ in range(2 * count)]
    assert all(sorted(found) == list(range(count)) for found in rounds)
    pairs = Counter(pair for found in rounds for pair in pairwise(found))
    assert pairs == dict.fromkeys(permutations(range(count), 2), 2)
    places = Counter(place for found in rounds for place in enumerate(found))
    assert places == dict.fromkeys(product(range(count), repeat=2), 2)


def test_a_short_contender_runs_for_a_whole_turn() -> None:
    now = 0.0
    checked: list[str] = []
    ran: list[str] = []

    def contender(name: str, seconds: float) -> Contender:
        def run_() -> str:
            nonlocal now
            now += seconds
            ran.append(name)
            return name

        return Contender(name, run_, checked.append)

    contenders = [contender("a", 0.25), contender("b", 8.0)]
    timings = interleave(contenders, 2, clock=lambda: now, burst=2.0)
    # the second round of the warm-up knows how long a run takes: one to warm the caches, and eight
    assert ran.count("a") == 1 + 9 + 2 * 9
    assert ran.count("b") == 4
    assert (checked.count("a"), checked.count("b")) == (1 + 2 + 2 * 2, 4)
    assert [timing.seconds for timing in timings] == [(0.25, 0.25), (8.0, 8.0)]


def test_medians_and_spread() -> None:
    timing = Timing(tuple(float(x) for x in (5, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)))
    assert (timing.median, timing.spread) == (6.0, (2.0, 10.0))


def test_a_finding_says_how_fast() -> None:
    ours = Row("dqtsim", "jit", Timing((0.25, 0.125, 0.5)), 10**9)
    theirs = Row("other", "int8", Timing((0.5, 0.75, 1.0)), 3 * 10**9)
    burst = peak.Probe("wide", 1, 2 * 10**9, lambda: None)
    finding = Finding(4, 1, 3, (ours, theirs), burst, Timing((0.5, 0.125, 0.25)), 0, 3, 1, 1, 1)
    assert finding.milliseconds(ours.timing.median) == 62.5
    assert (finding.gmacs(ours), finding.gmacs(theirs)) == (16.0, 16.0)
    assert finding.speed(theirs) == 3.0
    # a peak is the fastest burst
    assert finding.peak_gmacs == 16.0


def wrapped(x: Any) -> Any:
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


def halves(x: Any) -> tuple[Any, Any]:
    low = (x + (1 << 15)) % (1 << 16) - (1 << 15)
    return low, x >> 16


def bytes_of(accumulator: int, operand: int) -> int:
    pairs = zip(accumulator.to_bytes(4, "little", signed=True), operand.to_bytes(4, "little"), strict=True)
    return accumulator + sum(x * (y - 256 * int(y > 127)) for x, y in pairs)


def words_of(accumulator: int, operand: int) -> int:
    (a, b), (c, d) = halves(accumulator), halves(operand)
    return int(accumulator + a * c + b * d)


# one step of a lane by the instruction of the peak
STEPS_OF: dict[str, Callable[[int, int], int]] = {
    "vpdpbusd": bytes_of,
    "vpmaddwd": words_of,
    "32-bit": lambda accumulator, operand: accumulator * operand + operand,
}


def emulated(isa: Isa, steps: int, operand: int) -> int:
    peak, total = isa.peak, 0
    if isa.matrices is not None:
        # every element of every accumulator gets the same 64 products a step
        each = 16 * sum(x * (x - 256 * (x > 127)) for x in operand.to_bytes(4, "little"))
        return int(wrapped(peak.accumulators * peak.lanes * steps * each))
    step = STEPS_OF[peak.instruction.split()[0]]
    for number in range(1, peak.accumulators + 1):
        a = number
        for _ in range(steps):
            a = wrapped(step(a, operand))
        total += a * peak.lanes
    return int(wrapped(total))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_the_peak_is_of_work_that_is_done(isa: Isa) -> None:
    if missing(isa):
        pytest.skip(f"this CPU has no {isa.name}")
    loop = compiled(isa)
    for steps in (0, 1, 2, 7, 40):
        assert loop(steps, OPERAND) == emulated(isa, steps, OPERAND)
    parsed, machine = optimized(emitted(isa), isa)
    if isa.needs:
        assert machine.emit_assembly(parsed).count(isa.peak.instruction.split()[0]) >= isa.peak.accumulators


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa.needs], ids=lambda isa: isa.name)
def test_sums_of_a_peak_stay_in_registers(isa: Isa) -> None:
    """Compiled for the CPU that has it, wherever this runs: a turn is the instruction, once an accumulator."""
    module = emitted(isa)
    triple = f"{isa.architecture[0]}-unknown-linux-gnu"
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    features = ",".join(f"+{name}" for names in isa.needs[:1] for name in names)
    machine = binding.Target.from_triple(triple).create_target_machine("", features, opt=3)
    module.triple, module.data_layout = triple, str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    lines = machine.emit_assembly(parsed).splitlines()
    instruction = isa.peak.instruction.split()[0]
    places = [number for number, line in enumerate(lines) if instruction in line.split()]
    assert len(places) >= isa.peak.accumulators
    # between the instructions of a turn nothing is loaded or stored
    assert not [line for line in lines[places[0] : places[-1]] if "rsp" in line or "rbp" in line]


def test_the_widest_instruction_of_the_cpu_is_chosen() -> None:
    def found(*names: str, matrices: bool = False) -> str:
        needs = [feature for isa in ISAS if isa.name in names for feature in isa.needs[0]]
        return best(dict.fromkeys(needs, True), matrices=matrices).peak.instruction

    assert found() == best({"avx2": False}).peak.instruction == "32-bit multiply and add of 4 lanes"
    assert found("avx2") == "vpmaddwd of 256 bits"
    assert found("avx2", "vnni256") == "vpdpbusd of 256 bits"
    assert found("avx2", "vnni512") == found("avx2", "vnni512", "amx") == "vpdpbusd of 512 bits"
    assert found("avx2", "vnni512", "amx", matrices=True) == "tdpbusd of 16 x 16 x 64"
    assert found("avx2", matrices=True) == "vpmaddwd of 256 bits"


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_the_readme_says_how_many_products_an_instruction_has(isa: Isa) -> None:
    text = Path(peak.__file__).with_name("README.md").read_text(encoding="utf-8").replace("`", "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (said,) = [row[2] for row in rows if len(row) == 3 and row[0] and isa.peak.instruction.startswith(row[0])]
    assert int(said.split(":")[0].replace(",", "")) == isa.peak.macs


def test_a_burst_is_counted_once_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "STEPS", 100)
    one, two = probe(1), probe(2)
    assert one.macs * 2 == two.macs == 2 * 100 * best().peak.accumulators * best().peak.macs
    assert peak.peak(2, bursts=3)[1] == best().peak.instruction
    assert peak.peak(1, bursts=1)[0] > 0


def test_memory_is_the_largest_live_set() -> None:
    plan = builders.compiled(builders.conv((2, 4, 4), np.zeros((3, 2, 3, 3), int)))
    constants = 54 + 1 + 1 + 3 * 8 * 3 + 16 + 8
    # the row of widths that the Gather makes is 16 bytes
    assert memory(plan) == (constants, 2 * 16 + 3 * 4 + 16)


def test_memory_is_given_back_after_the_last_reader_and_kept_for_outputs() -> None:
    b = GraphBuilder("chain", candidates=((8, 8),))
    x = b.input("x", (1, 1, 8, 8), zero_point=0, scale=1.0)
    how: dict[str, Any] = {"multiplier": 1 << 15, "shift": 15, "zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    first = b.requantize("first", x, **how)
    second = b.requantize("second", first, **how)
    third = b.requantize("third", second, **how)
    b.output(third)
    # two of 64 bytes at a time
    assert memory(builders.compiled(b.build()))[1] == 2 * 64
    b.output(first)
    assert memory(builders.compiled(b.build()))[1] == 3 * 64


def test_every_thread_has_its_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, int]] = []
    monkeypatch.setattr(peak, "compiled", lambda _kernel: lambda steps, operand: ran.append((steps, operand)))
    for threads in (1, 2, 3):
        ran.clear()
        burst = probe(threads)
        # once to warm up
        burst.run()
        assert ran == [(peak.STEPS, OPERAND)] * 2 * threads


def test_pictures() -> None:
    plan = builders.compiled(network())
    codes = pictures(plan, 3, 1)
    assert (codes.shape, codes.dtype.name) == ((3, 3, 6, 6), "uint8")
    assert codes.max() > 250
    assert np.array_equal(codes, pictures(plan, 3, 1))
    assert not np.array_equal(codes, pictures(plan, 3, 2))
    given = picture(count=2)
    assert np.array_equal(pictures(plan, 3, 1, given), given[[0, 1, 0]])


@pytest.mark.parametrize("fault", ["logits", "bits", "flags", "missing", "more", None])
def test_runs_with_other_bits_are_counted(monkeypatch: pytest.MonkeyPatch, fault: str | None) -> None:
    plan = builders.compiled(network())
    codes = picture(count=2)
    honest = contenders.ours(plan, codes, 1)
    calls = 0

    def faulty() -> list[Result]:
        nonlocal calls
        calls += 1
        results = honest()
        if calls == 2 and fault == "missing":
            return results[:1]
        if calls == 2 and fault == "more":
            return [*results, results[-1]]
        if calls == 2 and fault is not None:
            last = results[-1]
            changed: dict[str, dict[str, Any]] = {
                "logits": {"outputs": {name: array + 1 for name, array in last.outputs.items()}},
                "bits": {"bits": ((1, 1), *last.bits[1:])},
                "flags": {"flags": {**last.flags, "stem": Flags(0, 1, -5, 5)}},
            }
            results[-1] = replace(last, **changed[fault])
        return results

    monkeypatch.setattr(bench, "ours", lambda *_: faulty)
    monkeypatch.setattr(bench, "BURST", 0)
    monkeypatch.setattr(peak, "STEPS", 100)
    finding = measure(plan, codes, threads=1, runs=1, against=(), done=lambda: None)
    assert calls == 1 + WARM_UP
    assert (finding.different, finding.looked_at) == (fault is not None, 1 + WARM_UP)


def test_other_plans_take_part_and_are_held_to_their_own_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    plans = {name: builders.compiled(apply_bits(graph, name)[0]) for name in ("dynamic", "8", "2")}
    codes = picture(count=3)
    monkeypatch.setattr(bench, "BURST", 0)
    monkeypatch.setattr(peak, "STEPS", 100)
    others = {f"bits {name}": plans[name] for name in ("8", "2")}
    how: dict[str, Any] = {"threads": 1, "runs": 1, "against": (), "done": lambda: None}
    finding = measure(plans["dynamic"], codes, beside=others, **how)
    classes = {name: [result.class_index for result in run(plan, codes)] for name, plan in plans.items()}
    # the classes of random weights differ at other widths, and the controller is work that only `dynamic` has
    agreeing = [sum(a == b for a, b in zip(classes["dynamic"], classes[name], strict=True)) for name in plans]
    assert [row.name for row in finding.rows] == ["dqtsim", "dqtsim, bits 8", "dqtsim, bits 2"]
    assert [row.agreeing for row in finding.rows] == agreeing
    assert [row.macs for row in finding.rows] == [7304, 7104, 7104]
    assert (finding.different, finding.looked_at) == (0, 9)
    honest = contenders.ours
    monkeypatch.setattr(bench, "ours", lambda plan, *rest: honest(plans["2"] if plan is plans["8"] else plan, *rest))
    finding = measure(plans["dynamic"], codes, beside=others, **how)
    assert (finding.different, finding.looked_at) == (3, 9)
