"""The README of the engine says what the code does."""

import re
from pathlib import Path

import dqtsim.engines.native
from dqtsim.engines.native.compile.build import VARIABLE, choose
from dqtsim.engines.native.compile.cache import NEWEST
from dqtsim.engines.native.compile.cache import VARIABLE as FOLDER
from dqtsim.engines.native.isa import ISAS

TEXT = Path(dqtsim.engines.native.__file__).with_name("README.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_the_kernels_of_every_cpu() -> None:
    start = next(number for number, row in enumerate(ROWS) if row[0] == VARIABLE)
    rows = ROWS[start + 2 : start + 2 + len(ISAS)]
    assert [names(row[0]) for row in rows] == [[isa.name] for isa in ISAS]
    for row, isa in zip(rows, ISAS, strict=True):
        for needs in row[1].split("; or "):
            assert choose({VARIABLE: isa.name}, dict.fromkeys(names(needs), True)).isa is isa
        assert names(row[1].split("; or ")[0]) == list(isa.needs[0] if isa.needs else ())


def test_names_and_numbers() -> None:
    assert f"`{FOLDER}`" in TEXT
    assert f"The {NEWEST} newest files are kept" in TEXT


def test_every_file_has_its_place() -> None:
    here = Path(dqtsim.engines.native.__file__).parent
    places = {path.name for path in here.glob("*.py")} | {f"{path.parent.name}/" for path in here.glob("*/__init__.py")}
    assert places - {"__init__.py"} <= {name for row in ROWS for cell in row for name in names(cell)}
