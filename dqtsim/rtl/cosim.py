"""Co-simulation: the circuit runs a layer's vectors and every accumulator and output is compared, bit for bit."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np

from ..errors import ToolError
from ..numbers import of_overflow
from ..spec.rules import Overflow
from .vectors import LayerVector, parameters, write

SIMULATORS = {"verilator": ("verilator", "g++", "make"), "icarus": ("iverilog", "vvp")}
FOLDER = Path(__file__).parent
# a package must come before its users
SOURCES = (
    *("dqt", "dqt_nest", "dqt_row_edge", "dqt_column_edge", "dqt_pe", "dqt_narrow", "dqt_requant", "dqt_window"),
    *("dqt_row", "dqt_ones", "dqt_half", "dqt_tile", "dqt_address", "dqt_layer", "dqt_bench"),
)
TOP = "dqt_bench"
_RESULT = re.compile(r"^RESULT words=(\d+) bad=(\d+) cycles=(\d+) overflows=(\d+)$", re.M)
_FIRST = re.compile(r"^FIRST index=(\d+) acc=(\w+) expected=(\w+) y=(\w+) expected=(\w+) u=(\w+) expected=(\w+)$", re.M)

__all__ = ["SIMULATORS", "SOURCES", "Finding", "build", "check", "missing", "parameters", "simulate"]


@dataclass(frozen=True)
class Finding:
    """The result of a circuit for one layer; `fault` is "" if everything is as expected."""

    vector: LayerVector
    words: int
    bad: int
    cycles: int
    fault: str


def missing(simulator: str) -> list[str]:
    """Return the programs that `simulator` needs and this machine lacks."""
    return [program for program in SIMULATORS[simulator] if shutil.which(program) is None]


def build(
    hardware: Mapping[str, int], vectors: Sequence[LayerVector], simulator: str, sources: Path = FOLDER
) -> list[str]:
    """Return the command that runs the bench for `hardware`, with room for all `vectors`; built at most once.

    Raises ToolError where a program is missing or the build fails.
    """
    lacking = missing(simulator)
    if lacking:
        package = "verilator g++ make" if simulator == "verilator" else "iverilog"
        raise ToolError(
            f"simulator '{simulator}' needs {' and '.join(lacking)}; install with 'apt-get install {package}'."
        )
    settings = {**hardware, **_room(vectors)}
    files = [sources / f"{name}.sv" for name in SOURCES]
    key = hashlib.sha256(_version(simulator).encode())
    key.update(json.dumps([simulator, settings], sort_keys=True).encode())
    for file in files:
        key.update(file.read_bytes())
    folder = _cache()
    target = folder / f"{simulator}-{key.hexdigest()[:24]}"
    if not target.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as aside:
                made = _compile(simulator, settings, files, Path(aside))
                made.replace(target)
        except OSError as error:
            raise ToolError(f"the build folder '{folder}' cannot be used: {error.strerror or error}.") from None
    return [str(target)] if simulator == "verilator" else ["vvp", "-n", str(target)]


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "dqtsim" / "rtl"


def _room(vectors: Sequence[LayerVector]) -> dict[str, int]:
    """Return the sizes of the bench's memories: powers of two, so that networks of a size share a build."""

    def words(name: str) -> int:
        most = max((vector.arrays[name].size for vector in vectors), default=1)
        return 1 << max(16, (most - 1).bit_length())

    return {f"{name.upper()}_WORDS": words(name) for name in ("x", "w", "y")}


def _version(simulator: str) -> str:
    flag = {"verilator": "--version", "icarus": "-V"}[simulator]
    run = subprocess.run([SIMULATORS[simulator][0], flag], capture_output=True, text=True, check=False)
    return run.stdout.partition("\n")[0]


def _compile(simulator: str, settings: Mapping[str, int], files: Sequence[Path], folder: Path) -> Path:
    out = folder / "bench"
    if simulator == "verilator":
        command = ["verilator", "--binary", "--timing", "-O3", "-CFLAGS", "-O2", "-Wno-WIDTH", "-Wno-fatal"]
        command += ["-j", "2", "--top-module", TOP, "-Mdir", str(folder), "-o", "bench"]
        command += [f"-G{name}={value}" for name, value in settings.items()]
    else:
        command = ["iverilog", "-g2012", "-s", TOP, "-o", str(out)]
        command += [f"-P{TOP}.{name}={value}" for name, value in settings.items()]
    run = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    if run.returncode or not out.is_file():
        lines = [line for line in (run.stderr + run.stdout).splitlines() if "error" in line.lower()]
        raise ToolError(f"simulator '{simulator}' cannot build the tile: {lines[0].strip() if lines else 'no reason'}.")
    return out


def simulate(command: Sequence[str], hardware: Mapping[str, int], vector: LayerVector) -> Finding:
    """Run one layer through the circuit and compare."""
    with tempfile.TemporaryDirectory(prefix="dqtsim-") as folder:
        write(vector, hardware, Path(folder))
        run = subprocess.run([*command, f"+dir={folder}"], capture_output=True, text=True, check=False)
    return check(run.stdout, hardware, vector)


def check(output: str, hardware: Mapping[str, int], vector: LayerVector) -> Finding:
    """Return the finding from a bench's `output`; anything but a complete result is a fault."""
    results = _RESULT.findall(output)
    if len(results) != 1:
        said = output.strip().splitlines()
        return Finding(vector, 0, 0, 0, f"the bench gave no result: {said[-1] if said else 'no output'}")
    words, bad, cycles, overflows = (int(number) for number in results[0])
    fault = ""
    expected = vector.arrays["y"].size
    if bad:
        fault = f"{bad:,} of {words:,} outputs differ; {_first(output, vector)}"
    elif words != expected:
        fault = f"{words:,} outputs of {expected:,} came out"
    elif cycles != vector.config["cycles"]:
        fault = f"{cycles:,} cycles, expected {vector.config['cycles']:,}"
    elif overflows != (counted := _overflows(hardware, vector, overflows)):
        fault = f"{overflows:,} sums left the register, expected {counted:,}"
    return Finding(vector, words, bad, cycles, fault)


def _overflows(hardware: Mapping[str, int], vector: LayerVector, seen: int) -> int:
    """Return how many sums left the register in the engine, if the circuit keeps the exact sum and can tell."""
    policy = next(policy for policy in Overflow if of_overflow(policy) == hardware["OVERFLOW"])
    match policy:
        case Overflow.ERROR | Overflow.SATURATE:
            return seen if vector.flags is None else vector.flags.saturations
        case Overflow.WRAP | Overflow.SATURATE_EACH:
            return seen
        case _:
            assert_never(policy)


def _first(output: str, vector: LayerVector) -> str:
    found = _FIRST.search(output)
    if found is None:
        return "the first is not known"
    index, *words = found.groups()
    at = ", ".join(str(i) for i in np.unravel_index(int(index), vector.arrays["y"].shape))
    acc, expected_acc, y, expected, u, expected_u = words
    ones = f"sum of operands {u}, expected {expected_u}; " if "u" in vector.arrays else ""
    return (
        f"first at [{at}]: {ones}accumulator {acc}, expected {expected_acc}; output {y}, expected {expected} "
        "(hexadecimal)"
    )
