"""The command as a real process, and what it imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("numba", "torch", "scipy", "onnx", "onnxruntime", "matplotlib", "PIL", "rich", "numpy")


def process(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)


def dqtsim(*words: object) -> subprocess.CompletedProcess[str]:
    return process("-m", "dqtsim", *words)


def imported_by(code: str) -> set[str]:
    """Return which heavy packages are loaded after `code` has run."""
    show = f"import sys; print(' '.join(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    found = process("-c", f"import atexit; atexit.register(lambda: exec({show!r}, {{}}))\n{code}")
    assert found.returncode == 0, found.stderr
    loaded = set(found.stderr.split())
    assert loaded <= set(HEAVY), found.stderr
    return loaded


@pytest.mark.parametrize(
    "code",
    [
        "import dqtsim; dqtsim.__version__; dir(dqtsim)",
        "import dqtsim.spec, dqtsim.errors",
        "import dqtsim.target; dqtsim.target.load_target('default')",
    ],
)
def test_imports_cost_nothing(code: str) -> None:
    assert imported_by(code) == set()


def test_help_imports_nothing_heavy() -> None:
    for words in ("--help", "run --help", "target list"):
        code = f"from dqtsim.cli import main\nmain({words.split()!r}, standalone_mode=False)"
        assert imported_by(code) & {"numba", "torch", "onnx", "onnxruntime", "matplotlib", "PIL"} == set()


def test_planning_needs_neither_numba_nor_torch() -> None:
    code = "import dqtsim.planner, dqtsim.golden, dqtsim.engines.registry, dqtsim.inputs.picture, dqtsim.widths"
    assert imported_by(code) & {"numba", "torch", "onnx", "onnxruntime", "matplotlib", "PIL"} == set()


@pytest.mark.parametrize("words", [("--bits", "dynamic"), ("--bits", "w4a8", "--threads", "2", "--json")])
def test_a_native_run_needs_no_numba(words: tuple[str, ...]) -> None:
    model, codes = ROOT / "models" / "resnet8-cifar10.onnx", ROOT / "golden" / "resnet8-cifar10" / "picture.npy"
    command = ["run", str(model), "--input", str(codes), *words]
    loaded = imported_by(f"from dqtsim.cli import main\nmain({command!r}, standalone_mode=False)")
    assert loaded <= {"onnx", "rich", "numpy"}


def test_run_and_verify(files: Path) -> None:
    found = dqtsim("run", files / "model.onnx", "--input", files / "one.npy", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["layers"] == ["stem", "left", "right", "result"]
    found = dqtsim("verify", files / "model.onnx", "--golden", files / "golden", "--engine", "spec")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith(": 0 different\n")


def test_wrong_use_is_one_sentence() -> None:
    found = dqtsim("run", "none.onnx", "--input", "none.npy")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: the model file 'none.onnx' cannot be read: no such file or directory.\n"


def test_different_bits_are_exit_code_1(tmp_path: Path) -> None:
    from tests.vectors import Folder

    folder = Folder(tmp_path)
    tensors = folder.tensors("static")
    tensors["flat"][0, 0] ^= 128
    folder.write("static", tensors)
    found = dqtsim("verify", folder.model, "--golden", folder.path / "static.npz", "--engine", "spec")
    assert (found.returncode, found.stderr) == (1, "")
    assert "first divergence: 'flat' (Flatten) at [0, 0]: expected " in found.stdout
