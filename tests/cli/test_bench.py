"""`dqtsim bench`: what it prints and refuses; no time is asserted."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dqtsim.bench import bench, peak
from dqtsim.cli.bench import AGAINST
from dqtsim.kernels.vector.build import choose
from tests.builders import picture

from .conftest import Command
from .test_commands import refusal


@pytest.fixture(autouse=True)
def short_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "STEPS", 100)
    monkeypatch.setattr(bench, "BURST", 0)


def test_a_table(command: Command, files: Path) -> None:
    result = command("bench", files / "model.onnx", "--bits", 8, "--against", "onnxruntime,float", "--runs", 2)
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].split("  ")[0].strip() == "small, bits 8, target default, batch of 1 picture, 1 thread"
    assert [line.split()[0] for line in lines[2:6]] == ["dqtsim", "onnxruntime", "float", "peak"]
    assert peak.best(matrices=choose().isa.matrices).instruction in lines[5]
    assert lines[6] == "dqtsim gave the bits of the engine numba in all 4 runs that were looked at"
    assert lines[7].startswith("onnxruntime gives dqtsim's class for ")
    assert lines[9].startswith("7,104 MACs a picture; constants ")


def test_json(command: Command, files: Path, tmp_path: Path) -> None:
    words = ("bench", files / "model.onnx", "--input", files / "three.npy", "--threads", 2, "--runs", 3)
    found: dict[str, Any] = json.loads(command(*words, "--against", "float", "--json", "-").stdout)
    assert (found["bits_policy"], found["batch"], found["threads"], found["macs"]) == ("dynamic", 3, 2, 7304)
    assert [row["name"] for row in found["contenders"]] == ["dqtsim", "float"]
    assert [len(row["seconds"]) for row in found["contenders"]] == [3, 3]
    assert len(found["peak"]["seconds"]) == 3
    assert found["peak"]["instruction"] == peak.best(matrices=choose().isa.matrices).instruction
    assert {"cpu", "numba", "onnxruntime"} <= found["machine"].keys()
    assert found["different_runs"] == 0
    assert (found["contenders"][0]["same_class"], found["contenders"][0]["dqtsim_times_as_fast"]) == (3, 1.0)
    path = tmp_path / "bench.json"
    result = command(*words, "--batch", 2, "--json", path)
    assert (result.exit_code, json.loads(path.read_text())["batch"]) == (0, 2)
    assert "batch of 2 pictures, 2 threads" in result.stdout


def test_other_bits_exit_with_1(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ours", lambda plan, _codes, _threads: lambda: list(run_of_another_picture(plan)))
    result = command("bench", files / "model.onnx", "--runs", 1)
    assert result.exit_code == 1
    assert "WRONG BITS: 3 of 3 runs of dqtsim differ from the engine numba" in result.stdout


def run_of_another_picture(plan: Any) -> Any:
    from dqtsim.executor import run

    return run(plan, picture(9))


def test_wrong_use(command: Command, files: Path, tmp_path: Path) -> None:
    model = files / "model.onnx"
    assert AGAINST == ("onnxruntime", "float")
    assert refusal(command, "bench", model, "--against", "tvm") == (
        "--against takes onnxruntime and float, each once; found 'tvm'."
    )
    assert refusal(command, "bench", model, "--against", "float,float").endswith("found 'float,float'.")
    assert refusal(command, "bench", model, "--json", tmp_path / "x.txt").startswith("--json writes a .json file;")
    assert refusal(command, "bench", model, "--json", tmp_path / "no" / "x.json").startswith("--json writes into")
    assert refusal(command, "bench", model, "--bits", "9").startswith("--bits: widths lie between")
    assert refusal(command, "bench", tmp_path / "none.onnx")
    assert command("bench", model, "--runs", 0).exit_code == 2


def test_without_onnxruntime(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert command("bench", files / "model.onnx", "--runs", 1).exit_code == 0
    assert refusal(command, "bench", files / "model.onnx", "--against", "onnxruntime") == (
        '--against onnxruntime needs the package onnxruntime; install it with pip install "dqtsim[oracle]".'
    )
