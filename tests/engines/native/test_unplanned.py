"""Widths that no checked graph gives, forced past the reader: every engine stops with the layer and the pair (B8)."""

import ctypes
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.run.program import Program
from dqtsim.engines.registry import ENGINES, Trace, engine, run
from dqtsim.errors import ModelError
from dqtsim.graph import BITS, Graph
from dqtsim.planner import Plan
from dqtsim.spec import Overflow
from tests.builders import Array, compiled, network, picture
from tests.graph.changes import put
from tests.vectorkernels import kernel, kernels

HUGE = 1 << 62
PAIRS = [(5, 5), (2, 4), (0, 0), (9, 8), (99, 99), (85, 3), (-1, 8), (1 << 30, 1 << 30), (HUGE, -HUGE)]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
every_kernel = pytest.mark.parametrize("name", kernels())


def sentence(layer: str, pair: tuple[int, int]) -> str:
    return f"{network().node(layer).title} runs only at widths that were planned for it; found {pair}."


def exchanged(plan: Plan, graph: Graph) -> Plan:
    """Return `plan` with another graph than the one that was planned."""
    return replace(plan, graph=graph, engines={})


def overwrite(program: Program, table: Array, values: Array) -> None:
    """Change a constant where the native program reads it."""
    ctypes.memmove(program.lowered.memory.known[sha256(table.tobytes()).digest()], values.tobytes(), values.nbytes)


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
        for program in (made.program, made._kept):
            overwrite(program, table, wrong)
        for count, threads in ((1, 1), (1, 3), (5, 1), (5, 2)):
            with pytest.raises(ModelError) as caught:
                list(run(plan, codes[:count], "jit", threads))
            assert str(caught.value) == sentence("left", pair)
        with pytest.raises(ModelError) as caught:
            list(made.trace(codes[:1]))
        assert str(caught.value) == sentence("left", pair)
        overwrite(made.program, table, table)
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
        overwrite(made.program, graph.initializers[BITS][0], np.array([85, 3], np.int64))
        with pytest.raises(ModelError) as caught:
            list(run(plan, picture()))
    assert str(caught.value) == sentence("stem", (85, 3))


@every_kernel
@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH, Overflow.ERROR])
def test_registers_that_overflow_stop_too(name: str, overflow: Overflow) -> None:
    with kernel(name):
        plan = compiled(network(), accumulator_width=15, overflow=overflow)
        made = native(plan)
        wrong = np.array([(3, 7)] * 3, np.int64)
        overwrite(made.program, network().initializers["bits.candidates"], wrong)
        with pytest.raises(ModelError) as caught:
            list(run(plan, picture()))
    assert str(caught.value) == sentence("left", (3, 7))
