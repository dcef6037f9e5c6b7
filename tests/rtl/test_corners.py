"""The circuit gives every bit and every cycle of the corner layers, in both simulators."""

import pytest

from dqtsim.spec.rules import Nesting, Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode
from tests.rtl.corners import CIRCUITS, faults, layers


@pytest.mark.parametrize("name", CIRCUITS)
def test_corner_layers(name: str, icarus: str) -> None:
    assert faults(name, icarus) == []


@pytest.mark.parametrize("name", ["parallel each", "digits wrap", "bits windows", "digits centroid"])
def test_corner_layers_in_the_other_simulator(name: str, verilator: str) -> None:
    assert faults(name, verilator) == []


def test_corner_layers_reach_the_corners() -> None:
    seen = [vector for name in CIRCUITS for vector in layers(name)[1]]
    shifts = {int(s) for vector in seen for s in vector.arrays["s"]}
    assert {0, 1, 61, 62} <= shifts
    assert len(shifts) > 55
    assert {vector.operator for vector in seen} == {"NestedConv", "NestedGemm", "NestedLogits"}
    for name, circuit in CIRCUITS.items():
        flags = [vector.flags for vector in layers(name)[1] if vector.flags is not None]
        policy = circuit.target["overflow"]
        if policy == Overflow.WRAP:
            assert sum(flag.wraps for flag in flags)
        elif policy != Overflow.ERROR:
            assert sum(flag.saturations for flag in flags)


def test_corner_circuits_have_every_choice() -> None:
    """Each number of `dqt.sv` is built by some circuit, so a module that has no answer for it is found."""
    plans = [circuit.plan(circuit.pairs[0], "pointwise") for circuit in CIRCUITS.values()]
    assert {plan.machine.rounding for plan in plans} == set(Rounding)
    assert {plan.machine.weight_rule for plan in plans} == set(Nesting)
    assert {plan.machine.overflow for plan in plans} == set(Overflow)
    assert {plan.machine.tap_order for plan in plans} == set(TapOrder)
    assert {plan.target.mode for plan in plans} == set(ArrayMode)
