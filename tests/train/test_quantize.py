"""`dqtsim quantize` from end to end: files that PyTorch wrote, and what every engine gives for the result."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")
pytest.importorskip("onnxruntime", reason="the reference is the optional extra 'oracle'")

import torch
from click.testing import CliRunner, Result
from torch import nn

from dqtsim import load
from dqtsim.cli import main
from dqtsim.spec.rules import Nesting
from dqtsim.train import networks
from dqtsim.train.quantize import Pixels

SHAPE = (3, 16, 16)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def trained() -> nn.Module:
    """A ResNet-8 with statistics of its own."""
    torch.manual_seed(4)
    network = networks.build("resnet8", 10, 0.5).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(32, *SHAPE))
    return network.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx, net.pt2, one.onnx (for one picture) and pictures.npy."""
    root = tmp_path_factory.mktemp("quantize")
    network = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = (torch.zeros(1, *SHAPE),)
        options: dict[str, Any] = {"dynamo": False, "input_names": ["x"]}
        torch.onnx.export(network, picture, root / "net.onnx", **options, dynamic_axes={"x": {0: "n"}})
        torch.onnx.export(network, picture, root / "one.onnx", **options)
        program = torch.export.export(network, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("n")},))
        torch.export.save(program, root / "net.pt2")
    np.save(root / "pictures.npy", np.random.default_rng(1).integers(0, 256, (24, *SHAPE), np.uint8))
    return root


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def quantize(files: Path, name: str, out: Path, *more: object) -> Result:
    data = files / "pictures.npy"
    return run("quantize", files / name, "--calibrate", data, "--pictures", 12, "-o", out, *more)


@pytest.fixture(autouse=True)
def _leave_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqtsim.cli.quantize._keep_memory", lambda: None)


@pytest.mark.parametrize("name", ["net.onnx", "one.onnx", "net.pt2"])
def test_a_file_is_quantized_and_every_engine_agrees(files: Path, name: str, tmp_path: Path) -> None:
    out, golden = tmp_path / "nested.onnx", tmp_path / "golden"
    layers = tmp_path / "layers.csv"
    found = quantize(files, name, out, "--widths", "4,w8a6", "--golden", golden, "--json", "--report", layers)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert (report["sensitivity"]["reference"], len(report["sensitivity"]["steps"])) == ("float", 14)
    assert [(row["weights"], row["activations"]) for row in report["widths"]] == [(8, 8), (8, 6), (4, 4)]
    best, _, worst = report["widths"]
    assert best["signal_to_noise_db"] > 25
    assert best["signal_to_noise_db"] > worst["signal_to_noise_db"]
    assert best["same_class"] >= 0.9
    graph = load(out)
    assert graph.candidates == ((4, 4), (8, 6), (8, 8))
    assert graph.arithmetic.weight_rule is Nesting.CENTROID
    assert {"stem", "block1.conv1", "block2.down"} <= {node.name for node in graph.nodes}
    verified = run("verify", out, "--golden", golden)
    assert verified.exit_code == 0, verified.output
    assert verified.output.startswith("test-00000-w4a4.npz: same")
    np.save(tmp_path / "one.npy", np.load(files / "pictures.npy")[20])
    compared = run("compare", out, "--input", tmp_path / "one.npy", "--engines", "spec,native,onnxruntime")
    assert compared.exit_code == 0, compared.output


def test_the_table_names_pictures_and_pixels(files: Path, tmp_path: Path) -> None:
    mean, std = (",".join(map(str, part)) for part in (MEAN, STD))
    options = ("--widths", "8", "--input-mean", mean, "--input-std", std)
    found = quantize(files, "net.onnx", tmp_path / "a.onnx", *options)
    assert found.exit_code == 0, found.output
    lines = [line.rstrip() for line in found.stdout.splitlines()]
    assert lines[0] == "net.onnx against float on 12 other pictures"
    assert lines[1].split() == ["bits", "float's", "class", "signal", "to", "noise"]
    assert lines[2].startswith("8 ")
    assert float(lines[2].split()[3]) > 25
    assert lines[3] == (
        f"{tmp_path / 'a.onnx'}: 12 pictures to calibrate, x = (q / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]"
    )
    said = found.stderr.splitlines()
    assert said[:3] == [
        f"reading {files / 'net.onnx'}",
        "comparing what was read with onnxruntime",
        "reading the network's steps",
    ]


