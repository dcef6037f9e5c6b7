"""Choices have one table of numbers each, complete, and the circuit's package states the same."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from dqtsim import numbers
from dqtsim.rtl import cosim
from dqtsim.spec import Nesting, Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode

TABLES: list[tuple[type[StrEnum], Callable[[Any], int], str]] = [
    (Nesting, numbers.of_nesting, "NEST_"),
    (Rounding, numbers.of_rounding, ""),
    (Overflow, numbers.of_overflow, ""),
    (TapOrder, numbers.of_tap_order, ""),
    (ArrayMode, numbers.of_mode, ""),
]
NAMED = {name: value for name, value in vars(numbers).items() if isinstance(value, int)}


def test_every_member_has_the_number_that_its_name_has() -> None:
    expected = {
        f"{prefix}{member.value}": number_of(member) for choice, number_of, prefix in TABLES for member in choice
    }
    assert expected == NAMED


@pytest.mark.parametrize(("choice", "number_of"), [(choice, number_of) for choice, number_of, _ in TABLES])
def test_numbers_of_a_choice_are_0_and_up(choice: type[StrEnum], number_of: Callable[[Any], int]) -> None:
    assert [number_of(member) for member in choice] == list(range(len(choice)))


def test_the_circuit_states_the_same_numbers() -> None:
    package = (cosim.FOLDER / "dqt.sv").read_text(encoding="utf-8")
    lines = re.findall(r"localparam int ([^;]+);", package)
    stated = dict(entry.split(" = ") for line in lines for entry in line.split(", "))
    assert {name: int(value) for name, value in stated.items()} == NAMED


def test_numbers_that_are_published_stay() -> None:
    assert NAMED == {
        **{"NEST_TIES_UP": 0, "NEST_FLOOR": 1, "NEST_MIDPOINT": 2, "NEST_CENTROID": 3},
        **{"TIES_UP": 0, "FLOOR": 1, "TIES_AWAY": 2, "TIES_EVEN": 3},
        **{"ERROR": 0, "WRAP": 1, "SATURATE": 2, "SATURATE_EACH": 3},
        **{"CHANNEL_ROW_COLUMN": 0, "ROW_COLUMN_CHANNEL": 1},
        **{"PARALLEL": 0, "ACTIVATION_SERIAL": 1, "DIGIT_SERIAL": 2},
    }
