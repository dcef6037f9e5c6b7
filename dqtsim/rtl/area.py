"""Cell counts of the elements and the tile after synthesis by Yosys: estimates, for comparing circuits with each other.

A count is the result of one synthesis by one version of one tool, before placement and routing, without a clock
constraint. So each circuit is mapped in several ways, and only a ratio that holds in all of them counts.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from ..errors import ToolError
from ..numbers import NEST_MIDPOINT, of_mode
from ..target import ArrayMode
from .cosim import FOLDER, SOURCES

__all__ = ["CIRCUITS", "MAPPINGS", "MODES", "SIDE", "Areas", "TileArea", "base_of", "measure", "version"]

ACCUMULATORS = (16, 24, 32)
SIDE = 16  # of the tile that is counted
# transistors of static CMOS gates, as in Yosys' own `stat -tech cmos`; four of them, a NAND, are one gate equivalent
_TRANSISTORS = {
    **{"$_NOT_": 2, "$_NAND_": 4, "$_NOR_": 4, "$_AND_": 6, "$_OR_": 6, "$_ANDNOT_": 6, "$_ORNOT_": 6},
    **{"$_XOR_": 12, "$_XNOR_": 12, "$_MUX_": 12, "$_DFF_P_": 16},
}
_GATES = {name: count / 4 for name, count in _TRANSISTORS.items()}
# the thorough script of abc takes minutes for one requantizer
_PLAIN = "synth -noabc -top area_top; dfflegalize -cell $_DFF_P_ x; abc -fast{}; opt_clean"


@dataclass(frozen=True)
class Technology:
    """A way to map: the unit, the commands, and the weight of each kind of cell; others, such as registers, count 0."""

    counted: str
    commands: str
    weights: Mapping[str, float]


MAPPINGS: dict[str, Technology] = {
    "gates": Technology("gate equivalents, any simple gate", _PLAIN.format(""), _GATES),
    "nand": Technology("gate equivalents, NAND and NOT alone", _PLAIN.format(" -g NAND"), _GATES),
    "lut4": Technology("4-input tables", "synth -top area_top -lut 4", {"$lut": 1}),
    "lut6": Technology("6-input tables", "synth -top area_top -lut 6", {"$lut": 1}),
    "ice40": Technology("SB_LUT4 of iCE40", "synth_ice40 -noflatten -top area_top", {"SB_LUT4": 1}),
    "ecp5": Technology(
        *("LUT4 of ECP5, a CCU2C as two", "synth_ecp5 -noflatten -nodsp -top area_top"), {"LUT4": 1, "CCU2C": 2}
    ),
    "xilinx": Technology(
        "LUT1 to LUT6 of Xilinx 7",
        "synth_xilinx -nodsp -noiopad -noclkbuf -top area_top",
        {f"LUT{inputs}": 1 for inputs in range(1, 7)},
    ),
}


# the module and the parameters of a circuit that is counted
Circuit = tuple[str, dict[str, int]]


def _name(mode: ArrayMode) -> str:
    match mode:
        case ArrayMode.PARALLEL:
            return "parallel"
        case ArrayMode.ACTIVATION_SERIAL:
            return "activation bits"
        case ArrayMode.DIGIT_SERIAL:
            return "2-bit digits"
        case _:
            assert_never(mode)


def _element(mode: ArrayMode) -> tuple[int, int, int]:
    """Return the widths of the activation and the weight that an element multiplies, and 1 if it works in steps."""
    match mode:
        case ArrayMode.PARALLEL:
            return 9, 8, 0
        case ArrayMode.ACTIVATION_SERIAL:
            return 2, 8, 1
        case ArrayMode.DIGIT_SERIAL:
            return 3, 4, 1
        case _:
            assert_never(mode)


MODES = {mode: _name(mode) for mode in ArrayMode}
COLUMN_END = "column end, 32"
# of CENTROID: half a weight step of every tap, one circuit for a tile, and the column end that takes it off
HALF, LESS_HALF = "half of the ones, 25", "column end less half, 32"


def _circuits() -> dict[str, Circuit]:
    """Return the module and the parameters of each circuit, by name; a number at the end is the accumulator width."""
    found: dict[str, Circuit] = {}
    for width in ACCUMULATORS:
        found[f"plain 8-bit MAC, {width}"] = "area_mac", {"SUM_W": width}
        for mode, name in MODES.items():
            a, w, serial = _element(mode)
            shape = {"A_W": a, "W_W": w, "SUM_W": width, "SERIAL": serial}
            found[f"{name}, {width}"] = "dqt_pe", shape
            found[f"{name}, nesting inside, {width}"] = "area_nesting_pe", {**shape, "MODE": of_mode(mode)}
            if width == 24:
                found[f"{name}, clamp each, {width}"] = "dqt_pe", {**shape, "EACH": 1}
    for mode, name in MODES.items():
        a, w, _ = _element(mode)
        found[f"{name}, row edge"] = "dqt_row_edge", {"MODE": of_mode(mode), "A_W": a}
        found[f"{name}, column edge"] = "dqt_column_edge", {"MODE": of_mode(mode), "W_W": w, "RULE": NEST_MIDPOINT}
    found[COLUMN_END] = "dqt_requant", {"ACC_W": 32}
    return found


def _optional() -> dict[str, Circuit]:
    """Return the circuits of which only tiles with an option have one: windows, padding codes, the column of ones."""
    found: dict[str, Circuit] = {}
    for mode, name in MODES.items():
        a, _, serial = _element(mode)
        edge = {"MODE": of_mode(mode), "A_W": a}
        found[f"{name}, row edge, window"] = "dqt_row", {**edge, "WINDOWS": 1}
        found[f"{name}, row edge, padding code"] = "dqt_row", {**edge, "PADDING": 1}
        found[f"{name}, one of the ones, 25"] = "dqt_ones", {"A_W": a, "U_W": 25, "SERIAL": serial}
    found[HALF] = "dqt_half", {"U_W": 25}
    found[LESS_HALF] = "area_less_half", {}
    return found


_PLAIN_CIRCUITS, _OPTIONAL_CIRCUITS = _circuits(), _optional()
CIRCUITS = _PLAIN_CIRCUITS | _OPTIONAL_CIRCUITS
_PLAIN_FILES = (*SOURCES[: SOURCES.index("dqt_window")], "area")
_OPTIONAL_FILES = (*SOURCES[: SOURCES.index("dqt_tile")], "area_options")


def base_of(circuit: str) -> str:
    """Return the plain MAC with which an element is compared; "" for other circuits."""
    settings = CIRCUITS[circuit][1]
    return f"plain 8-bit MAC, {settings['SUM_W']}" if "SUM_W" in settings else ""


@dataclass(frozen=True)
class TileArea:
    """A tile of SIDE x SIDE elements with 32-bit accumulators, without control and multiplexers to the column ends."""

    elements: float
    edges: float
    column_ends: float
    nesting_elements: float

    @property
    def nesting_at_edges(self) -> float:
        """Return the area of the tile as it is."""
        return self.elements + self.edges + self.column_ends

    @property
    def nesting_inside(self) -> float:
        """Return the area of the tile if each element nested by itself."""
        return self.nesting_elements + self.column_ends


@dataclass(frozen=True)
class Areas:
    """The counts, by mapping, circuit and kind of cell."""

    yosys: str
    cells: Mapping[str, Mapping[str, Mapping[str, int]]]

    def area(self, mapping: str, circuit: str) -> float:
        """Return the weighted count of a circuit."""
        cells, weights = self.cells[mapping][circuit], MAPPINGS[mapping].weights
        if weights is _GATES and (strange := sorted(set(cells) - set(weights))):
            raise ToolError(f"Yosys left cells that have no gate equivalent: {', '.join(strange)}.")
        return sum(weights.get(kind, 0) * count for kind, count in cells.items())

    def ratios(self, circuit: str) -> tuple[float, float]:
        """Return the least and the greatest ratio of a circuit's area to that of `base_of(circuit)` over mappings."""
        base = base_of(circuit)
        found = [self.area(mapping, circuit) / self.area(mapping, base) for mapping in self.cells]
        return min(found), max(found)

    def tile(self, mapping: str, mode: ArrayMode) -> TileArea:
        """Return the sum of the parts of a tile."""
        name = MODES[mode]
        edges = self.area(mapping, f"{name}, row edge") + self.area(mapping, f"{name}, column edge")
        return TileArea(
            SIDE**2 * self.area(mapping, f"{name}, 32"),
            SIDE * edges,
            SIDE * self.area(mapping, COLUMN_END),
            SIDE**2 * self.area(mapping, f"{name}, nesting inside, 32"),
        )

    def added(self, mapping: str, mode: ArrayMode) -> dict[str, float]:
        """Return by how much of its area each option makes the tile larger; a padding code may make it smaller."""
        name, tile = MODES[mode], self.tile(mapping, mode).nesting_at_edges
        edge, end = self.area(mapping, f"{name}, row edge"), self.area(mapping, COLUMN_END)
        ones = self.area(mapping, f"{name}, one of the ones, 25") + self.area(mapping, LESS_HALF) - end
        return {
            "windows": SIDE * (self.area(mapping, f"{name}, row edge, window") - edge) / tile,
            "padding codes": SIDE * (self.area(mapping, f"{name}, row edge, padding code") - edge) / tile,
            "column of ones": (SIDE * ones + self.area(mapping, HALF)) / tile,
        }


