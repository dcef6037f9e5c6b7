"""Models whose outputs are feature maps, one or several: every command shows them, or says what it needs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqtsim.graph import Graph, GraphBuilder, Quantization, Tensor, load, save
from dqtsim.graph.results import meaning, scores
from tests.builders import Array, dense, picture
from tests.train.conftest import write_cifar
from tests.vectors import Folder

from .conftest import Command

ENGINES = ("spec", "native", "numba", "onnxruntime", "torch")
NO_CLASSES = (
    "error: accuracy is of a model with class scores: an output with one row of logits, or of codes with a class name "
    "each; 'maps' gives 'boxes' uint8 (1, 2, 6, 6), 'small' uint8 (1, 4, 3, 3).\n"
)


def maps(*, logits: bool = False, rows: int = 6) -> Graph:
    """Return a network with the outputs 'boxes', signed, and 'small', not negative; with `logits` also 'fc'."""
    random = np.random.default_rng(0)
    b = GraphBuilder("maps", candidates=((4, 4), (8, 8)), class_names=("ant", "bee", "cow") if logits else ())

    def conv(name: str, x: Tensor, outputs: int, zero_point: int) -> Tensor:
        weight = random.integers(0, 256, (outputs, x.shape[1], 3, 3), np.uint8)
        return b.conv(
            name, x, weight=weight, bias=[[9] * outputs], multiplier=[[40000] * outputs], shift=[[25] * outputs],
            row_widths=(8,), zero_point=zero_point, scale=0.25, clip=(0, 255), pads=(1, 1, 1, 1),
        )  # fmt: skip

    stem = conv("stem", b.input("x", (1, 3, rows, 6), zero_point=128, scale=1 / 64), 4, 0)
    b.output(conv("boxes", stem, 2, 128))
    small = b.max_pool("small", stem, kernel=(2, 2), strides=(2, 2))
    b.output(small)
    if logits:
        flat = b.flatten("flat", small)
        weight = random.integers(0, 256, (3, flat.shape[1]), np.uint8)
        b.output(b.logits("fc", flat, weight=weight, bias=[[0, 0, 0]], row_widths=(8,), weight_scale=(0.5,)))
    return b.build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model.onnx, its golden vectors, and x.npy: three pictures."""
    root = tmp_path_factory.mktemp("maps")
    Folder(root, maps())
    np.save(root / "x.npy", picture(5, count=3))
    np.save(root / "one.npy", picture(5, count=3)[:1])
    return root


def real(values: Array, zero_point: int) -> list[float]:
    return [0.25 * (int(end) - zero_point) for end in (values.min(), values.max())]


@pytest.mark.parametrize("engine", ENGINES)
def test_run_gives_every_output_with_its_meaning(command: Command, folder: Path, tmp_path: Path, engine: str) -> None:
    dump = tmp_path / "dump.npz"
    result = command(
        "run", folder / "model.onnx", "--input", folder / "one.npy", "--engine", engine, "--json", "--dump", dump
    )
    (found,) = json.loads(result.stdout)["results"]
    assert (found["class_index"], found["class_name"], found["logits"]) == (None, None, [])
    with np.load(dump) as archive:
        tensors = dict(archive)
    expected: list[dict[str, Any]] = []
    for name, zero_point in (("boxes", 128), ("small", 0)):
        lowest, highest = real(tensors[name], zero_point)
        about = {"name": name, "dtype": "uint8", "shape": list(tensors[name].shape), "scale": 0.25}
        expected.append({**about, "zero_point": zero_point, "lowest": lowest, "highest": highest})
    assert found["outputs"] == expected


def test_one_picture_as_a_person_reads_it(command: Command, folder: Path) -> None:
    lines = command("run", folder / "model.onnx", "--input", folder / "one.npy").stdout.splitlines()
    assert lines[0].split() == ["output", "dtype", "shape", "scale", "zero", "point", "lowest", "highest"]
    assert lines[1].split()[:5] == ["boxes", "uint8", "2x6x6", "0.25", "128"]
    assert lines[2].split()[:5] == ["small", "uint8", "4x3x3", "0.25", "0"]


def test_a_batch_as_a_person_reads_it(command: Command, folder: Path) -> None:
    lines = command("run", folder / "model.onnx", "--input", folder / "x.npy").stdout.splitlines()
    for index, line in enumerate(lines[:3]):
        assert re.match(rf" +{index}  boxes -?[0-9.]+ to [0-9.]+, small 0 to [0-9.]+  widths 8 8", line)


