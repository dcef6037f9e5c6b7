"""Windows, padding codes, the column of ones: their corners are met, their vectors whole, all else is as it was."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqtsim import spec
from dqtsim.graph import Graph, GraphBuilder, save
from dqtsim.planner import plan
from dqtsim.rtl import cosim, vectors
from dqtsim.rtl.vectors import CONFIG, ORDER, LayerVector
from dqtsim.spec.rules import Nesting
from tests.builders import conv, target
from tests.cli.conftest import Command, command
from tests.rtl.corners import CIRCUITS, layers

__all__ = ["command"]
WINDOWS = (0, 3, 3, 3, 2, 2, 1, 1, 0)
CENTROID: dict[str, Any] = {"weight_rule": Nesting.CENTROID}


def corner_layers() -> Iterator[tuple[str, LayerVector]]:
    """Yield every corner layer with the name of its circuit."""
    yield from ((name, vector) for name in CIRCUITS for vector in layers(name)[1])


def one_layer(**more: Any) -> Graph:
    """Return a graph of one convolution with borders, of which the first rows and columns are only padding."""
    weight = np.random.default_rng(3).integers(-100, 100, (4, 2, 2, 3))
    how: dict[str, Any] = {"group": 2, "pads": (2, 1, 1, 3), "z_x": 77, "bits": (3, 5), "shift": 20, "bias": 11, **more}
    return conv((4, 3, 4), weight, **how)


CODES = np.random.default_rng(4).integers(0, 256, (1, 4, 3, 4), np.uint8)


def recorded(graph: Graph) -> tuple[dict[str, int], LayerVector]:
    """Return the parameters and the vectors of the one layer of a graph."""
    compiled = plan(graph, target(rows=2, columns=2))
    (vector,) = vectors.record(compiled, CODES)
    return vectors.parameters(compiled), vector


def test_codes_leave_their_window_at_both_ends() -> None:
    below = above = 0
    for name, vector in corner_layers():
        n = CIRCUITS[name].rules.get("master_width", 8)
        rule = CIRCUITS[name].rules.get("activation_rule", Nesting.TIES_UP)
        b, z, j = vector.config["b_a"], vector.config["z_x"], vector.config.get("j", 0)
        offset = spec.nest(z, b + j, n, rule) - spec.nest(z, b, n, rule)
        moved = [spec.nest(q, b + j, n, rule) - offset for q in vector.arrays["x"].reshape(-1).tolist()]
        below += min(moved) < 0
        above += j > 0 and max(moved) >= 1 << b
    assert below > 9
    assert above > 9


def test_padding_codes_are_met_at_all_four_borders() -> None:
    """An output exists whose window leaves the picture at each border, where codes of padding are no zero points."""
    met: set[str] = set()
    for _, vector in corner_layers():
        c = vector.config
        if "padding" not in vector.arrays or (vector.arrays["padding"] == c["z_x"]).all():
            continue
        last_y = (c["out_height"] - 1) * c["stride_y"] + (c["kernel_y"] - 1) * c["dilation_y"] - c["pad_top"]
        last_x = (c["out_width"] - 1) * c["stride_x"] + (c["kernel_x"] - 1) * c["dilation_x"] - c["pad_left"]
        met |= {"top"} if c["pad_top"] else set()
        met |= {"left"} if c["pad_left"] else set()
        met |= {"bottom"} if last_y >= c["height"] else set()
        met |= {"right"} if last_x >= c["width"] else set()
    assert met == {"top", "left", "bottom", "right"}


def test_sums_of_operands_are_odd_of_both_signs_where_their_half_is_rounded() -> None:
    odd = set()
    for name, vector in corner_layers():
        n, c = CIRCUITS[name].rules.get("master_width", 8), vector.config
        if "u" in vector.arrays and c["b_w"] < n and c["b_a"] + c.get("j", 0) == n:
            odd |= {(name, u > 0) for u in vector.arrays["u"].reshape(-1).tolist() if u % 2}
    with_ones = [name for name in CIRCUITS if CIRCUITS[name].rules.get("weight_rule") == Nesting.CENTROID]
    assert odd == set(product(with_ones, (False, True)))


def test_rows_by_pair_are_selected_outside_the_circuit() -> None:
    pairs = ((4, 4), (2, 8), (8, 8))
    bias, shift = [[1] * 4, [2] * 4, [3] * 4], [[5] * 4, [6] * 4, [7] * 4]
    for widths, row in (((2, 8), 1), ((3, 4), 0), ((8, 2), 2)):
        hardware, vector = recorded(one_layer(row_pairs=pairs, bits=widths, bias=bias, shift=shift, multiplier=1))
        assert "WINDOWS" not in hardware
        assert dict(vector.rules) == {"weight_rule": "TIES_UP", "activation_rule": "TIES_UP", "row": row}
        assert (vector.arrays["bias"] == row + 1).all()
        assert (vector.arrays["s"] == row + 5).all()


def naive_sums(vector: LayerVector, j: int) -> list[int]:
    """Return U of each group and position, tap by tap (B2')."""
    c, x, padding = vector.config, vector.arrays["x"].tolist(), vector.arrays["padding"].tolist()
    window = spec.Window((2, 3), (1, 1), (1, 1), (2, 1, 1, 3))

    def operand(code: int) -> int:
        return spec.window_operand(code, c["z_x"], c["b_a"], j, 8, Nesting.TIES_UP)

    def tap(channel: int, y: int, at: int) -> int:
        inside = 0 <= y < c["height"] and 0 <= at < c["width"]
        return operand(x[channel][y][at] if inside else padding[channel])

    places = product(range(c["groups"]), range(c["out_height"]), range(c["out_width"]))
    return [
        sum(tap(group * 2 + channel, y, at) for channel in range(2) for y, at in window.positions(oy, ox))
        for group, oy, ox in places
    ]


def test_the_sums_of_vectors_are_those_of_the_taps() -> None:
    _, vector = recorded(one_layer(rules=CENTROID, windows=WINDOWS, padding=(0, 255, 77, 78)))
    assert vector.arrays["u"].reshape(-1).tolist() == naive_sums(vector, WINDOWS[5])
    assert vector.config["j"] == WINDOWS[5]


@pytest.mark.parametrize(
    ("parts", "options", "more"),
    [
        ({"windows": WINDOWS}, {"WINDOWS": 1}, {"j"}),
        ({"padding": (0, 255, 77, 78)}, {"PADDING": 1}, {"padding"}),
        ({"rules": CENTROID}, {}, {"u"}),
        (
            {"rules": CENTROID, "windows": WINDOWS, "padding": (0, 255, 77, 78)},
            {"WINDOWS": 1, "PADDING": 1},
            {"j", "padding", "u"},
        ),
    ],
)
def test_a_circuit_has_the_options_that_its_layers_need(
    parts: dict[str, Any], options: dict[str, int], more: set[str], icarus: str
) -> None:
    plain, _ = recorded(one_layer())
    hardware, vector = recorded(one_layer(**parts))
    assert hardware == plain | options | {"WEIGHT_RULE": hardware["WEIGHT_RULE"]}
    assert set(vector.config) - set(CONFIG) | set(vector.arrays) - set(ORDER) == more
    assert cosim.simulate(cosim.build(hardware, [vector], icarus), hardware, vector).fault == ""


def test_a_layer_without_options_is_written_as_before(tmp_path: Path) -> None:
    hardware, vector = recorded(one_layer())
    vectors.write(vector, hardware, tmp_path)
    layer = json.loads((tmp_path / "layer.json").read_text(encoding="utf-8"))
    assert (layer["format"], tuple(layer["config"]), set(layer["arrays"])) == (1, CONFIG, set(ORDER))
    assert set(layer) == {"format", "layer", "operator", "cycles", "parameters", "config", "arrays"}


def reader(folder: Path) -> str:
    """Return what the program of the README prints for a folder."""
    text = (Path(vectors.__file__).parent / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    command = [sys.executable, "-I", "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_vectors_with_options_are_read_without_dqtsim(command: Command, tmp_path: Path) -> None:
    save(one_layer(rules=CENTROID, windows=WINDOWS, padding=(0, 255, 77, 78)), tmp_path / "one.onnx")
    np.save(tmp_path / "x.npy", CODES)
    where = ("--input", tmp_path / "x.npy", "-o", tmp_path / "out")
    for seed in ((), ("--seed", 7)):
        result = command("vectors", tmp_path / "one.onnx", *where, *seed)
        assert result.exit_code == 0, result.output
        folder = tmp_path / "out" / "00-y"
        assert {"'padding': 4", "'u': 60"} <= set(re.split("[{}, ]{2}|[{}]|\n", reader(folder)))
        layer = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        assert (layer["format"], layer["weight_rule"], layer["row"]) == (2, "CENTROID", 0)
        assert tuple(layer["config"]) == (*CONFIG, "j")
        assert layer["arrays"]["u"]["hex_bits"] == 25


def test_cosim_runs_a_file_with_options(command: Command, tmp_path: Path, icarus: str) -> None:
    save(one_layer(rules=CENTROID, windows=WINDOWS, padding=(0, 255, 77, 78)), tmp_path / "one.onnx")
    np.save(tmp_path / "x.npy", CODES)
    result = command("cosim", tmp_path / "one.onnx", "--input", tmp_path / "x.npy", "--simulator", icarus)
    assert result.exit_code == 0, result.output
    assert "y w3a5: same, 120 outputs, " in result.stdout


def test_parameters_of_a_model_have_its_options(command: Command, tmp_path: Path) -> None:
    save(one_layer(windows=WINDOWS, padding=(1, 2, 3, 4)), tmp_path / "one.onnx")
    result = command("rtl", "params", "default", "--model", tmp_path / "one.onnx")
    assert result.stdout.splitlines()[-2:] == ["localparam int WINDOWS = 1;", "localparam int PADDING = 1;"]


def test_a_wrong_sum_of_operands_is_found_and_named(icarus: str) -> None:
    hardware, vector = recorded(one_layer(rules=CENTROID))
    vector.arrays["u"][1, 0, 2] += 1  # the sums are the vector's own
    fault = cosim.simulate(cosim.build(hardware, [vector], icarus), hardware, vector).fault
    assert re.match(r"2 of 120 outputs differ; first at \[[23], 0, 2\]: sum of operands ", fault)


def product_of_maps() -> Graph:
    """Return a graph of a layer 'y' and of the product of what it gives with itself."""
    b = GraphBuilder("product", candidates=((2, 2),))
    x = b.input("x", (1, 4, 3, 4), zero_point=0, scale=1.0)
    how: dict[str, Any] = {"zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    tables: dict[str, Any] = {
        role: np.full((1, 2), value, np.int64) for role, value in (("bias", 3), ("multiplier", 1), ("shift", 9))
    }
    y = b.conv("y", x, weight=np.full((2, 4, 1, 1), 99, np.uint8), **tables, row_widths=(8,), **how)
    b.output(b.multiply("product", y, y, multiplier=1, shift=8, **how))
    return b.build([(8, 8)])


def test_a_product_is_no_layer_of_the_circuit(command: Command, tmp_path: Path) -> None:
    save(product_of_maps(), tmp_path / "one.onnx")
    np.save(tmp_path / "x.npy", CODES)
    expected = "error: 'product' is no nested layer; the model has y.\n"
    for words in (("vectors", "--layer", "product", "-o", tmp_path / "out"), ("cosim", "--layers", "product")):
        result = command(words[0], tmp_path / "one.onnx", "--input", tmp_path / "x.npy", *words[1:])
        assert (result.exit_code, result.stderr) == (2, expected)
