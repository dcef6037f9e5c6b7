"""`dqtsim calibrate`: the committed model gets widths and keeps its golden vectors; wrong use is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqtsim import load
from dqtsim.cli import main
from dqtsim.compare import compare_tensors
from dqtsim.engines.registry import traced
from dqtsim.golden import find_vectors, read_vector
from dqtsim.graph import BITS, save, with_bits
from dqtsim.planner import plan
from dqtsim.target import load_target
from tests.builders import dense, picture
from tests.cli.test_feature_maps import maps

ROOT = Path(__file__).parent.parent.parent
MODEL = ROOT / "models" / "resnet8-cifar10.onnx"
Calibrate = Callable[..., Result]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures with edges and areas, no noise."""
    path = tmp_path_factory.mktemp("pictures") / "pictures.npy"
    coarse = np.random.default_rng(2).integers(0, 256, (20, 3, 4, 4), np.uint8)
    np.save(path, coarse.repeat(8, 2).repeat(8, 3))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The committed model with 5 bits and w8a6, and what the command said."""
    out = tmp_path_factory.mktemp("made") / "more.onnx"
    return out, run(MODEL, "--data", pictures, "--pictures", 10, "--widths", "5,w8a6", "-o", out)


def test_the_table_is_beside_the_models_own_widest(made: tuple[Path, Result]) -> None:
    out, found = made
    assert found.exit_code == 0, found.output
    lines = [line.rstrip() for line in found.stdout.splitlines()]
    assert lines[0] == "resnet8-cifar10.onnx against its w8a8 on 10 other pictures"
    assert lines[1].split() == ["bits", "w8a8's", "class", "signal", "to", "noise"]
    assert [line.split()[0] for line in lines[2:4]] == ["w8a6", "5"]
    wide, narrow = (float(line.split()[3]) for line in lines[2:4])
    assert wide > narrow > 20
    assert lines[4:] == [
        f"{out}: widths 5 w8a6 added, 10 pictures to calibrate",
        "the controller chooses among the widths that it had; --bits asks for the new ones",
    ]
    assert found.stderr.splitlines() == [
        f"fitting {layer}" for layer in load(MODEL).layers if layer not in load(MODEL).pinned
    ]


def test_golden_vectors_of_the_model_hold_for_the_new_one(made: tuple[Path, Result]) -> None:
    graph, target = load(made[0]), load_target("default")
    for path, entry, _ in find_vectors([ROOT / "golden" / "resnet8-cifar10"]):
        vector = read_vector(path, entry)
        static = with_bits(graph, [(w, a) for w, a in vector.tensors[BITS].tolist()])
        compiled = plan(graph if vector.bits_policy == "dynamic" else static, target)
        _, tensors = traced(compiled, vector.input, "native")
        compared = compare_tensors(compiled, vector.tensors, tensors, str(path))
        assert compared.tensors == len(vector.tensors) - 1
        assert compared.first is None


def test_json_has_the_ratios_of_each_output(pictures: Path, tmp_path: Path) -> None:
    save(dense([[1, 90, -100], [50, 2, 7]], rules={"candidates": ((8, 8),)}), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (6, 3), np.uint8))
    words = ("--data", tmp_path / "x.npy", "--widths", "5-6", "-o", tmp_path / "out.onnx", "--json")
    found = run(tmp_path / "m.onnx", *words)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert (report["model"], report["output"]) == (str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx"))
    assert [(row["weights"], row["activations"], row["same_class"]) for row in report["widths"]] == [
        (6, 6, None),
        (5, 5, None),
    ]
    assert [row["outputs_db"]["y"] == row["signal_to_noise_db"] for row in report["widths"]] == [True, True]
    assert load(tmp_path / "out.onnx").candidates == ((5, 5), (6, 6), (8, 8))


def test_each_of_several_outputs_has_its_ratio(tmp_path: Path) -> None:
    save(maps(), tmp_path / "maps.onnx")
    np.save(tmp_path / "x.npy", picture(5, count=4))
    found = run(tmp_path / "maps.onnx", "--data", tmp_path / "x.npy", "--widths", "w8a6,6", "-o", tmp_path / "out.onnx")
    assert found.exit_code == 0, found.output
    lines = [line.split() for line in found.stdout.splitlines()]
    assert lines[0] == ["maps.onnx", "against", "its", "w8a8", "on", "4", "pictures", "of", "the", "calibration"]
    assert lines[1] == ["bits", "w8a8's", "class", "signal", "to", "noise", "boxes", "small"]
    assert [line[:2] for line in lines[2:4]] == [["w8a6", "-"], ["6", "-"]]
    assert [len(line) for line in lines[2:4]] == [8, 8]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--widths", "5,4"),
            "error: new pairs of widths are added and none is replaced; model 'resnet8-cifar10' has w4a4 already.\n",
        ),
        (("--widths", "9"), "Error: Invalid value for '--widths': widths are from 1 to 8\n"),
        (("--widths", "w5"), "Error: Invalid value for '--widths': give widths such as 2-8, 4,8 or 5,w8a6\n"),
        (("--widths", "5", "--data", "none"), "error: the input is a .npy or a picture file; 'none' is no file.\n"),
        (("--widths", "5", "-o", "x.txt"), "error: -o writes a .onnx file; found 'x.txt'.\n"),
        (("--widths", "5", "-o", MODEL), f"error: -o would overwrite '{MODEL}', which the command reads.\n"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence_and_nothing_is_written(
    words: tuple[object, ...], sentence: str, pictures: Path, tmp_path: Path
) -> None:
    before = MODEL.read_bytes()
    found = run(MODEL, "--data", pictures, "-o", tmp_path / "out.onnx", *words)
    assert found.exit_code == 2
    assert found.stderr.endswith(sentence)
    assert list(tmp_path.iterdir()) == []
    assert MODEL.read_bytes() == before
