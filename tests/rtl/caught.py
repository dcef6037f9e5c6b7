"""Which corner layer catches each planted fault; `python -m tests.rtl.caught` writes `caught.md` anew (minutes)."""

import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dqtsim.rtl import cosim
from tests.rtl.corners import CIRCUITS, faults
from tests.rtl.planted import EQUIVALENT, FAULTS

LIST = Path(__file__).parent / "caught.md"
Fault = tuple[str, str, str]
HEAD = """# Which corner layer catches each planted fault

Written by `python -m tests.rtl.caught`. `pytest tests/rtl/test_faults.py -m "slow or not slow"` plants each fault again
and finds it with the circuit listed, in the layer listed, at the word listed. Circuits and layers are those of
`corners.py`, in that order; the first that differs is listed, with the accumulator and the output there in hexadecimal.

| file | in place of | is planted | circuit | first layer that differs |
|---|---|---|---|---|
"""


def plant(fault: Fault, folder: Path) -> Path:
    """Copy the circuit to `folder` with the fault in it; returns `folder`."""
    name, old, new = fault
    shutil.copytree(cosim.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    file = folder / f"{name}.sv"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}.sv"
    file.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def caught(sources: Path, circuits: Iterable[str] = CIRCUITS) -> tuple[str, str]:
    """Return the first of `circuits` whose corner layers differ, and what differs; "", "" if none does."""
    for circuit in circuits:
        found = faults(circuit, "icarus", sources)
        if found:
            return circuit, found[0]
    return "", ""


def row(fault: Fault, circuit: str, finding: str) -> str:
    """Return the line of the list for a fault."""
    name, old, new = (part.replace("|", "\\|") for part in fault)
    said = f"none can: {EQUIVALENT[fault]}" if fault in EQUIVALENT else finding
    return f"| {name} | `{old}` | {f'`{new}`' if new else 'nothing'} | {circuit or 'none'} | {said} |"


def listed() -> list[str]:
    """Return the lines of the stored list, one a fault."""
    return LIST.read_text(encoding="utf-8").removeprefix(HEAD).splitlines()


def circuit_of(line: str) -> str:
    """Return the circuit that a line of the list names; "" for none."""
    circuit = line.split(" | ")[-2]
    return "" if circuit == "none" else circuit


def main() -> None:
    """Plant every fault and write the list."""
    lines = []
    for number, fault in enumerate(FAULTS):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(fault, *caught(plant(fault, Path(folder) / "rtl"))))
        print(f"{number + 1} of {len(FAULTS)}: {lines[-1]}", file=sys.stderr, flush=True)
    LIST.write_text(HEAD + "".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