def version() -> str:
    """Return the version of Yosys. Raises ToolError if Yosys is missing."""
    if shutil.which("yosys") is None:
        raise ToolError("areas need yosys; install with 'apt-get install yosys'.")
    run = subprocess.run(["yosys", "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"Yosys (\S+)", run.stdout)
    return found.group(1) if found else "of unknown version"


def measure(mappings: Sequence[str], done: Callable[[], None] = lambda: None) -> Areas:
    """Synthesize every circuit in each of `mappings`, calling `done` after each.

    Raises ToolError if Yosys is missing or fails.
    """
    used = version()
    # apart, so that the counts of the plain circuits do not depend on what options there are
    groups = [
        {name: CIRCUITS[name] for name in CIRCUITS if name in group} for group in (_PLAIN_CIRCUITS, _OPTIONAL_CIRCUITS)
    ]

    def counted(mapping: str) -> dict[str, dict[str, int]]:
        cells = [_map(mapping, folder / str(number), group) for number, group in enumerate(groups) if group]
        done()
        return {name: found for each in cells for name, found in each.items()}

    with tempfile.TemporaryDirectory(prefix="dqtsim-") as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        for number, (group, files) in enumerate(zip(groups, (_PLAIN_FILES, _OPTIONAL_FILES), strict=True)):
            _elaborate(folder / str(number), group, files)
        return Areas(used, dict(zip(mappings, pool.map(counted, mappings), strict=True)))


def _identifier(circuit: str) -> str:
    return "area_of_" + re.sub(r"\W+", "_", circuit)


def _elaborate(folder: Path, circuits: Mapping[str, Circuit], names: Sequence[str]) -> None:
    """Write each circuit as one module with its parameters in place into a new folder."""
    folder.mkdir()
    files = [f"{name}.sv" for name in names]
    # by file names without folders: Yosys names cells by file and line, and ABC's result depends on the order of names
    for file in files:
        shutil.copy(FOLDER / file, folder)
    lines = [f"read_verilog -sv {' '.join(files)}", "design -save all"]
    for name, (module, settings) in circuits.items():
        own = _identifier(name)
        chosen = " ".join(f"-set {key} {value}" for key, value in settings.items())
        lines += ["design -load all", f"chparam {chosen} {module}" if chosen else "", f"hierarchy -check -top {module}"]
        lines += ["proc", "flatten", f"rename -top {own}", f"write_rtlil {own}.il"]
    _yosys("elaborate", lines, folder)


def _map(mapping: str, folder: Path, circuits: Mapping[str, Circuit]) -> dict[str, dict[str, int]]:
    """Return the cells of every circuit after a mapping: the counts of each kind."""
    own = {name: _identifier(name) for name in circuits}
    top = "".join(f"(* keep *) {module} {module}_ ();\n" for module in own.values())
    (folder / f"{mapping}.v").write_text(f"module area_top;\n{top}endmodule\n", encoding="ascii")
    lines = [f"read_rtlil {module}.il" for module in own.values()]
    lines += [f"read_verilog {mapping}.v", MAPPINGS[mapping].commands, f"tee -o {mapping}.txt stat"]
    _yosys(mapping, lines, folder)
    # `stat -json` of Yosys 0.23 is not valid JSON if modules contain modules
    _, *blocks = re.split(r"^=== (\S+) ===$", (folder / f"{mapping}.txt").read_text(encoding="utf-8"), flags=re.M)
    cells = {
        module: {kind: int(count) for kind, count in re.findall(r"^     (\S+) +(\d+)$", block, re.M)}
        for module, block in zip(blocks[::2], blocks[1::2], strict=True)
    }
    return {name: cells[module] for name, module in own.items()}


def _yosys(name: str, lines: Sequence[str], folder: Path) -> None:
    (folder / f"{name}.ys").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = subprocess.run(["yosys", "-q", f"{name}.ys"], cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        said = [line for line in (run.stderr + run.stdout).splitlines() if "ERROR" in line]
        raise ToolError(f"Yosys cannot synthesize the tile: {said[0].strip() if said else 'no reason given.'}")
