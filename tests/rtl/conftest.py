"""Skips where a simulator is missing; builds go into a folder of the test run."""

from pathlib import Path

import pytest

from dqtsim.rtl import cosim


@pytest.fixture(scope="session", autouse=True)
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of builds, which tests of one run share."""
    folder = tmp_path_factory.mktemp("builds")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def need(simulator: str) -> None:
    lacking = cosim.missing(simulator)
    if lacking:
        pytest.skip(f"simulator {simulator} is not installed: {' and '.join(lacking)} missing")


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
