"""Moves by constant indices have a native form whatever they do; moves that follow each other become one operation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native.check import ProgramError, check
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.lower.rearrange import grid_of
from dqtsim.engines.native.program import Operation
from dqtsim.graph import Node, Value
from dqtsim.graph.model import Array
from dqtsim.planner import Plan
from tests.builders import compiled, constants, dense, node, plain

from .same import assert_native

SHAPE = (6, 4, 5)
# a move, and the constants that it needs
Move = tuple[str, dict[str, Any], dict[str, Any]]


def moves(steps: Sequence[Move], shape: Sequence[int] = SHAPE) -> Plan:
    """Return a network of moves one after the other, from 'x' (1, *shape)."""
    result = np.zeros((1, *shape), np.uint8)
    arrays: dict[str, Array] = {}
    nodes: list[Node] = []
    name = "x"
    for number, (operator, attributes, extra) in enumerate(steps):
        own = constants(f"{number}.", **extra)
        arrays |= own
        name, before = "y" if number == len(steps) - 1 else f"step{number}", name
        inputs = [before, before] if operator == "Concat" else [before, *own]
        nodes.append(node(operator, inputs, name, **attributes))
        result = moved(operator, attributes, extra, result)
    return compiled(plain(shape, nodes, result.shape, arrays=arrays))


def moved(operator: str, attributes: dict[str, Any], extra: dict[str, Any], x: Array) -> Array:
    """Return what a move gives, by NumPy alone."""
    match operator:
        case "Gather":
            found: Array = x.take(extra["indices"], attributes["axis"])
        case "Reshape":
            found = x.reshape(extra["shape"])
        case "Transpose":
            found = x.transpose(attributes["perm"])
        case "Concat":
            found = np.concatenate([x, x], attributes["axis"])
        case _:
            start, end, axis, step = (extra[role][0] for role in ("starts", "ends", "axes", "steps"))
            found = x.take(range(start, end, step), axis)
    return found


def shaped(*shape: int) -> Move:
    return "Reshape", {"allowzero": 0}, {"shape": shape}


def turned(*perm: int) -> Move:
    return "Transpose", {"perm": perm}, {}


def taken(axis: int, *indices: int) -> Move:
    return "Gather", {"axis": axis}, {"indices": indices}


def cut(axis: int, start: int, end: int, step: int = 1) -> Move:
    return "Slice", {}, {"starts": [start], "ends": [end], "axes": [axis], "steps": [step]}


def twice(axis: int) -> Move:
    return "Concat", {"axis": axis}, {}


SHUFFLE = [shaped(1, 2, 3, 4, 5), turned(0, 2, 1, 3, 4), shaped(1, 6, 4, 5)]
TO_SPACE = [shaped(1, 2, 3, 1, 4, 5), turned(0, 3, 4, 1, 5, 2), shaped(1, 1, 8, 15)]
TO_DEPTH = [shaped(1, 6, 2, 2, 1, 5), turned(0, 3, 5, 1, 2, 4), shaped(1, 60, 2, 1)]
CHAINS: dict[str, list[Move]] = {
    "shuffled channels": SHUFFLE,
    "depth to space": TO_SPACE,
    "space to depth": TO_DEPTH,
    "twice as large": [taken(2, 0, 0, 1, 1, 2, 2, 3, 3), taken(3, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4)],
    "half of the channels": [cut(1, 3, 6)],
    "every other column": [cut(3, 0, 5, 2)],
    "columns from the end": [taken(3, -1, -2, -3, -4, -5)],
    "channels last": [turned(0, 2, 3, 1)],
    "rows and columns": [turned(0, 1, 3, 2)],
    "a batch": [turned(1, 0, 2, 3), twice(0), twice(3)],
    "another order": [shaped(1, 5, 6, 4)],
    "one row": [taken(2, 1), shaped(1, 30)],
    "one code": [shaped(120), cut(0, 7, 8), shaped(1, 1, 1, 1)],
    "side by side": [twice(2), twice(3), twice(-3)],
    "shuffled after halves": [twice(1), shaped(1, 4, 3, 4, 5), turned(0, 2, 1, 3, 4), shaped(1, 12, 4, 5)],
}


def picture(plan: Plan) -> Array:
    """Return a sample whose codes all differ, as far as there are so many."""
    size = int(np.prod(plan.graph.input.shape))
    return (np.arange(size) * 7 % 256).astype(np.uint8).reshape(plan.graph.input.shape)


def functions(plan: Plan) -> list[str]:
    """Return the operations of a plan's steps."""
    return [op.function for op in lower(plan, ISAS[-1]).operations if isinstance(op, Operation) and op.step]


