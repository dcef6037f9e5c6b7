"""The committed network in the circuit; what the commands say; vectors that others can read."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqtsim.cli import main
from dqtsim.rtl import cosim, vectors
from dqtsim.rtl.vectors import CONFIG, ORDER
from tests.rtl.corners import layers

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "resnet8-cifar10.onnx"
PICTURE = ROOT / "golden" / "resnet8-cifar10" / "picture.npy"
TARGETS = ("default", "acc16-wrap", "acc20-saturate-each", "acc24-saturate")
README = (Path(vectors.__file__).parent / "README.md").read_text(encoding="utf-8")
Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    """Return the function that runs the command line with the given words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return run


def test_small_layers_of_the_committed_network(command: Command, icarus: str) -> None:
    layers = ("--layers", "controller.hidden,controller.logits,fc", "--simulator", icarus)
    result = command("cosim", MODEL, "--input", PICTURE, *layers)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "controller.hidden w8a8: same, 64 outputs, 1,092 cycles",
        "controller.logits w8a8: same, 36 outputs, 243 cycles",
        "fc w3a3: same, 10 outputs, 81 cycles",
    ]
    assert re.sub(r"\d+ ms", "_ ms", lines[3]) == (
        "bits dynamic, target default, icarus: 3 layers, 110 accumulators and outputs compared, 0 different; "
        "1,416 cycles, _ ms"
    )


@pytest.mark.slow
def test_convolutions_of_the_committed_network_in_icarus(command: Command, icarus: str) -> None:
    where = ("--layers", "stem,block2.down", "--simulator", icarus)
    result = command("cosim", MODEL, "--input", PICTURE, *where)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        "stem w8a8: same, 16,384 outputs, 2,816 cycles",
        "block2.down w3a3: same, 8,192 outputs, 1,056 cycles",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bits", ["dynamic", "8", "4", "3", "2"])
def test_the_whole_committed_network(command: Command, verilator: str, target: str, bits: str) -> None:
    result = command("cosim", MODEL, "--input", PICTURE, "--target", target, "--bits", bits, "--simulator", verilator)
    assert result.exit_code == 0, result.output
    # at static widths nobody asks the controller
    size = "12 layers, 86,126" if bits == "dynamic" else "10 layers, 86,026"
    assert f"{size} accumulators and outputs compared, 0 different" in result.stdout


def test_a_missing_simulator_is_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for simulator, sentence in (
        ("verilator", "needs verilator and g++ and make; install with 'apt-get install verilator g++ make'."),
        ("icarus", "needs iverilog and vvp; install with 'apt-get install iverilog'."),
    ):
        result = command("cosim", MODEL, "--input", PICTURE, "--layers", "fc", "--simulator", simulator)
        assert (result.exit_code, result.stderr) == (2, f"error: simulator '{simulator}' {sentence}\n")


def test_an_unknown_layer_is_one_sentence(command: Command) -> None:
    result = command("cosim", MODEL, "--input", PICTURE, "--layers", "fc,head")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'head' is no nested layer; the model has stem, controller.hidden, ")


