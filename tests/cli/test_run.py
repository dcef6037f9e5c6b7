"""`dqtsim run`: what it prints, the JSON object, the dump, and what it leaves behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.registry import run, traced
from dqtsim.graph import Graph, load, save
from dqtsim.planner import plan
from dqtsim.target import load_target
from tests.builders import dense, network, picture

from .conftest import Command

LAYERS = ["stem", "left", "right", "result"]
STEPS = ["stem", "hidden", "scores", "left", "right", "result"]
FLAGS = {"saturations", "wraps", "accumulator_lowest", "accumulator_highest", "saturated_biases"}


def as_json(command: Command, *words: object) -> dict[str, Any]:
    result = command("run", *words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_json_of_a_batch(command: Command, files: Path) -> None:
    model = files / "model.onnx"
    found = as_json(command, model, "--input", files / "three.npy")
    assert list(found) == [
        "model", "target", "engine", "bits_policy", "results", "layers", "status", "seconds"
    ]  # fmt: skip
    assert (found["model"], found["target"], found["engine"]) == (str(model), "default", "jit")
    assert (found["bits_policy"], found["layers"]) == ("dynamic", LAYERS)
    assert isinstance(found["seconds"], float)
    law = list(run(plan(load(model), load_target("default")), picture(5, count=3), "spec"))
    assert [
        {key: r[key] for key in ("index", "class_index", "class_name", "logits", "bits")} for r in found["results"]
    ] == [
        {
            "index": index,
            "class_index": result.class_index,
            "class_name": ("ant", "bee", "cow")[result.class_index or 0],
            "logits": [] if result.logits is None else result.logits.tolist(),
            "bits": [list(pair) for pair in result.bits],
        }
        for index, result in enumerate(law)
    ]
    assert [(r["macs"], r["bitops"]) for r in found["results"]] == [(result.macs, result.bitops) for result in law]
    status = found["status"]
    assert (status["saturations"], status["wraps"], status["overflow_proven_impossible"]) == (0, 0, True)
    assert status["bitops"] == sum(result.bitops for result in law)
    assert list(status["layers"]) == STEPS
    for layer, entry in status["layers"].items():
        flags = [result.flags[layer] for result in law]
        assert set(entry) == FLAGS
        assert entry["accumulator_lowest"] == min(seen.lowest for seen in flags if seen)
        assert entry["accumulator_highest"] == max(seen.highest for seen in flags if seen)


def test_json_is_the_same_by_every_engine_and_number_of_threads(command: Command, files: Path) -> None:
    words = (files / "model.onnx", "--input", files / "three.npy")
    found = [
        as_json(command, *words, *more)["results"]
        for more in ((), ("--threads", 3), ("--engine", "spec"), ("--engine", "onnxruntime"))
    ]
    assert found[0] == found[1] == found[2] == found[3]


def test_json_of_an_engine_that_sees_no_accumulators(command: Command, files: Path) -> None:
    found = as_json(command, files / "model.onnx", "--input", files / "one.npy", "--engine", "onnxruntime", "--bits", 4)
    assert (found["engine"], found["bits_policy"]) == ("onnxruntime", "4")
    assert found["results"][0]["bits"] == [[8, 8], [4, 4], [4, 4], [4, 4]]
    assert (found["status"]["saturations"], found["status"]["wraps"]) == (None, None)
    assert found["status"]["layers"]["left"]["accumulator_lowest"] is None


def test_json_counts_events_of_the_target(command: Command, files: Path) -> None:
    found = as_json(
        command, files / "model.onnx", "--input", files / "three.npy", "--target", "acc16-wrap", "--bits", 8
    )
    expected = list(run(plan(graph_at_8(files), load_target("acc16-wrap")), picture(5, count=3), "spec"))
    wraps = sum(flags.wraps for result in expected for flags in result.flags.values() if flags)
    assert found["status"]["wraps"] == wraps > 0
    assert found["status"]["overflow_proven_impossible"] is False
    assert found["target"] == "acc16-wrap"


def graph_at_8(files: Path) -> Graph:
    from dqtsim.widths import apply_bits

    return apply_bits(load(files / "model.onnx"), "8")[0]


def test_json_without_logits(command: Command, tmp_path: Path) -> None:
    save(dense([[1, 0], [0, 1]]), tmp_path / "codes.onnx")
    np.save(tmp_path / "x.npy", np.array([1, 2], np.uint8))
    (result,) = as_json(command, tmp_path / "codes.onnx", "--input", tmp_path / "x.npy")["results"]
    assert (result["class_index"], result["class_name"], result["logits"]) == (None, None, [])


def test_one_picture_as_a_person_reads_it(command: Command, files: Path) -> None:
    result = command("run", files / "model.onnx", "--input", files / "one.npy", "--bits", "w2a4")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][0] in ("ant", "bee", "cow")
    assert [row[0] for row in rows[2:6]] == LAYERS
    assert rows[3][1] == "w2a4"
    assert rows[3][3:5] == ["of", "32"]
    assert rows[-1][:2] == ["bits", "w2a4,"]
    assert "target default, engine native" in result.stdout
    assert all("Error" not in line for line in result.stdout.splitlines())


def test_a_batch_is_a_line_a_picture(command: Command, files: Path) -> None:
    result = command("run", files / "model.onnx", "--input", files / "three.npy")
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    assert lines[3].startswith("3 pictures, ")
    assert ", bits dynamic, target default, engine native, " in lines[3]


def test_names_are_text_and_not_markup(command: Command, files: Path, tmp_path: Path) -> None:
    names = ("[/bold]", ":cat:", "[red]cow")
    graph = replace(network(), name="[/x]", class_names=names, producer={"[b]": "[/b]"})
    save(graph, tmp_path / "odd.onnx")
    results = as_json(command, tmp_path / "odd.onnx", "--input", files / "three.npy")["results"]
    for index, expected in enumerate(results):
        np.save(tmp_path / "x.npy", picture(5, count=3)[index])
        result = command("run", tmp_path / "odd.onnx", "--input", tmp_path / "x.npy")
        assert result.stdout.startswith(f"{expected['class_name']}  (margin ")
    assert command("info", tmp_path / "odd.onnx").stdout.startswith("[/x]  ")


@pytest.mark.parametrize("engine", ["native", "jit", "spec", "onnxruntime"])
def test_dump_of_one_picture(command: Command, files: Path, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "dump.npz"
    result = command("run", files / "model.onnx", "--input", files / "one.npy", "--dump", path, "--engine", engine)
    assert result.exit_code == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["dump.npz"]
    _, expected = traced(plan(load(files / "model.onnx"), load_target("default")), picture(), "spec")
    if engine == "onnxruntime":
        expected = {name: array for name, array in expected.items() if not name.endswith(".acc")}
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.dtype.kind in "iu"
        assert array.dtype == expected[name].dtype
        assert array.tolist() == expected[name].tolist()
    dtypes = {"stem": "uint8", "result": "int32", "bits": "int64", "x": "uint8"}
    assert {name: found[name].dtype.name for name in dtypes} == dtypes
    assert all(a.dtype == np.int64 for name, a in found.items() if name.endswith(".acc"))


def test_dump_of_a_batch_and_of_static_widths(command: Command, files: Path, tmp_path: Path) -> None:
    words = ("--input", files / "three.npy", "--bits", "3", "--dump", tmp_path / "all.npz", "--json")
    assert command("run", files / "model.onnx", *words).exit_code == 0
    with np.load(tmp_path / "all.npz", allow_pickle=False) as archive:
        names = {name.split("/", 1)[1] for name in archive.files if name.startswith("1/")}
        assert {f"{index}/{name}" for index in range(3) for name in names} == set(archive.files)
        assert archive["2/bits"].tolist() == [[8, 8], [3, 3], [3, 3], [3, 3]]
        assert archive["1/x"].tolist() == picture(5, count=3)[1:2].tolist()


def test_a_dump_replaces_an_old_one_only_when_it_is_whole(command: Command, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "dump.npz"
    path.write_text("old", encoding="utf-8")
    narrow = tmp_path / "narrow.toml"
    text = command("target", "show", "default").stdout.replace("width = 32 ", "width = 8 ", 1)
    narrow.write_text(text, encoding="utf-8")
    words = ("run", files / "model.onnx", "--input", files / "three.npy", "--dump", path)
    result = command(*words, "--target", narrow)
    assert result.exit_code == 2
    assert result.stderr.endswith("the 8-bit accumulator of target 'default', whose overflow policy is ERROR.\n")
    assert path.read_text(encoding="utf-8") == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dump.npz", "narrow.toml"]
    assert command(*words).exit_code == 0
    assert np.load(path).files


def test_a_write_that_fails_leaves_nothing(
    command: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_tensors: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    path = tmp_path / "dump.npz"
    result = command("run", files / "model.onnx", "--input", files / "one.npy", "--dump", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: '{path}' cannot be written: no space left on device.\n"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.undo()
    result = command("run", files / "model.onnx", "--input", files / "one.npy", "--dump", tmp_path / "folder.npz")
    assert result.exit_code == 2
    assert result.stderr == f"error: '{tmp_path / 'folder.npz'}' cannot be written: is a directory.\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.npz"]
