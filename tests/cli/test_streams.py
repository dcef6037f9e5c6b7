"""The command as a real process on consoles that show few characters, on closed pipes and full disks."""

import dataclasses
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import network, picture
from tests.vectors import Folder

ROOT = Path(__file__).parent.parent.parent
NAMES = ("жук", "naïve ネコ", "\U0001f408")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one.npy, three.npy, golden/ and model.onnx, whose classes have names in four scripts."""
    root = tmp_path_factory.mktemp("named")
    Folder(root, dataclasses.replace(network(), class_names=NAMES))
    np.save(root / "one.npy", picture()[0])
    np.save(root / "three.npy", picture(5, count=3))
    return root


def dqtsim(*words: object, encoding: str = "utf-8", shell: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "dqtsim", *map(str, words)]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, env=environment, capture_output=True, check=False)


@cache
def in_utf8(*words: object) -> str:
    return dqtsim(*words).stdout.decode()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp1252:strict", "latin-1", "utf-8"])
def test_class_names_of_any_script_on_any_console(named: Path, encoding: str) -> None:
    codec = encoding.removesuffix(":strict")
    for pictures in ("one", "three"):
        words = ("run", named / "model.onnx", "--input", named / f"{pictures}.npy", "--bits", "4")
        found = dqtsim(*words, encoding=encoding)
        assert (found.returncode, found.stderr) == (0, b"")
        full = in_utf8(*words)
        assert any(name in full for name in NAMES)
        shown, expected = found.stdout.decode(codec), full.encode(codec, "backslashreplace").decode(codec)
        # all but the last line, which has the time
        assert shown.splitlines()[:-1] == expected.splitlines()[:-1]


def test_errors_on_a_console_of_ascii_are_escaped() -> None:
    found = dqtsim("run", "жук.onnx", "--input", "x.npy", encoding="ascii")
    assert (found.returncode, found.stdout) == (2, b"")
    name = r"\u0436\u0443\u043a"
    assert found.stderr.decode("ascii") == (
        f"error: the model file '{name}.onnx' cannot be read: no such file or directory.\n"
    )


def test_a_path_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    found = dqtsim("run", os.fsdecode(b"\xff.onnx"), "--input", "x.npy")
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr == b"error: the model file '\\udcff.onnx' cannot be read: no such file or directory.\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of a POSIX shell")
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_closed_pipe_is_not_wrong_bits(named: Path, reader: str) -> None:
    words = ("verify", named / "model.onnx", "--golden", named / "golden", "--engine", "spec")
    found = dqtsim(*words, shell=f"| {reader} > /dev/null; exit ${{PIPESTATUS[0]}}")
    # the reader may read all before it ends
    assert found.returncode in ((141,) if reader == "true" else (0, 141))
    assert found.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_is_one_sentence(named: Path) -> None:
    found = dqtsim("verify", named / "model.onnx", "--golden", named / "golden", "--engine", "spec", shell=">/dev/full")
    assert found.returncode == 2
    assert found.stderr == b"error: the output cannot be written: no space left on device.\n"


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line with a command 'own' that does what `code` says."""
    text = f"""
import click
from dqtsim.cli import main
@main.command("own")
def own():
    {code}
main(["own"], prog_name="dqtsim")
"""
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("code", "expected", "error"),
    [
        ("raise SystemExit(1)", 1, ""),
        ("return 1", 1, ""),
        ("raise SystemExit", 0, ""),
        ("raise click.ClickException('no')", 2, "Error: no"),
        ("raise click.UsageError('no')", 2, "Error: no"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise ValueError('no')", 70, "ValueError: no"),
        ("open('none')", 70, "FileNotFoundError: [Errno 2] No such file or directory: 'none'"),
        ("from dqtsim.errors import InputError; raise InputError('no.')", 2, "error: no."),
    ],
)
def test_exit_code_1_is_wrong_bits_alone(code: str, expected: int, error: str, tmp_path: Path) -> None:
    found = run(code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert found.returncode == expected
    assert (found.stderr.splitlines() or [""])[-1] == error


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interruption_is_not_wrong_bits() -> None:
    # where the tests run in the background the signal is ignored from the start
    usual = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    found = run(f"import os, signal; {usual}; os.kill(os.getpid(), signal.SIGINT)")
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "\ninterrupted\n")
