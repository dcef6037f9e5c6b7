"""The circuit is clean in Verilator with every warning on, and in slang."""

import os
import subprocess
from itertools import product

import pytest

from dqtsim.numbers import NEST_CENTROID
from dqtsim.rtl import cosim

OPTIONS = ["WINDOWS", "PADDING", "WEIGHT_RULE"]
FILES = [str(cosim.FOLDER / f"{name}.sv") for name in cosim.SOURCES]


@pytest.mark.parametrize(("mode", "overflow"), list(product(range(3), range(4))))
def test_verilator(mode: int, overflow: int, verilator: str) -> None:
    settings = {"MODE": mode, "OVERFLOW": overflow, "ROUNDING": overflow, "WEIGHT_RULE": (mode + overflow) % 3}
    settings |= {"TAP_ORDER": overflow % 2, "R": 3 + mode, "C": 1 + overflow}
    check_by_verilator(verilator, settings)


@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize(
    "options", [("WINDOWS",), ("PADDING",), ("WEIGHT_RULE",), ("WINDOWS", "PADDING", "WEIGHT_RULE")]
)
def test_verilator_on_options(mode: int, options: list[str], verilator: str) -> None:
    chosen = {name: NEST_CENTROID if name == "WEIGHT_RULE" else 1 for name in options}
    check_by_verilator(verilator, {"MODE": mode, "OVERFLOW": mode + 1, "BIAS_W": 8 + 16 * mode, **chosen})


def check_by_verilator(verilator: str, settings: dict[str, int]) -> None:
    """Fail unless Verilator has nothing to say about the circuit of these parameters."""
    chosen = [f"-G{name}={value}" for name, value in settings.items()]
    command = [verilator, "--lint-only", "-Wall", "--top-module", "dqt_layer", *chosen, *FILES[:-1]]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


AREA = [str(cosim.FOLDER / f"{name}.sv") for name in ("area", "area_options")]


@pytest.mark.parametrize("top", ["area_mac", "area_nesting_pe", "area_less_half"])
def test_verilator_on_what_areas_are_compared_with(top: str, verilator: str) -> None:
    command = [verilator, "--lint-only", "-Wall", "-Wno-DECLFILENAME", "--top-module", top, *FILES[:-1]]
    run = subprocess.run([*command, *AREA], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "top",
    [
        *("dqt_layer", "area_mac", "area_nesting_pe", "area_less_half"),
        f"dqt_layer -G WINDOWS=1 -G PADDING=1 -G WEIGHT_RULE={NEST_CENTROID}",
    ],
)
def test_slang(top: str) -> None:
    pyslang = pytest.importorskip("pyslang", reason="pyslang is not installed")
    driver = pyslang.driver.Driver() if hasattr(pyslang, "driver") else pyslang.Driver()
    driver.addStandardArgs()
    # casts to a parameter's width are useless for some values of it
    warnings = ["-Wextra", "-Werror", "-Wno-useless-cast"]
    assert driver.parseCommandLine(" ".join(["slang", *warnings, "--top", top, *FILES, *AREA]))
    assert driver.processOptions()
    assert driver.parseAllSources()
    assert driver.runFullCompilation(True)


UNKNOWN = [
    ("WEIGHT_RULE", 4, "nesting"),
    ("ACTIVATION_RULE", 3, "nesting"),
    ("MODE", 3, "mode"),
    ("OVERFLOW", 4, "overflow"),
    ("ROUNDING", 4, "rounding"),
    ("TAP_ORDER", 2, "tap_order"),
]


@pytest.mark.parametrize(("parameter", "number", "choice"), UNKNOWN)
@pytest.mark.usefixtures("icarus")
def test_no_simulator_builds_a_circuit_of_an_unknown_number(
    parameter: str, number: int, choice: str, verilator: str
) -> None:
    setting = f"{parameter}={number}"
    for command in (
        [verilator, "--lint-only", "-Wno-fatal", "--top-module", "dqt_layer", f"-G{setting}", *FILES[:-1]],
        ["iverilog", "-g2012", "-s", "dqt_layer", f"-Pdqt_layer.{setting}", "-o", os.devnull, *FILES[:-1]],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode != 0
        assert f"dqt_unknown_{choice}" in run.stderr
