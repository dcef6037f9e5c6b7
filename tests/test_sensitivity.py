"""Which layer hurts: networks in which one layer is damaged at one width, and figures from hand-made runs."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from dqtsim.cli import main
from dqtsim.engines.registry import engine
from dqtsim.engines.result import Trace
from dqtsim.errors import InputError
from dqtsim.fidelity import SignalToNoise, real
from dqtsim.graph import save, with_bits
from dqtsim.graph.model import Graph, Quantization, Widths
from dqtsim.graph.results import meaning
from dqtsim.planner import plan
from dqtsim.report.text.sensitivity import as_csv, as_json, cut_name, sentences
from dqtsim.search import widest_candidate
from dqtsim.sensitivity import Sensitivity, measure, widest_first
from tests.builders import dense, network, picture, pooled, target

Array = npt.NDArray[np.float64]
PAIRS: tuple[Widths, ...] = ((2, 2), (4, 4), (8, 8))
PICTURES = picture(3, 5)
STEPS = ["stem", "left", "total", "right", "widest", "result"]
FREE = ["left", "right", "result"]


def sound() -> Graph:
    """Return the small network with the constants of 8 bits in all rows, so that narrow codes alone make noise."""
    graph = network(dynamic=False)
    tables = {name: array for name, array in graph.initializers.items() if array.shape[:1] == (3,) and array.ndim == 2}
    rows = {name: np.broadcast_to(array[-1:], array.shape) for name, array in tables.items() if name != "result.weight"}
    return replace(graph, initializers={**graph.initializers, **rows})


def damaged(layer: str, row: int) -> Graph:
    """Return that network with a row of a layer whose results are 64 times too large: most codes are at an end."""
    graph = sound()
    shift = graph.initializers[f"{layer}.shift"].copy()
    shift[row] -= 6
    return replace(graph, initializers={**graph.initializers, f"{layer}.shift": shift})


def figures(graph: Graph) -> Sensitivity:
    return measure(graph, target(), PAIRS, PICTURES)


def tensors(graph: Graph, setting: list[Widths], sample: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """Return the real values of all steps of a static run by the law itself."""
    compiled, trace = plan(with_bits(graph, setting), target()), Trace()
    engine(compiled, "spec")(sample, [trace])
    known = {name: meaning(graph, name) for name in STEPS}
    return {name: real(trace.tensors[name], means) for name, means in known.items() if means}


def noise(a: Array, b: Array) -> float:
    return float(np.square(a - b).sum())


@pytest.mark.parametrize(("layer", "row"), [("left", 1), ("right", 0), ("right", 1)])
def test_a_damaged_layer_is_named_at_its_width_and_no_other(layer: str, row: int) -> None:
    whole, found = figures(sound()), figures(damaged(layer, row))
    pair, other = PAIRS[row], PAIRS[1 - row]
    assert found.worst(pair) == layer
    assert whole.alone[pair][layer].ratio.decibel > found.alone[pair][layer].ratio.decibel + 3
    assert found.running[other] == whole.running[other]
    for name in FREE:
        assert found.alone[other][name].ratio == whole.alone[other][name].ratio
        if name != layer:
            assert found.alone[pair][name].ratio == whole.alone[pair][name].ratio
    for name in STEPS[: STEPS.index(layer)]:
        assert found.running[pair][name] == whole.running[pair][name]
    assert found.running[pair][layer].decibel < whole.running[pair][layer].decibel
    outputs = found.alone[pair][layer]
    assert sentences(found)[1 - row] == (
        f"at {pair[0]} bits {layer} alone costs most: {outputs.ratio.decibel:.1f} dB at the output, "
        f"{outputs.agree} of 5 classes are those of 8 bits"
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_figures_are_those_of_static_runs_by_the_law(dynamic: bool) -> None:
    graph = network(dynamic=dynamic)
    found = figures(graph)
    assert list(found.operators) == STEPS
    wide = [tensors(graph, [(8, 8)] * 4, PICTURES[i : i + 1]) for i in range(5)]
    for pair in ((4, 4), (2, 2)):
        narrow = [tensors(graph, [(8, 8), pair, pair, pair], PICTURES[i : i + 1]) for i in range(5)]
        for name in STEPS:
            ratio = found.running[pair][name]
            assert ratio.noise == sum(noise(a[name], b[name]) for a, b in zip(narrow, wide, strict=True))
            assert ratio.signal == sum(noise(a[name], 0 * a[name]) for a in wide)
        for row, layer in enumerate(FREE, 1):
            setting = [pair if k == row else (8, 8) for k in range(4)]
            alone = [tensors(graph, setting, PICTURES[i : i + 1])["result"] for i in range(5)]
            outputs = found.alone[pair][layer]
            assert outputs.ratio.noise == sum(noise(a, b["result"]) for a, b in zip(alone, wide, strict=True))
            assert outputs.agree == sum(a.argmax() == b["result"].argmax() for a, b in zip(alone, wide, strict=True))


def test_a_reference_from_outside_has_its_own_columns() -> None:
    graph = network(dynamic=False)

    def reference(sample: npt.NDArray[np.uint8]) -> Mapping[str, Array]:
        values = tensors(graph, [(8, 8)] * 4, sample)
        return {"left": values["left"], "result": values["result"].reshape(-1), "unknown": values["left"]}

    found = measure(graph, target(), PAIRS, PICTURES, reference)
    own = figures(graph)
    assert (found.against_float, own.against_float) == (True, False)
    assert list(found.operators) == ["left", "result"]
    assert list(found.running) == [(8, 8), (4, 4), (2, 2)]
    assert found.running[8, 8]["left"].decibel == math.inf
    assert found.running[4, 4]["left"] == own.running[4, 4]["left"]
    assert found.alone[4, 4]["right"].ratio == own.alone[4, 4]["right"].ratio


def test_equal_tensors_are_infinitely_near() -> None:
    one = SignalToNoise()
    one.add([1.0, 2.0], [1.0, 2.0])
    assert (one.decibel, SignalToNoise().decibel) == (math.inf, math.inf)
    one.add([1.0], [0.0])
    assert (one.signal, one.noise, one.decibel) == (5.0, 1.0, 10 * math.log10(5))
    silent = SignalToNoise()
    silent.add([1.0], [0.0])
    assert silent.decibel == -math.inf


def test_where_nothing_differs_no_layer_costs_anything() -> None:
    graph = dense([[0, 0], [16, -16]], logits=True)
    found = measure(graph, target(), [(4, 8)], np.array([[1, 2], [200, 3]], np.uint8))
    assert (found.alone[4, 8]["y"].decibel, found.worst((4, 8))) == (math.inf, None)
    assert sentences(found) == ["at w4a8 no layer alone costs anything"]


def test_real_values_of_a_scale_per_channel() -> None:
    codes = np.array([[[[3]], [[5]]]], np.uint8)
    assert real(codes, Quantization((0.5, 2.0), 1)).tolist() == [[[[1.0]], [[8.0]]]]
    assert real(codes, Quantization((0.5,), 4)).tolist() == [[[[-0.5]], [[0.5]]]]


def test_pairs_are_from_the_widest() -> None:
    assert widest_first([(2, 2), (4, 8), (8, 8), (8, 4), (2, 2)]) == ((8, 8), (8, 4), (4, 8), (2, 2))


def test_json_has_no_infinities_and_csv_says_inf() -> None:
    found = figures(network(dynamic=False))
    block = json.loads(json.dumps(as_json(found, model="m"), allow_nan=False))
    assert (block["model"], block["reference"], block["pictures"]) == ("m", "w8a8", 5)
    stem, left = block["steps"][:2]
    assert (stem["name"], stem["operator"]) == ("stem", "NestedConv")
    assert stem["widths"][1]["as_it_runs"] == {"signal_to_noise_db": None, "signal": left_signal(found), "noise": 0.0}
    assert stem["widths"][1]["alone"] is None
    assert left["widths"][0] == {"weights": 8, "activations": 8, "as_it_runs": None, "alone": None}
    assert left["widths"][2]["alone"]["signal_to_noise_db"] == found.alone[2, 2]["left"].ratio.decibel
    assert left["widths"][2]["alone"]["outputs_db"] == {"result": found.alone[2, 2]["left"].ratio.decibel}
    assert block["worst"] == [
        {"weights": 4, "activations": 4, "layer": found.worst((4, 4))},
        {"weights": 2, "activations": 2, "layer": found.worst((2, 2))},
    ]
    lines = as_csv(found).splitlines()
    assert lines[0] == "step,operator,weights,activations,as_it_runs_db,alone_db,alone_same_class"
    assert lines[1:3] == ["stem,NestedConv,8,8,,,", "stem,NestedConv,4,4,inf,,"]
    assert len(lines) == 1 + 3 * len(STEPS)


def left_signal(found: Sensitivity) -> float:
    return found.running[4, 4]["stem"].signal


def test_long_names_lose_their_middle() -> None:
    assert cut_name("features.3.block.conv", 21) == "features.3.block.conv"
    assert cut_name("features.3.block.conv", 12) == "featu…k.conv"


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["sensitivity", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx and pictures.npy."""
    root = tmp_path_factory.mktemp("sensitivity")
    save(network(), root / "model.onnx")
    np.save(root / "pictures.npy", PICTURES)
    return root


