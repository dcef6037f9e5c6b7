"""The check checks: every planted fault is found by the layer that `caught.md` names, or argued to change nothing."""

from pathlib import Path

import pytest

from dqtsim.errors import ToolError
from tests.rtl.caught import HEAD, LIST, Fault, caught, circuit_of, listed, plant, row
from tests.rtl.corners import CIRCUITS
from tests.rtl.planted import EQUIVALENT, FAULTS

QUICK = 4


def check(fault: Fault, folder: Path) -> None:
    """Plant the fault and run the circuit that is to find it; all circuits, where none is to."""
    line = listed()[FAULTS.index(fault)]
    circuit = circuit_of(line)
    try:
        found = caught(plant(fault, folder), [circuit] if circuit else CIRCUITS)
    except ToolError as error:
        pytest.fail(f"the fault does not build: {error}")
    assert bool(found[0]) == (fault not in EQUIVALENT), found[1] or "the circuit does not find the fault"
    assert row(fault, *found) == line


def test_there_are_faults() -> None:
    assert len(FAULTS) - len(EQUIVALENT) >= 30
    assert len(EQUIVALENT) == 1
    assert set(EQUIVALENT) <= set(FAULTS)


def test_the_list_has_a_line_for_each_fault() -> None:
    assert LIST.read_text(encoding="utf-8").startswith(HEAD)
    assert len(listed()) == len(FAULTS)
    for fault, line in zip(FAULTS, listed(), strict=True):
        circuit = circuit_of(line)
        assert line.startswith(row(fault, circuit, "")[: -len("  |")])
        assert (circuit in CIRCUITS) == (fault not in EQUIVALENT)


@pytest.mark.parametrize("fault", FAULTS[:QUICK], ids=lambda fault: f"{fault[0]} {fault[1]}")
def test_a_few_faults_are_found(fault: Fault, tmp_path: Path, icarus: str) -> None:
    check(fault, tmp_path / icarus)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS[QUICK:], ids=lambda fault: f"{fault[0]} {fault[1]} to {fault[2]}")
def test_every_fault_is_found(fault: Fault, tmp_path: Path, icarus: str) -> None:
    check(fault, tmp_path / icarus)
