"""One `load` for every format: found by content, refused in one sentence, and a new format is one line in a table."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import dqtsim
from dqtsim.cli import main
from dqtsim.errors import ModelError
from dqtsim.frontends import FRONTENDS, open_model
from dqtsim.graph import save
from dqtsim.structures import build
from tests.counting.foreign import tfc

Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of a format that is one line in the table; a picture lies beside it."""
    monkeypatch.setitem(FRONTENDS, "toy", "tests.frontends.toy")
    np.save(tmp_path / "one.npy", np.zeros((3, 32, 32), np.uint8))
    (tmp_path / "net.toy").write_text("toy: resnet8\n")
    return tmp_path / "net.toy"


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        dqtsim.load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["info"],
        ["run", "--input", "one.npy", "--engine", "numba"],
        ["compare", "--input", "one.npy", "--engines", "numba,onnxruntime"],
        ["count-ops", "--bits", "4"],
        ["count-ops", "--json"],
        ["report", "-o", "page.html"],
        ["vectors", "--input", "one.npy", "-o", "vectors", "--layer", "fc"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_takes_a_format_of_the_table(
    toy: Path, command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(toy.parent)
    result = command(words[0], toy, *words[1:])
    assert (result.exit_code, result.stderr) == (0, "")


def test_verify_takes_it_too(toy: Path, command: Command) -> None:
    digest = hashlib.sha256(toy.read_bytes()).hexdigest()
    (toy.parent / "manifest.json").write_text(json.dumps({"vectors": [], "model_sha256": digest}))
    result = command("verify", toy, "--golden", toy.parent)
    manifest = toy.parent / "manifest.json"
    assert (
        result.stderr == f"error: '{manifest}' lists every vector of its folder; '{toy.parent.name}' is not listed.\n"
    )


def test_the_circuit_takes_its_rules(toy: Path, command: Command) -> None:
    assert "localparam int N = 8;" in command("rtl", "params", "default", "--model", toy).stdout


def test_a_new_format_gives_its_graph_and_its_own_sentences(toy: Path) -> None:
    assert dqtsim.load(toy).layers == build("resnet8").layers
    assert open_model(toy).products() is None
    toy.write_text("toy:  ")
    assert refused(toy) == f"a toy names a structure; '{toy}' names none."


def test_a_nested_file_is_found_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model.of.any.name"
    save(build("resnet8"), path)
    assert dqtsim.load(path).layers == build("resnet8").layers
    assert open_model(path).products() is None


def test_a_model_that_lost_its_metadata_is_told_so(tmp_path: Path) -> None:
    save(build("resnet8"), tmp_path / "nested.onnx")
    model = onnx.load(tmp_path / "nested.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    assert refused(tmp_path / "bare.onnx") == (
        "a nested model states its format in metadata 'dqtsim.format'; this file has no such entry."
    )


@pytest.mark.parametrize("words", [["info"], ["run", "--input", "x.npy"], ["report", "-o", "x.html"]])
def test_an_ordinary_onnx_file_is_told_where_to_go(tmp_path: Path, command: Command, words: list[str]) -> None:
    path = tfc().save(tmp_path)
    result = command(words[0], path, *words[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: a nested model states its format in metadata 'dqtsim.format'; '{path}' is an ordinary ONNX file: "
        "dqtsim count-ops counts it, and dqtsim quantize makes a float network nested.\n"
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x1c\x00\x00\x00TFL3" + bytes(90), "a TensorFlow Lite file"),
        (b"PK\x03\x04" + bytes(90), "a zip archive, as PyTorch, Keras and NumPy write"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras writes"),
        (b"\x93NUMPY\x01\x00" + bytes(90), "a NumPy array"),
        (b"\x80\x02c", "a Python pickle, as PyTorch wrote"),
        (b"\x1f\x8b\x08" + bytes(90), "a gzip archive"),
        (b"", "empty"),
        (b"hello\n", "text"),
        (b"\x08\x0a\x3a\x7f12", "none, or is damaged: it begins with the bytes 08 0a 3a 7f 31 32"),
        (b"\x08\x0a", "none, or is damaged: it begins with the bytes 08 0a"),
        (b"\x3a\x00\xff", "none, or is damaged: it begins with the bytes 3a 00 ff"),
        (b"\x38\x01", "none, or is damaged: it begins with the bytes 38 01"),
        (b"\x3a\x00\x03", "none, or is damaged: it begins with the bytes 3a 00 03"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert refused(path) == f"a model file is of a format that dqtsim reads (ONNX); '{path}' is {what}."


@pytest.mark.parametrize("data", [b"\x3a\x02\xff\xff", b"\x3a\x00\x72\x01\xff"], ids=["graph", "metadata"])
def test_what_only_looks_like_onnx_does_not_parse(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    sentence = f"the model file '{path}' is not an ONNX file: it does not parse."
    assert refused(path) == sentence
    with pytest.raises(ModelError) as caught:
        open_model(path).products()
    assert str(caught.value) == sentence


def test_the_trained_model_is_a_model() -> None:
    path = Path(__file__).parents[2] / "models" / "resnet8-cifar10.onnx"
    assert dqtsim.load(path).name == "resnet8-cifar10"
