"""What a file may ask for: every reader refuses devices, pipes and huge files at once, in one sentence."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dqtsim
from dqtsim import limits
from dqtsim.cli import main
from dqtsim.energy import load_energy
from dqtsim.engines.native.compile import cache
from dqtsim.errors import DqtsimError, cut, listed
from dqtsim.golden import find_vectors, hash_file, read_vector
from dqtsim.graph import load
from dqtsim.inputs.dataset import read_split
from dqtsim.inputs.picture import read_input
from dqtsim.target import load_target
from dqtsim.widths import rows_of
from tests.builders import network

Place = Callable[[Path], None]
Reader = Callable[[Path], object]
pytest.importorskip("PIL")


def beside(name: str, read: Reader) -> tuple[str, Reader]:
    """Return a reader of a file of this name: where it lies, and what reads it."""
    return name, read


READERS = {
    "model": beside("model.onnx", dqtsim.load),
    "nested model": beside("model.onnx", load),
    "target": beside("mine.toml", load_target),
    "plan in TOML": beside("plan.toml", lambda path: rows_of(network(), str(path))),
    "plan in JSON": beside("plan.json", lambda path: rows_of(network(), str(path))),
    "energy table": beside("mine.toml", load_energy),
    "manifest": beside("manifest.json", lambda path: find_vectors([path.parent])),
    "golden vector": beside("x.npz", lambda path: read_vector(path, {"sha256": {}, "bits_policy": "static"})),
    "picture of a data folder": beside("train/cat/a.png", lambda path: read_split(path.parents[2], "train")),
}


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 35)


def prepared(folder: Path, name: str, place: Place) -> Path:
    for part in ("train/cat", "test/cat"):
        (folder / part).mkdir(parents=True)
    path = folder / name
    place(path)
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
@pytest.mark.parametrize("place", [zero, pipe, sparse], ids=lambda place: place.__name__)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_what_is_no_file_or_too_large(tmp_path: Path, name: str, place: Place) -> None:
    where, read = READERS[name]
    path = prepared(tmp_path, where, place)
    with pytest.raises(DqtsimError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert str(path) in sentence
    if place is sparse:
        assert ": it has 34,359,738,368 bytes, and at most " in sentence
    else:
        assert ": it is no regular file" in sentence


@pytest.mark.parametrize(
    ("split", "where"),
    [("train", "data_batch_1"), ("test", "test_batch"), ("test", "test_batch.bin")],
)
def test_batches_of_a_data_set(tmp_path: Path, split: str, where: str) -> None:
    for part in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        (tmp_path / f"{part}{'.bin' if where.endswith('.bin') else ''}").touch()
    sparse(tmp_path / where)
    with pytest.raises(DqtsimError) as caught:
        read_split(tmp_path, split)
    assert str(caught.value).endswith(
        f"must be readable, but {tmp_path / where} is not: it has 34,359,738,368 bytes, and at most 1,073,741,824 are "
        "read."
    )


def test_sentences_in_full(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    sparse(path)
    with pytest.raises(DqtsimError) as caught:
        dqtsim.load(path)
    assert str(caught.value) == (
        f"the model file '{path}' cannot be read: it has 34,359,738,368 bytes, and at most 2,147,483,647 are read."
    )
    with pytest.raises(DqtsimError) as caught:
        load_target("/dev/null/x.toml")
    assert str(caught.value) == "the target file '/dev/null/x.toml' cannot be read: not a directory."


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1\r\n2")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert limits.read_bytes(tmp_path / "two", 4) == b"1\r\n2"
    assert limits.read_text(tmp_path / "two") == "1\n2"
    with pytest.raises(OSError, match="it has 4 bytes, and at most 3 are read"):
        limits.read_bytes(tmp_path / "two", 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_put_in_the_place_of_a_file_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    pipe(tmp_path / "pipe")
    status = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda _path, **_options: status)
    with pytest.raises(OSError, match="it is no regular file"):
        limits.read_bytes(tmp_path / "pipe", 9)


def test_what_is_no_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero(tmp_path / "device")
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(OSError, match="it is no regular file"):
        limits.read_bytes(tmp_path / "device", 9)


def test_a_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"longer")
    shorter = os.stat_result([0o100644, *[0] * 5, 2, 0, 0, 0])
    monkeypatch.setattr(os, "fstat", lambda _descriptor: shorter)
    with pytest.raises(OSError, match="it grows while it is read"):
        limits.read_bytes(path, 9)


def test_the_cache_takes_no_pipe(tmp_path: Path) -> None:
    sparse(tmp_path / "x.kernels")
    assert cache._read(tmp_path / "x.kernels", b"") is None


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, input=np.zeros(1 << 20, np.uint8))
    monkeypatch.setattr(limits, "VECTOR_BYTES", 1 << 19)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(DqtsimError) as caught:
        read_vector(path, {"sha256": {}, "bits_policy": "static"})
    assert str(caught.value) == (
        f"a golden vector has at most 65,536 tensors and 524,288 bytes; '{path}' unpacks to 1 and 1,048,704."
    )


def test_an_array_is_read_only_if_its_header_fits(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 6, 6), np.uint8))
    head = path.read_bytes()[:128].replace(b"(3, 6, 6), }", b"(9, 9, 9), }")
    path.write_bytes(head)
    os.truncate(path, 1 << 33)
    with pytest.raises(DqtsimError) as caught:
        read_input(path, network())
    assert str(caught.value) == (
        f"model 'small' takes uint8 of shape (6, 6, 3) or (3, 6, 6), or a batch of these; '{path}' holds (9, 9, 9)."
    )


def test_a_second_array_is_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 6, 6), np.uint8))
        np.save(file, np.ones((3, 6, 6), np.uint8))
    with pytest.raises(DqtsimError) as caught:
        read_input(path, network())
    assert str(caught.value) == f"the input is one .npy array; '{path}' goes on after it."


def test_trees(tmp_path: Path) -> None:
    assert limits.json_tree('{"a": [1], "b": {"a": 2}}') == {"a": [1], "b": {"a": 2}}
    for parse, text, said in (
        (limits.json_tree, '{"b": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        (limits.json_tree, "[" * 100_000, "it is nested too deeply"),
        (limits.toml_tree, "a = " + "[" * 100_000, "it is nested too deeply"),
        (limits.json_tree, "9" * 5000, "integer string conversion"),
        (limits.toml_tree, "a = " + "9" * 5000, "integer string conversion"),
    ):
        with pytest.raises(ValueError, match=said):
            parse(text)
    (tmp_path / "plan.json").write_text('{"bits": {"stem": 2, "stem": 8}}')
    with pytest.raises(DqtsimError) as caught:
        rows_of(network(), str(tmp_path / "plan.json"))
    assert str(caught.value) == f"the plan file '{tmp_path / 'plan.json'}' is not JSON: the key 'stem' occurs twice."
    (tmp_path / "mine.toml").write_text("name = " + "9" * 5000)
    with pytest.raises(DqtsimError) as caught:
        load_target(tmp_path / "mine.toml")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_what_sentences_show_is_short(tmp_path: Path) -> None:
    assert (cut("x" * 63), cut("x" * 64)) == ("x" * 63, "x" * 60 + "...")
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(1032)], "; ").endswith("30; 31 and 1,000 more")
    target = tmp_path / "mine.toml"
    target.write_text("".join(f"k{n} = 1\n" for n in range(50_000)))
    plan = tmp_path / "plan.json"
    plan.write_text('{"bits": {"' + "x" * 100_000 + '": 2}}')
    energy = tmp_path / "energy.toml"
    energy.write_text(f'name = "a"\nsource = "b"\n[memory]\naccess_bits = "{"x" * 100_000}"\n')
    reads: list[Reader] = [load_target, lambda path: rows_of(network(), str(path)), load_energy]
    for read, path in zip(reads, (target, plan, energy), strict=True):
        with pytest.raises(DqtsimError) as caught:
            read(path)
        assert len(str(caught.value)) < 2500
        assert "..." in str(caught.value) or " more." in str(caught.value)


def test_a_configuration_of_training(tmp_path: Path) -> None:
    from click.testing import CliRunner

    path = tmp_path / "config.toml"
    for content, said in (
        (None, "cannot be read: it has 34,359,738,368 bytes, and at most 1,048,576 are read."),
        ("seed = " + "[" * 50_000, "is not TOML: it is nested too deeply."),
    ):
        if content is None:
            sparse(path)
        else:
            path.write_text(content)
        result = CliRunner().invoke(main, ["train", "--config", str(path), "resnet8", "--data", "x", "--out", "y"])
        assert (result.exit_code, result.stderr) == (2, f"error: the configuration '{path}' {said}\n")


def test_the_model_is_hashed_within_its_limit(tmp_path: Path) -> None:
    sparse(tmp_path / "big")
    with pytest.raises(OSError, match="at most 2,147,483,647 are read"):
        hash_file(tmp_path / "big")
