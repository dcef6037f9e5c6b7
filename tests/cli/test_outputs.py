"""What each command writes: whole or not at all, not over what it reads, not in the place of what it did not make."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dqtsim.outputs import MANIFEST

from .conftest import Command

FOREIGN = "which this command did not make; name a new or an empty folder."


def refusal(command: Command, *words: object) -> str:
    """Return the one sentence that wrong use gets."""
    result = command(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").removesuffix("\n")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def vectors(files: Path, *words: object) -> tuple[object, ...]:
    return "vectors", files / "model.onnx", "--input", files / "one.npy", *words


def test_vectors_of_other_layers_replace_the_folder(command: Command, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    for layer, folder in (("stem", "00-stem"), ("right", "04-right")):
        assert command(*vectors(files, "--layer", layer, "-o", out)).exit_code == 0
        assert names(out) == [folder, MANIFEST]
        assert json.loads((out / MANIFEST).read_text(encoding="utf-8"))["layers"] == [folder]
    assert names(tmp_path) == ["v"]


def test_every_file_of_vectors_is_known_to_be_theirs(command: Command, files: Path, tmp_path: Path) -> None:
    from dqtsim.rtl.vectors import FOLDER, OPTIONAL_ORDER

    assert command(*vectors(files, "-o", tmp_path / "v")).exit_code == 0
    found = {p.relative_to(tmp_path / "v").as_posix() for p in (tmp_path / "v").rglob("*") if p.is_file()}
    manifest = json.loads((tmp_path / "v" / MANIFEST).read_text(encoding="utf-8"))
    # circuits with options have arrays of their own
    optional = {f"{x}/{name}.{end}" for x in manifest["layers"] for name in OPTIONAL_ORDER for end in ("bin", "hex")}
    assert found | optional == {*FOLDER.files(manifest), MANIFEST}
    assert not found & optional
    assert set(FOLDER.keys) == set(manifest)


def test_vectors_refuse_before_the_model_is_read(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "v"
    (out / "mine").mkdir(parents=True)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    words = ("vectors", "none.onnx", "--input", "none.npy", "-o")
    assert refusal(command, *words, out) == f"the folder '{out}' cannot be written: it holds 'mine', {FOREIGN}"
    (tmp_path / "link").symlink_to("v")
    assert refusal(command, *words, tmp_path / "link") == (
        f"the folder '{tmp_path / 'link'}' cannot be written: it is a link."
    )
    assert refusal(command, *words, tmp_path / "no" / "v") == (
        f"the folder '{tmp_path / 'no' / 'v'}' cannot be written: '{tmp_path / 'no'}' is no folder."
    )
    assert refusal(command, *words, out / "notes.txt") == (
        f"the folder '{out / 'notes.txt'}' cannot be written: it is no folder."
    )
    assert names(out) == ["mine", "notes.txt"]
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_vectors_do_not_replace_golden_vectors(command: Command, files: Path) -> None:
    before = names(files / "golden")
    assert refusal(command, *vectors(files, "-o", files / "golden")) == (
        f"the folder '{files / 'golden'}' cannot be written: it holds 'dynamic.npz', {FOREIGN}"
    )
    assert names(files / "golden") == before


def test_a_full_disk_leaves_the_vectors_that_were_there(
    command: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v"
    assert command(*vectors(files, "-o", out)).exit_code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    honest, count = Path.write_bytes, 0

    def full(self: Path, data: bytes) -> int:
        nonlocal count
        count += 1
        if count == 9:
            raise OSError(28, "No space left on device")
        return honest(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert refusal(command, *vectors(files, "--bits", "2", "-o", out)) == (
        f"the folder '{out}' cannot be written: no space left on device."
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["v"]


def test_two_commands_at_once_leave_the_vectors_of_one(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    started = []
    for bits in ("4", "2"):
        words = [str(word) for word in vectors(files, "--bits", bits, "-o", out)]
        started.append(subprocess.Popen([sys.executable, "-m", "dqtsim", *words], stdout=subprocess.DEVNULL))
    assert [process.wait() for process in started] == [0, 0]
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    layers = [json.loads((out / name / "layer.json").read_text(encoding="utf-8")) for name in manifest["layers"]]
    # the stem is pinned
    assert {str(layer["config"]["b_w"]) for layer in layers if layer["layer"] != "stem"} == {manifest["bits"]}
    assert names(tmp_path) == ["v"]


@pytest.mark.parametrize("name", ["bench", "plan", "report", "run"])
def test_what_a_command_reads_is_not_overwritten(command: Command, files: Path, tmp_path: Path, name: str) -> None:
    ending = {"bench": ".json", "plan": ".toml", "report": ".html", "run": ".npz"}[name]
    path = tmp_path / f"given{ending}"
    path.write_text("mine", encoding="utf-8")
    (tmp_path / f"link{ending}").symlink_to(path)
    words: dict[str, tuple[object, ...]] = {
        "bench": (files / "model.onnx", "--bits", path, "--bits", "4", "--json"),
        "plan": (files / "model.onnx", "--data", files, "--budget", "4bits", "--target", path, "-o"),
        "report": (files / "model.onnx", "--energy", path, "-o"),
        "run": (path, "--input", files / "one.npy", "--dump"),
    }
    option = words[name][-1]
    for out in (path, tmp_path / f"link{ending}", tmp_path / "." / path.name):
        assert refusal(command, name, *words[name], out) == (
            f"{option} would overwrite '{out}', which the command reads."
        )
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_pipe_or_a_folder_is_not_replaced(command: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert refusal(command, "new", "resnet8", "-o", tmp_path / "pipe.onnx") == (
        f"'{tmp_path / 'pipe.onnx'}' cannot be written: it is no regular file."
    )
    (tmp_path / "folder.onnx").mkdir()
    assert refusal(command, "new", "resnet8", "-o", tmp_path / "folder.onnx") == (
        f"'{tmp_path / 'folder.onnx'}' cannot be written: is a directory."
    )
    assert names(tmp_path) == ["folder.onnx", "pipe.onnx"]
