"""What training and export write: never in the place of what they did not make, and refused before the long work."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner

from dqtsim.cli import main
from dqtsim.errors import OutputError
from dqtsim.outputs import MANIFEST
from dqtsim.train import ExportConfig, commands, export_run, train
from dqtsim.train.config import RunDir
from dqtsim.train.golden import FOLDER
from dqtsim.train.phases import load_state, save_state

from .conftest import tiny_config

FOREIGN = "which this command did not make; name a new or an empty folder."


def refusal(*words: object) -> str:
    """Return the one sentence that wrong use gets."""
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").removesuffix("\n")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def export(run: RunDir, model: Path, golden: Path, pictures: int = 1) -> None:
    export_run(ExportConfig(run.path, model, golden, pictures=1, golden_pictures=pictures))


def test_golden_vectors_never_take_the_place_of_anything_else(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = tmp_path / "papers", tmp_path / "tiny.onnx"
    (folder / "old").mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to("papers")
    # refused before the pictures are read
    monkeypatch.setattr(commands, "read_dataset", None)
    words = ("export", finished.path, "-o", model, "--golden")
    assert refusal(*words, folder) == f"the folder '{folder}' cannot be written: it holds 'old', {FOREIGN}"
    link, text = tmp_path / "link", folder / "thesis.txt"
    assert refusal(*words, link) == f"the folder '{link}' cannot be written: it is a link."
    assert refusal(*words, text) == f"the folder '{text}' cannot be written: it is no folder."
    none = tmp_path / "no" / "golden"
    assert refusal(*words, none) == f"the folder '{none}' cannot be written: '{none.parent}' is no folder."
    assert refusal(*words, finished.path) == (
        f"the folder '{finished.path}' cannot be written: it holds 'checkpoint.pt', {FOREIGN}"
    )
    assert refusal(*words, model) == f"'{model}' must lie outside the folder '{model}', which is replaced whole."
    assert (names(tmp_path), names(folder)) == (["link", "papers"], ["old", "thesis.txt"])
    assert text.read_text(encoding="utf-8") == "mine"


def test_golden_vectors_replace_older_ones_whole(finished: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    for pictures in (2, 1):
        export(finished, tmp_path / "tiny.onnx", folder, pictures)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        assert len(manifest["vectors"]) == pictures + 3
        assert names(folder) == sorted([*FOLDER.files(manifest), MANIFEST])
        assert set(FOLDER.keys) == set(manifest)
    assert names(tmp_path) == ["golden", "tiny.onnx"]


def test_a_full_disk_leaves_the_older_vectors(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "golden"
    export(finished, tmp_path / "tiny.onnx", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(file: Path, **_arrays: object) -> None:
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError) as caught:
        export(finished, tmp_path / "tiny.onnx", folder)
    assert str(caught.value) == f"the folder '{folder}' cannot be written: no space left on device."
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert names(tmp_path) == ["golden", "tiny.onnx"]


def test_a_model_goes_into_a_folder_that_is_there(finished: RunDir, tmp_path: Path) -> None:
    words = ("export", finished.path, "-o")
    assert refusal(*words, tmp_path / "tiny.bin") == f"-o writes a .onnx file; found '{tmp_path / 'tiny.bin'}'."
    assert refusal(*words, tmp_path / "no" / "tiny.onnx") == (
        f"-o writes into an existing folder; '{tmp_path / 'no'}' is none."
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_checkpoint_is_whole_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "checkpoint.pt"
    (tmp_path / "checkpoint.tmp").write_text("mine", encoding="utf-8")
    save_state({"epoch": 1}, path)

    def fail(*_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
        save_state({"epoch": 2}, path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"'{path}' cannot be written: no space left on device."
    assert load_state(path) == {"epoch": 1}
    assert (tmp_path / "checkpoint.tmp").read_text(encoding="utf-8") == "mine"
    assert names(tmp_path) == ["checkpoint.pt", "checkpoint.tmp"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{}"), ("config.json", "["), ("config.json", "[]"), ("log.csv", "mine"), ("log.jsonl", "mine")],
)
def test_a_run_does_not_write_over_files_of_others(cifar: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        train(tiny_config(cifar, tmp_path))
    assert str(caught.value) == f"A new run would write '{tmp_path / name}', but there is one that is of no run."
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_a_run_needs_a_folder(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "file exists"), (tmp_path / "file" / "run", "not a directory")):
        with pytest.raises(OutputError) as caught:
            train(tiny_config(cifar, path))
        assert str(caught.value) == f"'{path}' cannot be made a folder: {reason}."
