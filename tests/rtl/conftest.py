"""Skips where a program is missing, unless DQTSIM_SIMULATORS=required; builds go into a folder of the test run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dqtsim.rtl import cosim


@pytest.fixture(scope="session", autouse=True)
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder of builds, which tests of one run share."""
    folder = tmp_path_factory.mktemp("builds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def need(simulator: str) -> None:
    _demand(f"simulator {simulator}", cosim.missing(simulator))


def _demand(what: str, lacking: list[str]) -> None:
    if lacking:
        sentence = f"{what} is not installed: {' and '.join(lacking)} missing"
        if os.environ.get("DQTSIM_SIMULATORS") == "required":
            pytest.fail(sentence)
        pytest.skip(sentence)


@pytest.fixture
def icarus() -> str:
    """Skip unless Icarus is there."""
    need("icarus")
    return "icarus"


@pytest.fixture
def verilator() -> str:
    """Skip unless Verilator is there."""
    need("verilator")
    return "verilator"


@pytest.fixture
def yosys() -> str:
    """Skip unless Yosys is there."""
    _demand("synthesis", [] if shutil.which("yosys") else ["yosys"])
    return "yosys"
