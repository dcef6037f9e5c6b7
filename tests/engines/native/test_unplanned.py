"""Widths that no checked graph gives, forced past the reader: every engine stops with the layer and the pair (B8)."""

import ctypes
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.emit.choice import ELSEWHERE, NONE
from dqtsim.engines.native.isa import AND, ISAS, Isa
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.memory import Constant, Data
from dqtsim.engines.native.program import Operation, Program
from dqtsim.engines.native.run.loaded import Loaded
from dqtsim.engines.registry import ENGINES, engine, run
from dqtsim.engines.result import Trace
from dqtsim.errors import ModelError
from dqtsim.graph import BITS, Graph
from dqtsim.planner import Plan
from dqtsim.spec import Overflow
from tests.builders import Array, compiled, network, picture
from tests.graph.changes import put
from tests.vectorkernels import kernel, kernels

from .ones import ones

HUGE = 1 << 62
PAIRS = [(5, 5), (2, 4), (0, 0), (9, 8), (99, 99), (85, 3), (-1, 8), (1 << 30, 1 << 30), (HUGE, -HUGE)]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
every_kernel = pytest.mark.parametrize("name", kernels())


def sentence(layer: str, pair: tuple[int, int]) -> str:
    return f"{network().node(layer).title} runs only at widths that were planned for it; found {pair}."


def exchanged(plan: Plan, graph: Graph) -> Plan:
    """Return `plan` with another graph than the one that was planned."""
    return replace(plan, graph=graph)


def plan_pairs(plan: Plan, layer: str) -> set[tuple[int, int]]:
    return set(next(step.call.bounds for step in plan.layer_steps() if step.node.name == layer))


def overwrite(loaded: Loaded, table: Array, values: Array) -> None:
    """Change the constant `table` where the native program reads it."""
    number = loaded.program.constants.index(Data(np.frombuffer(table.tobytes(), np.uint8)))
    ctypes.memmove(loaded.addresses.starts[number], values.tobytes(), values.nbytes)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("pair", PAIRS[:2], ids=str)
def test_every_engine_refuses_candidates_that_were_not_planned(name: str, pair: tuple[int, int]) -> None:
    other = replace(put("bits.candidates", np.array([pair] * 3))(network()), candidates=(pair,) * 3)
    plan = exchanged(compiled(network()), other)
    for observers in ((), (Trace(),)):
        with pytest.raises(ModelError) as caught:
            engine(plan, name)(picture(), observers)
        assert str(caught.value) == sentence("left", pair)
        assert not any(observer.tensors.get("result") is not None for observer in observers)


@pytest.mark.parametrize("name", ["jit", "numba", "spec", "torch"])
@every_pair
def test_every_engine_refuses_static_widths_that_were_not_planned(name: str, pair: tuple[int, int]) -> None:
    graph = network(dynamic=False)
    plan = exchanged(compiled(graph), put(BITS, np.array([(8, 8), (8, 8), pair, (8, 8)], np.int64))(graph))
    with pytest.raises(ModelError) as caught:
        engine(plan, name)(picture(), ())
    assert str(caught.value) == sentence("right", pair)


@every_kernel
@every_pair
def test_a_native_program_stops_at_widths_that_appear_while_it_runs(name: str, pair: tuple[int, int]) -> None:
    """One sample, several threads, a batch, an observer; afterwards the program is as good as before."""
    table = network().initializers["bits.candidates"]
    wrong = np.array([pair] * 3, np.int64)
    codes = picture(count=5)
    with kernel(name):
        plan = compiled(network())
        made = native(plan)
        expected = list(run(plan, codes))
        list(made.trace(codes[:1]))
        assert made._kept is not None
        for loaded in (made.loaded, made._kept):
            overwrite(loaded, table, wrong)
        for count, threads in ((1, 1), (1, 3), (5, 1), (5, 2)):
            with pytest.raises(ModelError) as caught:
                list(run(plan, codes[:count], "jit", threads))
            assert str(caught.value) == sentence("left", pair)
        with pytest.raises(ModelError) as caught:
            list(made.trace(codes[:1]))
        assert str(caught.value) == sentence("left", pair)
        overwrite(made.loaded, wrong, table)
        for found, result in zip(run(plan, codes), expected, strict=True):
            assert found.bits == result.bits
            assert np.array_equal(found.outputs["result"], result.outputs["result"])


@every_kernel
def test_constants_of_a_static_program_are_looked_at_too(name: str) -> None:
    graph = network(dynamic=False)
    with kernel(name):
        plan = compiled(graph)
        made = native(plan)
        # the rows of all layers are equal, and kept once
        overwrite(made.loaded, graph.initializers[BITS][0], np.array([85, 3], np.int64))
        with pytest.raises(ModelError) as caught:
            list(run(plan, picture()))
    assert str(caught.value) == sentence("stem", (85, 3))


def tables(program: Program, layer: str) -> dict[str, Array]:
    """Return the table of choices, (9, 9), of each operation of a layer, by its name and number."""
    found = {}
    for number, operation in enumerate(program.operations):
        if isinstance(operation, Operation) and operation.step == layer and "choice" in operation.words:
            place = operation.words["choice"]
            assert isinstance(place, Constant)
            table = program.constants[place.number]
            assert isinstance(table, Data)
            found[f"{operation.function} {number}"] = table.array.reshape(9, 9)
    return found


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_each_planned_pair_has_one_variant_and_no_other_pair_has_any(isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where bits are counted at one of the pairs; nothing is run, so any CPU will do."""
    monkeypatch.setattr(import_module("dqtsim.engines.native.lower.one_bit"), "can_count", lambda isa: AND in isa.dots)
    plan = compiled(ones("FLOOR"))
    program = lower(plan, isa)
    for layer in ("left", "right"):
        found = tables(program, layer)
        names = ["nest", "bits", "conv", "conv"] if AND in isa.dots else ["nest", "conv"]
        assert [name.split()[0] for name in found if not name.startswith("panels")] == names
        convolutions = [table for name, table in found.items() if name.startswith("conv")]
        for pair in np.ndindex(9, 9):
            numbers = [int(table[pair]) for table in convolutions]
            if pair in plan_pairs(plan, layer):
                assert sum(number < len(plan.graph.candidates) for number in numbers) == 1
                assert numbers.count(ELSEWHERE) == len(numbers) - 1
            else:
                assert all(int(table[pair]) == NONE for table in found.values())


@every_kernel
@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH, Overflow.ERROR])
def test_registers_that_overflow_stop_too(name: str, overflow: Overflow) -> None:
    with kernel(name):
        plan = compiled(network(), accumulator_width=15, overflow=overflow)
        made = native(plan)
        wrong = np.array([(3, 7)] * 3, np.int64)
        overwrite(made.loaded, network().initializers["bits.candidates"], wrong)
        with pytest.raises(ModelError) as caught:
            list(run(plan, picture()))
    assert str(caught.value) == sentence("left", (3, 7))