def test_a_report_says_which_layer_hurts_against_float(files: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "a.onnx", tmp_path / "layers.csv"
    options = ("--widths", "3", "--report", report)
    found = quantize(files, "net.onnx", out, *options)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[-1] == f"{report}: 14 steps, 9 layers alone at 1 pair of widths, 12 pictures, against float"
    assert lines[-2].startswith("at 3 bits ")
    assert lines[-2].endswith(" of 12 classes are float's")
    rows = [line.split(",") for line in report.read_text().splitlines()[1:]]
    assert rows[0][:4] == ["stem", "NestedConv", "8", "8"]
    as_it_runs = {(row[0], int(row[2])): float(row[4]) for row in rows}
    # the stem is pinned, so it is as near to float at any widths; all others are nearer at 8 bits
    assert as_it_runs["stem", 8] == as_it_runs["stem", 3]
    assert all(as_it_runs[name, 8] > as_it_runs[name, 3] for name, bits in as_it_runs if name != "stem")
    assert min(as_it_runs[name, 8] for name, _ in as_it_runs) > 20
    table = next(line.split() for line in lines if line.startswith("8 "))
    assert table[3] == f"{as_it_runs['fc', 8]:.1f}"


def test_layers_are_adapted_where_asked(files: Path, tmp_path: Path) -> None:
    found = quantize(files, "net.onnx", tmp_path / "a.onnx", "--widths", "4", "--adapt", "1")
    assert found.exit_code == 0, found.output
    assert "\nblock1.conv1 adapted, dB: w4a4 +" in found.stderr


def test_pixels_are_what_the_float_network_takes() -> None:
    codes = np.arange(6, dtype=np.uint8).reshape(1, 3, 2, 1)
    values = Pixels(1.0, MEAN, STD).values(codes).numpy()
    assert values[0, 1, 1, 0] == np.float32((3 / 255 - 0.4) / 0.25)
    assert Pixels(255.0, (127.0,), (128.0,)).values(codes)[0, 2, 1, 0] == np.float32((5 - 127) / 128)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--input-mean", "1,0"), "error: --input-mean must have one number or one per channel, 3, and has 2.\n"),
        (("--input-std", "0"), "error: --input-std must be positive; found 0.\n"),
        (("--input-mean", "0.5,123.7,0"), "error: --input-mean must lie within --input-range, 0 to 1; found 123.7.\n"),
        (("--report", "x.pdf"), "error: --report writes a .csv, .png, .svg or .html file; found 'x.pdf'.\n"),
        (
            ("--widths", "7", "--adapt", "2"),
            "error: there is nothing to adapt: no pair of widths has a width of 6 bits or fewer.\n",
        ),
        (("--widths", "9"), "Error: Invalid value for '--widths': widths are from 1 to 8\n"),
        (("--widths", "x"), "Error: Invalid value for '--widths': give widths such as 2-8, 4,8 or 5,w8a6\n"),
        (("--input-std", "x"), "'--input-std': give a number, or one per channel with commas\n"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence_and_nothing_is_written(
    files: Path, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    found = quantize(files, "net.onnx", tmp_path / "a.onnx", *words)
    assert found.exit_code == 2
    assert found.stderr.endswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_read_wrongly_is_refused(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dqtsim.train.onnx import network, pointwise

    wrong = dict(network.HANDLERS) | {"Relu": pointwise.HANDLERS["Abs"]}
    monkeypatch.setattr(network, "HANDLERS", wrong)
    found = quantize(files, "net.onnx", tmp_path / "a.onnx")
    assert found.exit_code == 2
    last = found.stderr.splitlines()[-1]
    assert last.startswith("error: the output '")
    assert " as read must be onnxruntime's, but they are up to " in last
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_nothing_is_taken_on_trust(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = quantize(files, "net.onnx", tmp_path / "a.onnx")
    assert found.exit_code == 2
    assert found.stderr.endswith('error: the reference is onnxruntime; install it with pip install "dqtsim[oracle]".\n')
    assert list(tmp_path.iterdir()) == []
