"""Areas: what the README prints is what a run counts, and what is counted is the circuit."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from dqtsim.cli import main
from dqtsim.errors import ToolError
from dqtsim.report.text.areas import area_block
from dqtsim.rtl import area, cosim
from dqtsim.target import ArrayMode
from tests.rtl.corners import faults, layers

README = (cosim.FOLDER / "README.md").read_text(encoding="utf-8")
FEW = ("plain 8-bit MAC, 16", "parallel, 16", "2-bit digits, 16", "2-bit digits, nesting inside, 16")


def printed() -> list[list[str]]:
    """Return what the README prints for `dqtsim rtl area`: the words of each line."""
    (block,) = re.findall(r"```console\n\$ dqtsim rtl area\n(.*?)```", README, re.S)
    return [re.split(r" {2,}", line.strip()) for line in block.splitlines()]


def test_areas_are_plausible_and_the_same_each_time(yosys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "CIRCUITS", {name: area.CIRCUITS[name] for name in FEW})
    once, again = (area.measure(["gates", "lut4"]) for _ in range(2))
    assert once == again
    for mapping in ("gates", "lut4"):
        mac, parallel, digits, inside = (once.area(mapping, name) for name in FEW)
        assert digits < mac < parallel
        assert digits < inside
    # the registers of an element are its accumulator
    assert [once.cells["gates"][name]["$_DFF_P_"] for name in FEW] == [16] * 4


@pytest.mark.slow
def test_all_areas_are_those_of_the_readme(yosys: str) -> None:
    (stated,) = re.findall(r"estimates: Yosys ([\d.]+),", README)
    if area.version() != stated:
        pytest.skip(f"the README's areas are of Yosys {stated}; this is {area.version()}")
    result = CliRunner().invoke(main, ["rtl", "area"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()] == printed()


def areas_of_ones() -> area.Areas:
    """Return areas as if every circuit had as many NANDs as its place in the list, from 1."""
    cells = {name: {"$_NAND_": place + 1, "$_DFF_P_": 0} for place, name in enumerate(area.CIRCUITS)}
    return area.Areas("0", {"gates": cells, "nand": {name: {"$_NAND_": 1} for name in cells}})


def test_a_tile_is_the_sum_of_its_parts() -> None:
    areas, place = areas_of_ones(), {name: number + 1 for number, name in enumerate(area.CIRCUITS)}
    tile = areas.tile("gates", ArrayMode.DIGIT_SERIAL)
    edges = 16 * (place["2-bit digits, row edge"] + place["2-bit digits, column edge"])
    assert (tile.edges, tile.elements) == (edges, 256 * place["2-bit digits, 32"])
    assert tile.nesting_at_edges == tile.elements + edges + 16 * place["column end, 32"]
    assert tile.nesting_inside == 256 * place["2-bit digits, nesting inside, 32"] + 16 * place["column end, 32"]


def test_a_ratio_is_to_the_mac_of_the_same_accumulator() -> None:
    areas, place = areas_of_ones(), {name: number + 1 for number, name in enumerate(area.CIRCUITS)}
    assert areas.ratios("parallel, 24") == (1, place["parallel, 24"] / place["plain 8-bit MAC, 24"])
    assert area.base_of("column end, 32") == ""


def test_an_unknown_gate_is_not_taken_for_nothing() -> None:
    areas = area.Areas("0", {"gates": {"parallel, 16": {"$_NAND_": 1, "$_TBUF_": 2}}})
    with pytest.raises(ToolError, match=r"no gate equivalent: \$_TBUF_\."):
        areas.area("gates", "parallel, 16")


def test_json_has_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "measure", lambda *_: areas_of_ones())
    result = CliRunner().invoke(main, ["rtl", "area", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found == json.loads(json.dumps(area_block(areas_of_ones())))
    assert (found["estimate"], found["yosys"], list(found["circuits"])) == (True, "0", list(area.CIRCUITS))
    assert found["circuits"]["parallel, 16"]["cells"]["gates"] == {"$_NAND_": 2, "$_DFF_P_": 0}
    assert found["tiles"]["parallel"]["nand"] == {
        "elements": 256,
        "edges": 32,
        "column_ends": 16,
        "nesting_elements": 256,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parallel wrap", "digits each", "digits centroid, master 5"])
def test_the_netlist_gives_the_bits_of_the_law(name: str, yosys: str, verilator: str, tmp_path: Path) -> None:
    """Yosys reads the sources as the simulators do: the tile that it makes of them passes the corner layers."""
    sources = tmp_path / "rtl"
    shutil.copytree(cosim.FOLDER, sources, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    tile = (sources / "dqt_tile.sv").read_text(encoding="utf-8")
    hardware, _ = layers(name)
    chosen = " ".join(f"-set {key} {value}" for key, value in hardware.items() if f"parameter int {key} " in tile)
    files = " ".join(f"{file}.sv" for file in cosim.SOURCES if file not in ("dqt_address", "dqt_layer", "dqt_bench"))
    script = f"read_verilog -sv {files}; chparam {chosen} dqt_tile; synth -noabc -flatten -top dqt_tile; "
    script += "rename -top dqt_netlist; write_verilog -noattr netlist.v"
    subprocess.run([yosys, "-q", "-p", script], cwd=sources, check=True, capture_output=True)
    ports = tile[: tile.index("\n);") + 4]
    netlist = (sources / "netlist.v").read_text(encoding="utf-8")
    shell = f"{ports}  dqt_netlist netlist (.*);\nendmodule\n{netlist}"
    (sources / "dqt_tile.sv").write_text(shell, encoding="utf-8")
    assert faults(name, verilator, sources) == []


def test_a_missing_yosys_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["rtl", "area"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: areas need yosys; install with 'apt-get install yosys'.\n"


def test_an_unknown_mapping_is_one_sentence() -> None:
    result = CliRunner().invoke(main, ["rtl", "area", "--mapping", "lut5"], catch_exceptions=False)
    known = ", ".join(area.MAPPINGS)
    assert (result.exit_code, result.stderr) == (2, f"error: 'lut5' is no mapping; known are {known}.\n")


def word_cells(**settings: int) -> dict[str, int]:
    """Return the operators of a tile of 3 x 2 and their widths, before any is mapped to gates."""
    files = " ".join(f"{file}.sv" for file in cosim.SOURCES if file not in ("dqt_address", "dqt_layer", "dqt_bench"))
    chosen = " ".join(f"-set {name} {value}" for name, value in {"R": 3, "C": 2, **settings}.items())
    script = f"read_verilog -sv {files}; chparam {chosen} dqt_tile; hierarchy -top dqt_tile; "
    script += "proc; flatten; opt -full; wreduce; opt_clean; stat -width"
    run = subprocess.run(["yosys", "-p", script], cwd=cosim.FOLDER, check=True, capture_output=True, text=True)
    counted = run.stdout[run.stdout.rindex("Number of cells") :]
    return {kind: int(count) for kind, count in re.findall(r"^     (\$\S+) +(\d+)$", counted, re.M)}


def test_a_tile_without_options_is_the_tile_that_it_was(yosys: str) -> None:
    """137 and 136 operators were counted before there were options; mapped counts differ by a comment's lines."""
    (stated,) = re.findall(r"estimates: Yosys ([\d.]+),", README)
    if area.version() != stated:
        pytest.skip(f"the operators are those of Yosys {stated}; this is {area.version()}")
    plain, midpoint = word_cells(), word_cells(WEIGHT_RULE=2)
    assert (sum(plain.values()), sum(midpoint.values())) == (137, 136)
    for settings, registers in (({"WINDOWS": 1}, {}), ({"PADDING": 1}, {}), ({"WEIGHT_RULE": 3}, {"$dffe_25": 3})):
        made = word_cells(**settings)
        added = {kind: made[kind] - plain.get(kind, 0) for kind in made if "dff" in kind}
        assert {kind: count for kind, count in added.items() if count} == registers
        assert sum(made.values()) >= sum(plain.values())