@pytest.mark.parametrize("name", CHAINS)
def test_moves_are_native(name: str) -> None:
    plan = moves(CHAINS[name])
    assert_native(plan, picture(plan), reference="spec", threads=(1, 2))


@pytest.mark.parametrize("chain", [SHUFFLE, TO_SPACE, TO_DEPTH, CHAINS["twice as large"]])
def test_moves_that_follow_each_other_are_one_operation(chain: list[Move]) -> None:
    assert functions(moves(chain)) == ["move"]


def test_parts_of_a_concat_are_moved_to_their_place() -> None:
    assert functions(moves([turned(0, 1, 3, 2), twice(1), cut(1, 0, 2)])) == ["move", "move", "move"]


def test_a_tensor_that_another_step_reads_is_stored() -> None:
    window: dict[str, Any] = {"kernel_shape": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    pool = node("MaxPool", ["step0"], "most", ceil_mode=0, storage_order=0, auto_pad="NOTSET", **window)
    graph = moves([turned(0, 1, 3, 2), cut(1, 0, 6)]).graph
    last = replace(graph.nodes[1], name="cut", outputs=("cut",))
    both = node("Concat", ["cut", "most"], "y", axis=1)
    nodes = (graph.nodes[0], last, pool, both)
    plan = compiled(replace(graph, nodes=nodes, outputs=(Value("y", "uint8", (1, 12, 5, 4)),)))
    assert functions(plan)[:2] == ["move", "max_pool"]
    assert_native(plan, picture(plan), reference="spec")


def test_an_output_between_moves_is_stored() -> None:
    graph = moves([turned(0, 1, 3, 2), cut(1, 0, 2)]).graph
    plan = compiled(replace(graph, outputs=(*graph.outputs, Value("step0", "uint8", (1, 6, 5, 4)))))
    assert functions(plan) == ["move", "move"]
    assert_native(plan, picture(plan), reference="spec")


def test_a_constant_is_a_part_of_a_concat() -> None:
    nodes = [node("Concat", ["plane", "x", "plane"], "y", axis=2)]
    plan = compiled(plain(SHAPE, nodes, (1, 6, 8, 5), arrays={"plane": np.full((1, 6, 2, 5), 77, np.uint8)}))
    assert_native(plan, picture(plan), reference="spec")


LOGITS = [[1, 1], [2, -1], [0, 3], [5, 0]]


def decided(*after: Node, shape: Sequence[int], dtype: str, **arrays: Any) -> Plan:
    """Return a layer of four logits, and what is done with them."""
    layer = dense(LOGITS, logits=True)
    one = constants(starts=[1], ends=[3], axes=[1], steps=[1], from_=[0], to=[1], axis=[0])
    initializers = {**layer.initializers, **one, **constants(**arrays)}
    outputs = (Value(after[-1].name, dtype, tuple(shape)),)
    return compiled(replace(layer, nodes=(*layer.nodes, *after), outputs=outputs, initializers=initializers))


def test_logits_move_too() -> None:
    cut_ = node("Slice", ["y", "starts", "ends", "axes", "steps"], "some")
    turned_ = node("Transpose", ["some"], "z", perm=(1, 0))
    plan = decided(cut_, turned_, shape=(2, 1), dtype="int32")
    assert_native(plan, np.array([[200, 100]], np.uint8), reference="spec")


BEST = node("ArgMax", ["y"], "best", axis=1, keepdims=0, select_last_index=0)
ROW = node("Gather", ["rows", "index"], "z", axis=0)


@pytest.mark.parametrize(
    ("between", "count", "whole"),
    [
        (node("Identity", ["best"], "index"), 1, True),
        (node("Concat", ["best", "best"], "index", axis=0), 2, False),
        (node("Slice", ["best", "from_", "to", "axis", "steps"], "index"), 1, False),
    ],
)
def test_indices_that_were_moved_have_no_proven_bound(between: Node, count: int, whole: bool) -> None:
    rows = [[1, 2], [3, 4], [5, 6], [7, 8]]
    plan = decided(BEST, between, ROW, shape=(count, 2), dtype="int64", rows=rows)
    assert_native(plan, np.array([[200, 100]], np.uint8), reference="spec", whole=whole)


def test_a_step_on_a_fallback_does_not_lose_the_bound_of_indices() -> None:
    """The row is taken after a Gather by moved indices, which runs on a fallback."""
    both = node("Concat", ["best", "best"], "index", axis=0)
    first, second = replace(ROW, outputs=("pair",), name="pair"), node("Gather", ["rows", "best"], "one", axis=0)
    last = node("Concat", ["pair", "one"], "z", axis=0)
    plan = decided(BEST, both, first, second, last, shape=(3, 2), dtype="int64", rows=[[1, 2], [3, 4], [5, 6], [7, 8]])
    assert_native(plan, np.array([[200, 100]], np.uint8), reference="spec", whole=False)


# ---- tables of offsets ----


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ({"bytes": 6}, "writes pieces of 6 bytes that overlap"),
        ({"pixels": 21}, "reads source_pixels from byte 0 to 168 of constant 0, which has 160"),
    ],
)
def test_a_mistake_in_a_move_is_told(words: dict[str, int], mistake: str) -> None:
    program = lower(moves(SHUFFLE), ISAS[-1])
    number = next(n for n, op in enumerate(program.operations) if isinstance(op, Operation) and op.function == "move")
    operation = program.operations[number]
    assert isinstance(operation, Operation)
    wrong = replace(operation, words={**operation.words, **words})
    operations = (*program.operations[:number], wrong, *program.operations[number + 1 :])
    with pytest.raises(ProgramError) as caught:
        check(replace(program, operations=operations))
    assert str(caught.value) == f"operation {number}, move of 'y', {mistake}."