def test_the_tables_fit_80_columns_and_mark_the_worst(files: Path) -> None:
    result = command(files / "model.onnx", "--data", files / "pictures.npy", "--widths", "1-7,w8a6,w6a8")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "model.onnx, 5 pictures, against its own 8 bits"
    assert lines[1].rstrip() == "signal to noise of each step, all layers at these widths, dB"
    # nine pairs: seven in a table
    assert lines[2].split() == ["w8a6", "7", "w6a8", "6", "5", "4", "3"]
    assert lines[3].split() == ["stem", *["inf"] * 7]
    tables = [line for line in lines if not line.startswith("at ")]
    assert max(len(line.rstrip()) for line in tables) <= 80
    found = measure(network(), target(), [(4, 4)], PICTURES)
    worst = found.worst((4, 4))
    assert worst is not None
    rows = [line.split() for line in lines if line.startswith(worst)]
    assert f"*{found.alone[4, 4][worst].ratio.decibel:.1f}" in rows[2]
    assert f"at 4 bits {worst} alone costs most: " in result.stdout


def test_the_models_own_widths_are_the_default_and_json_is_one_object(files: Path) -> None:
    result = command(files / "model.onnx", "--data", files / "pictures.npy", "--pictures", 2, "--json")
    block = json.loads(result.stdout)
    assert [row["weights"] for row in block["network"]] == [8, 4, 2]
    assert block["pictures"] == 2


