"""Graphs and plans are values: they compare, print in a line, and run in another process with the same bits."""

import gc
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from weakref import ref

import numpy as np
import pytest

from dqtsim import load_target, plan, run
from dqtsim.engines.native import native
from dqtsim.graph import Graph, from_onnx, to_onnx
from dqtsim.planner import Plan
from tests.builders import compiled, network, picture

Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def answer(made: Plan, codes: Array, engine: str) -> list[object]:
    """Return all that results say, for comparison between processes."""
    return [
        (dict(r.flags), r.bits, r.bitops, {name: array.tolist() for name, array in r.outputs.items()})
        for r in run(made, codes, engine)
    ]


def other(graph: Graph, name: str, code: int) -> Graph:
    array = graph.initializers[name].copy()
    array.flat[0] ^= code
    return replace(graph, initializers={**graph.initializers, name: array})


def test_a_graph_read_again_is_equal() -> None:
    graph, again = network(), from_onnx(to_onnx(network()))
    assert graph == again
    assert hash(graph) == hash(again)
    assert graph != "graph"


@pytest.mark.parametrize("change", [{"name": "x"}, {"producer": {"a": "b"}}, {"class_names": ("other",)}])
def test_a_graph_that_says_something_else_is_not_equal(change: dict[str, object]) -> None:
    graph = network()
    assert graph != replace(graph, **change)  # type: ignore[arg-type]


def test_a_bit_makes_another_graph() -> None:
    graph = network()
    names = [name for name, array in graph.initializers.items() if array.dtype == np.uint8 and array.ndim == 4]
    assert names
    assert graph != other(graph, names[0], 1)
    assert graph == other(graph, names[0], 0)


def test_a_dtype_makes_another_graph() -> None:
    graph = network()
    name = next(name for name, array in graph.initializers.items() if array.dtype == np.int64)
    changed = {**graph.initializers, name: graph.initializers[name].astype(np.int32)}
    assert graph != replace(graph, initializers=changed)


def test_what_is_unpickled_is_equal_and_read_only() -> None:
    made = compiled(network())
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.graph == made.graph
    assert again.steps[0].operator is made.steps[0].operator
    assert [step.call.bounds for step in again.steps] == [step.call.bounds for step in made.steps]
    for array in again.graph.initializers.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        again.graph.initializers["x"] = 0


def test_plans_of_other_targets_are_not_equal() -> None:
    graph = network()
    first, second = (plan(graph, load_target(name)) for name in ("default", "acc16-wrap"))
    assert first == plan(graph, load_target("default"))
    assert hash(first) == hash(plan(graph, load_target("default")))
    assert first != second


def test_a_plan_that_ran_pickles_without_its_engine() -> None:
    made, before = compiled(network()), len(pickle.dumps(compiled(network())))
    answer(made, picture(count=2), "native")
    # proven bounds go along, machine code and arenas do not
    assert len(pickle.dumps(made)) < 2 * before


@pytest.mark.parametrize("engine", ["native", "numba", "spec"])
def test_a_plan_runs_in_another_process_with_the_same_bits(engine: str) -> None:
    made, codes = plan(network(), load_target("acc16-wrap")), picture(count=3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(answer, made, codes, engine).result()
    assert there == answer(made, codes, engine)


def test_graphs_and_plans_print_in_a_line() -> None:
    made = compiled(network())
    for value in (made.graph, made):
        text = repr(value)
        assert "\n" not in text
        assert len(text) < 200
    assert repr(made.graph).startswith(f"<Graph '{made.graph.name}': input uint8 {made.graph.input.shape}, ")
    assert repr(made).startswith(f"<Plan of '{made.graph.name}' for target 'test': {len(made.steps)} steps, ")


def test_a_plan_has_one_engine_as_long_as_it_lives() -> None:
    made = compiled(network())
    engine = ref(native(made))
    assert native(made) is engine()
    assert native(compiled(network())) is not engine()
    del made
    gc.collect()
    assert engine() is None
