"""verify, compare, info and target, and what wrong use says: one sentence on stderr, exit code 2, an empty stdout."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqtsim.cli import main
from dqtsim.engines.names import ENGINE_NAMES
from dqtsim.engines.numba import requantize
from dqtsim.engines.registry import ENGINES
from dqtsim.target import target_names, target_text
from tests.builders import picture
from tests.vectors import Folder

from .conftest import Command


def refusal(command: Command, *words: object) -> str:
    """Return the one sentence that wrong use gets."""
    result = command(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    text = result.stderr
    assert text.startswith("error: ")
    assert text.endswith(".\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text.removeprefix("error: ").removesuffix("\n")


def test_verify_the_same(command: Command, files: Path) -> None:
    for engine in ("native", "spec", "onnxruntime"):
        result = command("verify", files / "model.onnx", "--golden", files / "golden", "--engine", engine)
        lines = result.stdout.splitlines()
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line.split(":")[0] for line in lines[:2]] == ["dynamic.npz", "static.npz"]
        assert all(": same, " in line for line in lines[:2])
        assert lines[2].startswith("2 vectors, ")
        assert lines[2].endswith(f" elements compared by engine {engine}: 0 different")


def test_verify_some(command: Command, files: Path) -> None:
    one = command("verify", files / "model.onnx", "--golden", files / "golden" / "static.npz")
    assert (one.exit_code, one.stdout.count("\n")) == (0, 2)
    folder = files / "golden"
    two = command("verify", files / "model.onnx", "--golden", folder / "static.npz", folder / "dynamic.npz")
    assert (two.exit_code, two.stdout.count("\n")) == (0, 3)
    twice = command("verify", files / "model.onnx", "--golden", folder, "--golden", folder)
    assert (twice.exit_code, twice.stdout.count("\n")) == (0, 5)


def test_verify_different(command: Command, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    tensors = folder.tensors("static")
    was = int(tensors["left"][0, 1, 2, 3])
    p = int(tensors["left.acc"][0, 1, 2, 3])
    tensors["left"][0, 1, 2, 3] ^= 1
    folder.write("static", tensors)
    result = command("verify", folder.model, "--golden", folder.path)
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (1, "")
    assert lines[0].startswith("dynamic.npz: same, ")
    assert lines[1].startswith("static.npz: DIFFERENT, 1 of ")
    assert lines[2] == (
        f"  first divergence: 'left' (dqtsim.NestedConv) at [0, 1, 2, 3]: expected {was ^ 1}, got {was}; accumulator "
        f"before requantization: expected {p}, got {p}; 1 of 144 elements differ"
    )
    assert lines[3].endswith(" elements compared by engine native: 1 vector different")


def test_a_fault_in_a_kernel_is_found(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = requantize.requantize

    def broken(*arguments: Any) -> None:
        kernel(*arguments[:4], arguments[4] - 1, *arguments[5:])

    monkeypatch.setattr(requantize, "requantize", broken)
    words = (files / "model.onnx", "--golden", files / "golden")
    result = command("verify", *words, "--engine", "numba")
    assert result.exit_code == 1
    assert "  first divergence: 'stem' (dqtsim.NestedConv) at [0, " in result.stdout
    assert command("verify", *words, "--engine", "spec").exit_code == 0
    compared = command(
        "compare", files / "model.onnx", "--input", files / "one.npy", "--engines", "spec,numba,onnxruntime"
    )
    assert compared.exit_code == 1
    assert compared.stdout.startswith("picture 0: numba differs from spec: 'stem' (dqtsim.NestedConv) at [0, ")
    assert compared.stdout.endswith(" elements compared: 0 different\n")  # onnxruntime


@pytest.mark.parametrize(
    "engines", ["spec,native", "spec,numba,native,onnxruntime", "onnxruntime,jit,spec", "jit,onnxruntime"]
)
def test_compare(command: Command, files: Path, engines: str) -> None:
    result = command("compare", files / "model.onnx", "--input", files / "three.npy", "--engines", engines)
    first, *others = engines.replace("jit", "native").split(",")
    assert (result.exit_code, result.stderr) == (0, "")
    for line, other in zip(result.stdout.splitlines(), others, strict=True):
        assert line.startswith(f"bits dynamic, 3 pictures: {first} against {other}, ")
        assert line.endswith(" elements compared: 0 different")


def test_compare_sees_flags(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dqtsim.engines.numba import mac

    monkeypatch.setattr(mac, "extremes", lambda _p: (0, 1 << 20))
    result = command("compare", files / "model.onnx", "--input", files / "one.npy", "--engines", "spec,numba")
    assert result.exit_code == 1
    assert result.stdout.startswith("picture 0: numba differs from spec in the flags of ")


def test_info(command: Command, files: Path) -> None:
    result = command("info", files / "model.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("small  ")
    for word in ("NestedConv", "NestedAdd", "MaxPool", "(pinned)", "TIES_UP", "MIDPOINT", "controller 'scores'"):
        assert word in result.stdout
    static = command("info", files / "model.onnx", "--bits", "3", "--target", "mult31").stdout
    assert "static, in the file" in static
    assert "scores" not in static


def test_target_list_and_show(command: Command, tmp_path: Path) -> None:
    listed = command("target", "list")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == target_names()
    for name in target_names():
        shown = command("target", "show", name)
        assert (shown.exit_code, shown.stdout) == (0, target_text(name))
    path = tmp_path / "mine.toml"
    path.write_text(target_text("mult31"), encoding="utf-8")
    assert command("target", "show", path).stdout == target_text("mult31")
    path.write_text("name = 3\n", encoding="utf-8")
    assert refusal(command, "target", "show", path).startswith(f"target file '{path}' breaks 11 rules: ")
    assert refusal(command, "target", "show", "none").endswith("; found 'none'.")


def test_wrong_use(command: Command, files: Path, tmp_path: Path) -> None:
    model, one = files / "model.onnx", files / "one.npy"
    text, empty = tmp_path / "text.onnx", tmp_path / "empty.onnx"
    text.write_text("no model", encoding="utf-8")
    empty.write_bytes(b"")
    np.save(tmp_path / "grey.npy", np.zeros((6, 6), np.uint8))
    known = "a model file is of a format that dqtsim reads (ONNX)"
    cases: list[tuple[tuple[object, ...], str]] = [
        (("run", "none.onnx", "--input", one), "the model file 'none.onnx' cannot be read: no such file or directory."),
        (("run", tmp_path, "--input", one), f"the model file '{tmp_path}' cannot be read: is a directory."),
        (("run", text, "--input", one), f"{known}; '{text}' is text."),
        (("run", empty, "--input", one), f"{known}; '{empty}' is empty."),
        (("info", text), f"{known}; '{text}' is text."),
        (("verify", text, "--golden", files), f"{known}; '{text}' is text."),
        (("run", model, "--input", "none.npy"), "the input is a .npy or a picture file; 'none.npy' is no file."),
        (
            ("run", model, "--input", tmp_path / "grey.npy"),
            "model 'small' takes uint8 of shape (6, 6, 3) or (3, 6, 6), or a batch of these; "
            f"'{tmp_path / 'grey.npy'}' holds (6, 6).",
        ),
        (
            ("run", model, "--input", one, "--bits", "9"),
            "--bits: widths lie between 1 and the master width 8; found '9'.",
        ),
        (
            ("info", model, "--bits", "4,4"),
            "a list of widths has one entry per layer, 4 for model 'small' (stem, left, right, result); --bits has 2.",
        ),
        (
            ("run", model, "--input", one, "--target", "gpu"),
            f"a target is one of {', '.join(target_names())}, or a .toml file; found 'gpu'.",
        ),
        (
            ("run", model, "--input", one, "--dump", tmp_path / "no" / "x.npz"),
            f"--dump writes into an existing folder; '{tmp_path / 'no'}' is none.",
        ),
        (("run", model, "--input", one, "--dump", "x.npy"), "--dump writes a .npz file; found 'x.npy'."),
        (
            ("verify", model, "--golden", tmp_path),
            f"golden vectors come with a manifest; '{tmp_path / 'manifest.json'}' cannot be read: no such file or "
            "directory.",
        ),
        (
            ("compare", model, "--input", one, "--engines", "spec"),
            f"--engines takes two or more of {', '.join(ENGINE_NAMES)}; found 'spec'.",
        ),
        (
            ("compare", model, "--input", one, "--engines", "jit,jit"),
            f"--engines takes two or more of {', '.join(ENGINE_NAMES)}; found 'jit,jit'.",
        ),
        (
            ("run", model, "--input", one, "--engine", "onnxruntime", "--target", "mult31"),
            "onnxruntime runs the file's bodies, which round TIES_UP; target 'mult31' rounds TIES_AWAY.",
        ),
    ]
    for words, expected in cases:
        assert refusal(command, *words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "model.onnx"),
        ("run", "model.onnx", "--input", "x.npy", "--engine", "fpga"),
        ("run", "model.onnx", "--input", "x.npy", "--threads", "0"),
        ("run", "model.onnx", "--input", "x.npy", "more"),
        ("verify", "model.onnx"),
        ("target", "show"),
        ("simulate",),
        ("--loud",),
    ],
    ids=" ".join,
)
def test_words_that_are_no_command(command: Command, words: tuple[str, ...]) -> None:
    result = command(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr
    assert "Error: " in result.stderr


def test_help_and_version(command: Command) -> None:
    for words in ((), ("--help",), ("-h",)):
        result = command(*words)
        assert "Usage: " in result.output
        assert all(name in result.output for name in ("run", "verify", "compare", "info", "target"))
    for name in main.commands:
        shown = command(name, "--help")
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert shown.stdout.startswith(f"Usage: main {name} ")
    assert command("--version").stdout.startswith("dqtsim, version ")


def test_engines_of_the_command_are_the_executors() -> None:
    assert tuple(ENGINES) == ENGINE_NAMES


def test_the_script_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="dqtsim")
    assert script.load() is main


def test_a_batch_that_fails_half_way(command: Command, files: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(target_text("default").replace("width = 32 ", "width = 8 ", 1), encoding="utf-8")
    zero = np.full_like(picture(), 128)
    np.save(tmp_path / "x.npy", np.concatenate([zero, picture()]))
    result = command("run", files / "model.onnx", "--input", tmp_path / "x.npy", "--target", narrow, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the sum ")
    assert result.stderr.count("\n") == 1
