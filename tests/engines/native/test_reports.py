"""Reports: what is asked of a sample goes to one piece of memory in few copies, and its widths cost what they cost."""

from importlib import import_module

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.lower.report import joined
from dqtsim.engines.native.memory import Address, Constant, Spot
from dqtsim.engines.native.program import Operation
from dqtsim.engines.registry import run
from dqtsim.structures import build
from tests.builders import compiled, network

from .same import same_result

PLAN = compiled(network())


def test_pieces_that_follow_each_other_are_one() -> None:
    a = Spot(0)
    assert joined([]) == []
    assert joined([(a, 0, 8)]) == [(a, 0, 8)]
    assert joined([(a, 0, 8), (a + 8, 8, 16), (a + 24, 24, 1)]) == [(a, 0, 25)]
    # constants have addresses of their own
    assert joined([(Constant(7), 5, 16), (Constant(7, 16), 21, 16)]) == [(Constant(7), 5, 32)]


def test_pieces_that_do_not_stay_apart() -> None:
    """Of another buffer, with a gap on either side, or in another order."""
    a, b = Spot(0), Spot(1)
    cases: list[list[tuple[Address, int, int]]] = [
        [(a, 0, 8), (b + 8, 8, 8)],
        [(a, 0, 8), (a + 9, 8, 8)],
        [(a, 0, 8), (a + 8, 9, 8)],
        [(a, 0, 8), (a + 7, 8, 8)],
        [(a + 8, 0, 8), (a, 8, 8)],
        [(a, 8, 8), (a + 8, 0, 8)],
        [(Constant(0), 0, 8), (a + 8, 8, 8)],
    ]
    for pieces in cases:
        assert joined(pieces) == pieces


def test_chosen_widths_are_one_copy() -> None:
    """However many layers there are, whose names are in no order."""
    plan = compiled(build("resnet8", dynamic=True))
    program = native(plan).program
    copies = [
        op for op in program.operations if isinstance(op, Operation) and op.function == "copy_rows" and not op.step
    ]
    assert len(program.report.chosen) >= 9
    assert len(copies) <= 4
    codes = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    for found, expected in zip(run(plan, codes), run(plan, codes, "numba"), strict=True):
        same_result(found, expected)


@pytest.mark.parametrize("most", [1, 2, 4096])
def test_choices_that_are_forgotten_are_made_again(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("dqtsim.engines.native.run.engine"), "MOST_SEEN", most)
    plan = compiled(network())
    codes = np.random.default_rng(1).integers(0, 256, (40, *plan.graph.input.shape[1:]), np.uint8)
    expected = list(run(plan, codes, "numba"))
    assert len({result.bits for result in expected}) > 2
    for threads in (1, 3):
        for found, result in zip(run(plan, codes, "jit", threads), expected, strict=True):
            same_result(found, result)
    assert 1 <= len(native(plan)._choices._seen) <= most