def test_feature_maps_beside_logits(command: Command, tmp_path: Path) -> None:
    graph = maps(logits=True)
    save(graph, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", picture())
    words = ("run", tmp_path / "model.onnx", "--input", tmp_path / "x.npy")
    (found,) = json.loads(command(*words, "--json").stdout)["results"]
    assert [output["name"] for output in found["outputs"]] == ["boxes", "small", "fc"]
    assert found["class_index"] == int(np.argmax(found["logits"]))
    assert found["outputs"][2]["highest"] == 0.125 * max(found["logits"])
    lines = command(*words).stdout.splitlines()
    assert lines[0].split()[0] in graph.class_names
    assert lines[4].split()[:5] == ["fc", "int32", "3", "0.125", "0"]
    assert "output 'fc' int32 3, x = 0.125 q, the class is its largest" in command("info", words[1]).stdout


def test_a_row_of_codes_with_a_name_each_classifies(command: Command, tmp_path: Path) -> None:
    named = dense([[1, 0], [0, 3]], rules={"class_names": ("ant", "bee")})
    save(named, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.array([140, 150], np.uint8))
    for engine in ENGINES:
        words = ("run", tmp_path / "model.onnx", "--input", tmp_path / "x.npy", "--engine", engine, "--json")
        (found,) = json.loads(command(*words).stdout)["results"]
        assert (found["class_name"], found["logits"]) == ("bee", [])
    assert (scores(named), scores(dense([[1, 0], [0, 3]]))) == ("y", "")


def test_the_meaning_of_a_moved_tensor_is_that_of_its_source() -> None:
    graph = maps(logits=True)
    known = {name: found for name, found in graph.quantization.items() if name != "flat"}
    graph = replace(graph, quantization=known)
    assert meaning(graph, "flat") == Quantization((0.25,), 0)
    assert meaning(graph, "fc") == Quantization((0.125,), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_verify(command: Command, folder: Path, engine: str) -> None:
    result = command("verify", folder / "model.onnx", "--golden", folder / "golden", "--engine", engine)
    assert (result.exit_code, result.stdout.splitlines()[-1][-11:]) == (0, "0 different")


def test_compare(command: Command, folder: Path) -> None:
    words = ("compare", folder / "model.onnx", "--input", folder / "x.npy", "--engines", ",".join(ENGINES))
    result = command(*words)
    assert (result.exit_code, result.stdout.count(": 0 different")) == (0, 4)


def test_info_vectors_count_report_and_bench(command: Command, folder: Path, tmp_path: Path) -> None:
    model, one = folder / "model.onnx", folder / "one.npy"
    assert "output 'boxes' uint8 2x6x6, x = 0.25 (q - 128)\noutput 'small' uint8 4x3x3, x = 0.25 q\n" in (
        command("info", model).stdout
    )
    for words in (
        ("vectors", model, "--input", one, "-o", tmp_path / "vectors"),
        ("count-ops", model),
        ("report", model, "-o", tmp_path / "page.html"),
        ("bench", model, "--input", one, "--runs", 1),
    ):
        result = command(*words)
        assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["evaluate", "plan", "report"])
def test_without_classes_there_is_no_accuracy(command: Command, tmp_path: Path, name: str) -> None:
    model, data = tmp_path / "model.onnx", write_cifar(tmp_path / "data", pictures=1)
    save(maps(), model)
    more: dict[str, tuple[object, ...]] = {
        "evaluate": (),
        "plan": ("--budget", "6bits", "-o", tmp_path / "plan.toml"),
        "report": ("-o", tmp_path / "page.html"),
    }
    result = command(name, model, "--data", data, *more[name])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", NO_CLASSES)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_input_may_be_an_output(command: Command, tmp_path: Path, engine: str) -> None:
    b = GraphBuilder("both", candidates=((8, 8),))
    x = b.input("x", (1, 3, 2, 2), zero_point=0, scale=1.0)
    b.output(b.max_pool("y", x, kernel=(2, 2), strides=(2, 2)))
    b.output(x)
    save(b.build(), tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx").outputs[1].name == "x"
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2))
    words = ("run", tmp_path / "model.onnx", "--input", tmp_path / "x.npy", "--engine", engine, "--json")
    (found,) = json.loads(command(*words).stdout)["results"]
    assert [(output["name"], output["highest"]) for output in found["outputs"]] == [("y", 11.0), ("x", 11.0)]