def test_one_wrong_bit_is_found(command: Command, icarus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vectors.record

    def record(*arguments: object) -> list[vectors.LayerVector]:
        (vector,) = honest(*arguments)  # type: ignore[arg-type]
        y = vector.arrays["y"].copy()
        y[3] ^= 1
        return [replace(vector, arrays={**vector.arrays, "y": y})]

    monkeypatch.setattr(vectors, "record", record)
    result = command("cosim", MODEL, "--input", PICTURE, "--layers", "fc", "--simulator", icarus)
    assert result.exit_code == 1
    assert "fc w3a3: DIFFERENT, 1 of 10 outputs differ; first at [3]: accumulator " in result.stdout
    assert "1 layer different" in result.stdout


@pytest.mark.parametrize("cycles", [-1, 1])
def test_one_cycle_is_found(icarus: str, cycles: int) -> None:
    hardware, (vector, *_) = layers("parallel wrap")
    expected = vector.config["cycles"]
    wrong = replace(vector, config={**vector.config, "cycles": expected + cycles})
    finding = cosim.simulate(cosim.build(hardware, [vector], icarus), hardware, wrong)
    assert (finding.bad, finding.fault) == (0, f"{expected:,} cycles, expected {expected + cycles:,}")


def test_a_result_must_be_complete() -> None:
    hardware, (vector, *_) = layers("parallel saturate")
    size, cycles = vector.arrays["y"].size, vector.config["cycles"]
    assert vector.flags is not None
    good = f"RESULT words={size} bad=0 cycles={cycles} overflows={vector.flags.saturations}\n"
    for output, fault in (
        (good, ""),
        ("", "the bench gave no result: no output"),
        ("no end after 7 cycles\n", "the bench gave no result: no end after 7 cycles"),
        (good + good, f"the bench gave no result: {good.strip()}"),
        (good.replace(f"words={size}", "words=1"), f"1 outputs of {size} came out"),
        (good.replace("bad=0", "bad=2"), f"2 of {size} outputs differ; the first is not known"),
        (
            re.sub("overflows=.*", "overflows=999", good),
            f"999 sums left the register, expected {vector.flags.saturations}",
        ),
    ):
        assert cosim.check(output, hardware, vector).fault == fault


def test_builds_are_kept_and_depend_on_the_sources(builds: Path, icarus: str, tmp_path: Path) -> None:
    hardware, corner_layers = layers("one element")
    bench = Path(cosim.build(hardware, corner_layers, icarus)[-1])
    made = bench.stat().st_mtime_ns
    assert builds in bench.parents
    assert Path(cosim.build(hardware, corner_layers, icarus)[-1]) == bench
    assert bench.stat().st_mtime_ns == made
    for file in cosim.FOLDER.glob("*.sv"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert Path(cosim.build(hardware, corner_layers, icarus, tmp_path)[-1]) != bench
    assert Path(cosim.build({**hardware, "ACC_W": 9}, corner_layers, icarus)[-1]) != bench
    assert not list(bench.parent.glob(".building-*"))


@pytest.mark.parametrize("seed", [(), ("--seed", 3)])
def test_vectors_are_read_without_dqtsim(command: Command, tmp_path: Path, seed: tuple[str, int]) -> None:
    where = ("--layer", "fc", "--layer", "block2.down", "--target", "acc16-wrap", *seed, "-o", tmp_path / "out")
    result = command("vectors", MODEL, "--input", PICTURE, "--bits", "w2a4", *where)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"2 layers of 'resnet8-cifar10' on target acc16-wrap, bits w2a4: {tmp_path / 'out'}\n"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["layers"] == ["05-block2.down", "09-fc"]
    (reader,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(reader.splitlines()) <= 40
    (tmp_path / "reader.py").write_text(reader, encoding="utf-8")
    for name in manifest["layers"]:
        folder = tmp_path / "out" / name
        program = [sys.executable, "-I", str(tmp_path / "reader.py"), str(folder)]
        run = subprocess.run(program, capture_output=True, text=True, check=True)
        layer = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        assert run.stdout.startswith(f"{layer['layer']} {layer['operator']} {layer['cycles']} {{'x': ")
        assert tuple(layer["config"]) == CONFIG
        assert layer["config"]["b_w"] == 2
        assert set(layer["arrays"]) == set(ORDER)
        file = folder / "acc.bin"
        file.write_bytes(b"\0" * file.stat().st_size)
        assert subprocess.run(program, capture_output=True, check=False).returncode == 1


def test_vectors_take_one_picture(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, *np.load(PICTURE).shape[-3:]), np.uint8))
    result = command("vectors", MODEL, "--input", tmp_path / "two.npy", "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (2, "error: vectors are made from one picture; found 2.\n")


def test_parameters_of_a_target_are_those_of_its_vectors(command: Command) -> None:
    from dqtsim.graph import load
    from dqtsim.planner import plan
    from dqtsim.target import load_target, target_names

    graph = load(MODEL)
    for name in target_names():
        result = command("rtl", "params", name, "--model", MODEL)
        expected = vectors.parameters(plan(graph, load_target(name)))
        assert result.stdout.splitlines() == [f"localparam int {key} = {value};" for key, value in expected.items()]
        assert command("rtl", "params", name).stdout == result.stdout
    module = (Path(vectors.__file__).parent / "dqt_layer.sv").read_text(encoding="utf-8")
    assert all(re.search(rf"parameter\s+int\s+(unsigned\s+)?{key}\b", module) for key in expected)


def test_parameters_of_an_unknown_target(command: Command) -> None:
    result = command("rtl", "params", "nothing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: a target is one of acc16-wrap, ")