@given(
    st.permutations(range(4)),
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
    st.sampled_from([1, 4, 8]),
    st.data(),
)
def test_pixels_and_pieces_are_every_element_once(
    perm: list[int], indices: list[int], size: int, data: st.DataObject
) -> None:
    shape = data.draw(st.tuples(*[st.integers(4, 6)] * 4), label="shape")
    whole = np.arange(np.prod(shape)).reshape(shape) * size
    source = whole.transpose(perm).take(indices, data.draw(st.integers(0, 3), label="axis"))
    target = np.arange(source.size).reshape(source.shape) * size + 1000
    grid = grid_of(source, target, size)
    assert grid.size % size == 0
    inside = np.arange(0, grid.size, size)
    own, other = (
        (pixels[:, None, None] + pieces[:, None] + inside).reshape(-1)
        for pixels, pieces in ((grid.source_pixels, grid.source_pieces), (grid.target_pixels, grid.target_pieces))
    )
    order = np.argsort(other)
    assert other[order].tolist() == target.reshape(-1).tolist()
    assert own[order].tolist() == source.reshape(-1).tolist()


def test_what_lies_side_by_side_is_one_piece() -> None:
    offsets = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8).transpose(0, 3, 1, 2)
    apart = offsets * 2
    assert (grid_of(offsets, offsets + 9, 1).size, grid_of(offsets, apart, 1).size) == (8, 1)
    halves = np.concatenate([offsets[:, 4:], offsets[:, :4]], 1)
    assert grid_of(halves, offsets, 1).size == 4
