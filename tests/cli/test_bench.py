"""`dqtsim bench`: what it prints and refuses; no time is asserted."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dqtsim.bench import bench, peak
from dqtsim.cli.bench import AGAINST
from dqtsim.engines.native.compile.build import choose
from dqtsim.target import target_text
from tests.builders import picture

from .conftest import Command
from .test_commands import refusal


@pytest.fixture(autouse=True)
def short_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "STEPS", 100)
    monkeypatch.setattr(bench, "BURST", 0)


def own_peak() -> str:
    """Return the instruction of the peak of the kernel in use."""
    return peak.best(matrices=choose().isa.matrices is not None).peak.instruction


def test_a_table(command: Command, files: Path) -> None:
    result = command("bench", files / "model.onnx", "--bits", 8, "--against", "onnxruntime,float", "--runs", 2)
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].split("  ")[0].strip() == "small, bits 8, target default, batch of 1 picture, 1 thread"
    assert [line.split()[0] for line in lines[2:6]] == ["dqtsim", "onnxruntime", "float", "peak"]
    assert own_peak() in lines[5]
    assert lines[6] == "dqtsim gave the bits of the engine numba in all 4 runs that were looked at"
    assert lines[7].startswith("onnxruntime gives dqtsim's class for ")
    assert lines[9].startswith("7,104 MACs a picture; constants ")


def test_widths_and_targets_are_compared(command: Command, files: Path) -> None:
    words = ("bench", files / "model.onnx", "--runs", 1, "--bits", "dynamic", "--bits", 8)
    lines = command(*words, "--against", "float").stdout.splitlines()
    assert lines[0].split("  ")[0].strip() == "small, bits dynamic, target default, batch of 1 picture, 1 thread"
    assert [line.split("  ")[0] for line in lines[2:6]] == ["dqtsim", "dqtsim, bits 8", "float", "peak"]
    assert lines[3].rstrip().endswith("x as fast")
    found: dict[str, Any] = json.loads(
        command(*words, "--target", "default", "--target", "acc16-wrap", "--json", "-").stdout
    )
    names = ["dqtsim", "dqtsim, bits dynamic, acc16-wrap", "dqtsim, bits 8, default", "dqtsim, bits 8, acc16-wrap"]
    assert [row["name"] for row in found["contenders"]] == names
    assert [row["macs"] for row in found["contenders"]] == [7304, 7304, 7104, 7104]
    assert (found["different_runs"], found["checked_runs"]) == (0, 12)
    found = json.loads(command(*words[:4], "--target", "default", "--target", "acc16-wrap", "--json", "-").stdout)
    assert [row["name"] for row in found["contenders"]] == ["dqtsim", "dqtsim, acc16-wrap"]


def test_json(command: Command, files: Path, tmp_path: Path) -> None:
    words = ("bench", files / "model.onnx", "--input", files / "three.npy", "--threads", 2, "--runs", 3)
    found: dict[str, Any] = json.loads(command(*words, "--against", "float", "--json", "-").stdout)
    assert (found["bits_policy"], found["batch"], found["threads"], found["macs"]) == ("dynamic", 3, 2, 7304)
    assert [row["name"] for row in found["contenders"]] == ["dqtsim", "float"]
    assert [len(row["seconds"]) for row in found["contenders"]] == [3, 3]
    assert len(found["peak"]["seconds"]) == 3
    assert found["peak"]["instruction"] == own_peak()
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
    from dqtsim.engines.registry import run

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
    twice = "--bits and --target: what is compared must differ; found one of them twice."
    assert refusal(command, "bench", model, "--bits", 8, "--bits", 8) == twice
    assert refusal(command, "bench", model, *["--bits", 8, "--bits", 4, "--bits", 4]) == twice
    assert refusal(command, "bench", model, "--target", "default", "--target", "default") == twice
    once = "--profile looks at one plan; it takes --bits and --target once."
    assert refusal(command, "bench", model, "--profile", "--bits", 8, "--bits", 4) == once
    assert refusal(command, "bench", model, "--profile", "--target", "default", "--target", "acc16-wrap") == once
    assert refusal(command, "bench", tmp_path / "none.onnx")
    assert command("bench", model, "--runs", 0).exit_code == 2


def test_without_onnxruntime(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert command("bench", files / "model.onnx", "--runs", 1).exit_code == 0
    assert refusal(command, "bench", files / "model.onnx", "--against", "onnxruntime") == (
        '--against onnxruntime needs the package onnxruntime; install it with pip install "dqtsim[oracle]".'
    )


# ---- --profile ----


def test_a_profile(command: Command, files: Path, tmp_path: Path) -> None:
    model = files / "model.onnx"
    result = command("bench", model, "--profile", "--bits", 8, "--runs", 2)
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0] == "small, bits 8, target default, 1 thread"
    assert lines[1].split() == ["step", "operation", "microseconds", "of", "all", "GMAC/s", "of", "the", "peak"]
    rows = [line.split() for line in lines[2:-1] if line[:1].strip()]
    assert rows[0][:2] == ["-", "clear"]
    multiplied = [row[0] for row in rows if row[1] == "conv"]
    assert multiplied == ["stem", "left", "right", "result"]
    text = " ".join(lines)
    assert " microseconds in all, " in text
    assert f"GMAC/s, {own_peak()}" in text
    path = tmp_path / "profile.json"
    result = command("bench", model, "--profile", "--runs", 1, "--json", path)
    assert (result.exit_code, result.stdout.splitlines()[0].split(",")[0]) == (0, "small")
    found = json.loads(path.read_text())
    assert sum(row["macs"] for row in found["operations"]) == 7304


def test_a_profile_as_json(command: Command, files: Path) -> None:
    words = ("bench", files / "model.onnx", "--profile", "--runs", 2, "--input", files / "three.npy", "--json", "-")
    result = command(*words, "--threads", 1, "--batch", 2)
    found: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    assert list(found) == ["model", "target", "bits_policy", "input", "peak", "operations"]
    assert (found["bits_policy"], found["target"], found["input"]) == ("dynamic", "default", str(files / "three.npy"))
    assert found["peak"]["instruction"] == own_peak()
    assert found["peak"]["gmacs_per_second"] > 0
    assert all(list(row) == ["step", "operation", "seconds", "macs"] for row in found["operations"])
    assert all(row["seconds"] > 0 for row in found["operations"])
    macs: dict[str, int] = {}
    for row in found["operations"]:
        macs[row["step"]] = macs.get(row["step"], 0) + row["macs"]
    assert sum(macs.values()) == 7304
    assert {"stem", "left", "right", "hidden", "scores", "result"} == {step for step, count in macs.items() if count}


def narrow(folder: Path, policy: str) -> Path:
    """Return a target whose accumulator has 12 bits."""
    path = folder / f"{policy}.toml"
    text = target_text("default").replace("width = 32  ", "width = 12  ", 1).replace('"ERROR"', f'"{policy}"')
    path.write_text(text, encoding="utf-8")
    return path


def test_registers_are_profiled_beside_what_they_hold(command: Command, files: Path, tmp_path: Path) -> None:
    """Where every product meets the register, layers that could overflow have an operation more; MACs count once."""
    target = narrow(tmp_path, "SATURATE_EACH")
    words = ("bench", files / "model.onnx", "--profile", "--runs", 1, "--bits", 8, "--target", target)
    found = json.loads(command(*words, "--json", "-").stdout)
    assert {row["operation"] for row in found["operations"] if row["macs"]} == {"conv"}
    assert {"each", "each_logits"} <= {row["operation"] for row in found["operations"]}
    assert sum(row["macs"] for row in found["operations"]) == 7104


def test_a_sum_that_does_not_fit_stops_a_profile(command: Command, files: Path, tmp_path: Path) -> None:
    words = ("bench", files / "model.onnx", "--runs", 1, "--bits", 8, "--target", narrow(tmp_path, "ERROR"))
    sentence = refusal(command, *words, "--profile")
    assert sentence == refusal(command, *words)
    assert "does not fit the 12-bit accumulator" in sentence


@pytest.mark.parametrize("more", [("--against", "float"), ("--against", "onnxruntime,float"), ("--threads", 2)])
def test_what_a_profile_does_not_go_with(command: Command, files: Path, more: tuple[object, ...]) -> None:
    for words in (("--profile", *more), (*more, "--profile")):
        assert refusal(command, "bench", files / "model.onnx", *words) == (
            "--profile looks at dqtsim alone, with one thread; it takes neither --against nor --threads."
        )


def test_wrong_use_of_a_profile(command: Command, files: Path, tmp_path: Path) -> None:
    model = files / "model.onnx"
    assert refusal(command, "bench", model, "--profile", "--json", tmp_path / "x.txt").startswith("--json writes a ")
    assert refusal(command, "bench", model, "--profile", "--against", "tvm").startswith("--against takes ")
    assert refusal(command, "bench", model, "--profile", "--bits", "9").startswith("--bits: widths lie between")
    assert command("bench", model, "--profile", "--runs", 0).exit_code == 2


# ---- --program ----


def test_a_program(command: Command, files: Path) -> None:
    model = files / "model.onnx"
    result = command("bench", model, "--program", "--bits", 8, "--target", "acc16-wrap")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].startswith(f"program of small for {choose().isa.name}, TIES_UP: ")
    assert lines[1].startswith("   0 - clear chunks=1 target=arena+")
    # registers of 16 bits can be left, those of 32 cannot
    assert any(" narrow chunks=" in line for line in lines)
    assert not any(" narrow chunks=" in line for line in command("bench", model, "--program").stdout.splitlines())
    assert command("bench", model, "--program", "--bits", 8, "--target", "acc16-wrap").stdout == result.stdout


def test_what_a_program_does_not_go_with(command: Command, files: Path) -> None:
    sentence = "--program measures nothing; it takes --bits and --target, once each; found "
    for words, found in (
        (("--runs", 3), "--runs"),
        (("--json", "-", "--profile"), "--profile, --json"),
        (("--bits", 8, "--bits", 4), "one of them more than once"),
        (("--target", "default", "--target", "acc16-wrap"), "one of them more than once"),
    ):
        assert refusal(command, "bench", files / "model.onnx", "--program", *words) == f"{sentence}{found}."