def test_a_csv_file(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "layers.csv"
    result = command(files / "model.onnx", "--data", files / "pictures.npy", "-o", out)
    assert result.stdout.splitlines()[-1] == (
        f"{out}: 6 steps, 3 layers alone at 2 pairs of widths, 5 pictures, against its own 8 bits"
    )
    assert out.read_text() == as_csv(figures(network()))


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
def test_a_plot_is_the_same_file_each_time(kind: str, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are the optional extra 'report'")
    one, two = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    for out in (one, two):
        assert command(files / "model.onnx", "--data", files / "pictures.npy", "-o", out).exit_code == 0
    content = one.read_bytes()
    assert content == two.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!DOCTYPE html>"}
    assert content.startswith(start[kind])


def test_the_page_has_every_figure_and_loads_nothing(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are the optional extra 'report'")
    out = tmp_path / "a.html"
    command(files / "model.onnx", "--data", files / "pictures.npy", "-o", out)
    text, found = out.read_text(), figures(network())
    assert all(f"<li>{sentence}</li>" in text for sentence in sentences(found))
    for outputs in found.alone[4, 4].values():
        assert f"{outputs.ratio.decibel:.1f}\N{NO-BREAK SPACE}dB · " in text
    assert "http" not in text.replace("http-equiv", "")


def test_without_matplotlib_one_sentence_names_the_extra(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = command(files / "model.onnx", "--data", files / "pictures.npy", "-o", tmp_path / "a.png")
    assert (result.exit_code, result.output) == (
        2, 'error: a plot needs matplotlib; install it with pip install "dqtsim[report]".\n'
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "{out}/a.pdf"], "error: -o writes a .csv, .png, .svg or .html file; found '{out}/a.pdf'.\n"),
        (["--widths", "8"], "error: a network is compared with itself at its widest pair; no pair but that, w8a8, is "
         "given.\n"),
        (["--widths", "4;5"], "Error: Invalid value for '--widths': give widths such as 2-8, 4,8 or 5,w8a6\n"),
        (["--widths", "9"], "Error: Invalid value for '--widths': widths are from 1 to 8\n"),
    ],
)  # fmt: skip
def test_refusals(files: Path, tmp_path: Path, words: list[str], message: str) -> None:
    given = [word.format(out=tmp_path) for word in words]
    result = command(files / "model.onnx", "--data", files / "pictures.npy", *given)
    assert result.exit_code == 2
    assert result.output.endswith(message.format(out=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_measured() -> None:
    with pytest.raises(InputError) as raised:
        measure(pooled((3, 6, 6), "max_pool", kernel=(2, 2), strides=(1, 1)), target(), PAIRS, PICTURES)
    assert str(raised.value) == "widths are those of layers that are not pinned; model 'one' has none."
    with pytest.raises(InputError) as raised:
        figures(replace(network(), quantization={}))
    assert str(raised.value) == "signal to noise is of real values; no output of model 'small' has a scale."


def test_a_plan_and_this_report_take_the_same_pair_for_the_other_layers() -> None:
    graph = network()
    assert figures(graph).widest == graph.candidates[widest_candidate(graph)] == (8, 8)
