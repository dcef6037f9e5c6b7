"""The check checks: every planted fault is found by the corner layers, or it is argued to change nothing."""

import shutil
from pathlib import Path

import pytest

from dqtsim.errors import ToolError
from dqtsim.rtl import cosim
from tests.rtl.corners import CIRCUITS, faults
from tests.rtl.planted import EQUIVALENT, FAULTS

QUICK = 4


def caught_by(fault: tuple[str, str, str], folder: Path) -> str:
    """Return which circuit finds the fault, and how; "" if none does."""
    name, old, new = fault
    shutil.copytree(cosim.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    file = folder / f"{name}.sv"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}.sv"
    file.write_text(text.replace(old, new), encoding="utf-8")
    for circuit in CIRCUITS:
        try:
            found = faults(circuit, "icarus", folder)
        except ToolError as error:
            pytest.fail(f"the fault does not build: {error}")
        if found:
            return f"{circuit}: {found[0]}"
    return ""


def check(fault: tuple[str, str, str], folder: Path) -> None:
    found = caught_by(fault, folder)
    assert bool(found) == (fault not in EQUIVALENT), found or "no circuit finds the fault"


def test_there_are_faults() -> None:
    assert len(FAULTS) - len(EQUIVALENT) >= 30
    assert set(EQUIVALENT) <= set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS[:QUICK], ids=lambda fault: f"{fault[0]} {fault[1]}")
def test_a_few_faults_are_found(fault: tuple[str, str, str], tmp_path: Path, icarus: str) -> None:
    check(fault, tmp_path / icarus)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS[QUICK:], ids=lambda fault: f"{fault[0]} {fault[1]} to {fault[2]}")
def test_every_fault_is_found(fault: tuple[str, str, str], tmp_path: Path, icarus: str) -> None:
    check(fault, tmp_path / icarus)
