"""count-ops of nested models, and new."""

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dqtsim.counting.counts import count, totals
from dqtsim.energy import load_energy
from dqtsim.engines.registry import engine
from dqtsim.graph import load
from dqtsim.ops.primitives import COMMON
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.widths import apply_bits

from .conftest import Command, refusal

MACS = 12_501_632


def parsed(command: Command, *words: object) -> dict[str, Any]:
    result = command("count-ops", *words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    tree: dict[str, Any] = json.loads(result.stdout)
    return tree


def lines(command: Command, *words: object) -> list[list[str]]:
    """Return the words of every line of a table."""
    result = command("count-ops", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.split() for line in result.stdout.splitlines()]


def test_by_layer(command: Command, resnet8: Path) -> None:
    found = lines(command, resnet8, "--bits", "4")
    assert found[0] == ["resnet8,", "bits", "4"]
    assert " ".join(found[1]) == (
        "node widths MACs BitOPs weights nested acts nested after acc. traffic cycles energy of it MACs"
    )
    layers = load(resnet8).layers
    assert [line[0] for line in found[2 : 2 + len(layers)]] == list(layers)
    stem, rest, total = found[2], found[2 + len(layers)], found[3 + len(layers)]
    assert stem[1:6] == ["4", "442,368", "7,077,888", "432", "3,072"]
    assert rest[:3] == ["adds,", "pools,", "moves"]
    assert total[:3] == ["total", f"{MACS:,}", f"{16 * MACS:,}"]
    # 336 channels with 3 rows of 32 + 16 + 6 bits, and 10 logits with 3 rows of 32: 55,392 bits
    assert [" ".join(line) for line in found[4 + len(layers) :]] == [
        "weights nested: on the fly; 0 where nested weights are kept and widths stay",
        "storage: 619 kb of weights at 8 bits, 55.4 kb of biases, multipliers and shifts; target default",
        "energy horowitz-45nm: add 8, add 32 read from the source, add 48, multiply 4x4, multiply 8x16, multiply 32x16 "
        "interpolated",
    ]


def test_by_type_and_width(command: Command, resnet8: Path) -> None:
    by_type = lines(command, resnet8, "--by", "type")
    operators = Counter(node.operator for node in load(resnet8).nodes)
    assert {line[0]: int(line[1]) for line in by_type[2:-1]} == operators
    assert by_type[-1][:3] == ["total", str(operators.total()), f"{MACS:,}"]
    widths = "8,8,8,w4a8,4,4,4,2,2,2"
    by_width = lines(command, resnet8, "--by", "width", "--bits", widths)
    assert {line[0]: int(line[1]) for line in by_width[2:] if line[0] != "no"} == {
        "8": 3,
        "w4a8": 1,
        "4": 3,
        "2": 3,
        "total": operators.total(),
    }
    assert sum(int(line[2].replace(",", "")) for line in by_width[2:-1] if line[0] != "no") == MACS


def test_json(command: Command, resnet8: Path) -> None:
    tree = parsed(command, resnet8, "--bits", "w4a2", "--target", "acc24-saturate")
    assert (tree["model"], tree["target"], tree["bits_policy"]) == (str(resnet8), "acc24-saturate", "w4a2")
    assert set(map(tuple, tree["bits"].values())) == {(4, 2)}
    graph, _ = apply_bits(load(resnet8), "w4a2")
    compiled = plan(graph, load_target("acc24-saturate"))
    counts = count(compiled, dict.fromkeys(graph.layers, (4, 2)), load_energy())
    cost, traffic, cycles, energy = totals(counts)
    own = tree["dqtsim"]["total"]
    assert own["macs"] == MACS
    assert own["bitops"] == 8 * MACS
    assert own["macs_by_widths"] == {"w4a2": MACS}
    assert own["operations"] == {key.value: times for key, times in cost.primitives.items()}
    kept = own["operations_if_widths_stay"]
    assert {key: times for key, times in own["operations"].items() if kept[key] != times} == {
        "weight_nest_shifts": 77_360,
        "weight_nest_ors": 77_360,
    }
    assert kept["weight_nest_shifts"] == kept["weight_nest_ors"] == 0
    assert own["cycles"] == cycles
    assert own["energy_pj"] == {**energy, "total": sum(energy.values())}
    assert own["traffic_bits"]["total"] == traffic.total
    assert own["traffic_bits"]["weights"] == {"8": 8 * 77_360}
    assert own["traffic_bits"]["weights_kept_nested"] == {"4": 4 * 77_360}
    assert [node["name"] for node in tree["dqtsim"]["nodes"]] == [node.name for node in graph.nodes]
    by_kind = tree["dqtsim"]["by_kind"]
    for key in ("macs", "bitops", "cycles"):
        assert sum(part[key] for part in by_kind.values()) == own[key]
    figures = {(f["operation"], *f["bits"]): f["read"] for f in tree["dqtsim"]["energy_figures"]}
    assert figures["add", 8]
    assert not figures["multiply", 4, 2]


def test_the_keys_of_qonnx(command: Command, resnet8: Path) -> None:
    cost = parsed(command, resnet8, "--bits", "4")["inference_cost"]
    outputs = 16 * 1024 * 3 + 32 * 256 * 3 + 64 * 64 * 3 + 10
    assert cost["total_cost"] == {
        "op_mac_UINT4_INT4": MACS,
        "mem_w_INT4": 77_360,
        "mem_o_INT32": outputs,
        "total_mem_w_bits": 4 * 77_360,
        "total_mem_w_elems": 77_360,
        "total_mem_o_bits": 32 * outputs,
        "total_mem_o_elems": outputs,
        "total_bops": 16 * MACS,
        "total_macs": MACS,
        "unsupported": "set()",
        "discount_sparsity": False,
    }
    assert cost["node_cost"]["fc"] == cost["optype_cost"]["NestedLogits"]
    assert cost["node_cost"]["fc"] == {
        "op_mac_UINT4_INT4": 640,
        "mem_w_INT4": 640,
        "mem_o_INT32": 10,
        "total_mem_w_bits": 2560,
        "total_mem_w_elems": 640,
        "total_mem_o_bits": 320,
        "total_mem_o_elems": 10,
        "total_bops": 10240,
        "total_macs": 640,
    }
    assert set(cost["node_cost"]) == set(load(resnet8).layers)
    mixed = parsed(command, resnet8, "--bits", "8,8,8,w4a8,4,4,4,2,2,2")["inference_cost"]["total_cost"]
    assert [key for key in mixed if key.startswith("op_mac")] == [
        "op_mac_UINT8_INT8",
        "op_mac_UINT8_INT4",
        "op_mac_UINT4_INT4",
        "op_mac_UINT2_INT2",
    ]
    assert mixed["total_macs"] == MACS


def test_csv(command: Command, resnet8: Path) -> None:
    result = command("count-ops", resnet8, "--csv", "--bits", "w4a8")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    graph = load(resnet8)
    assert [row["node"] for row in rows] == [node.name for node in graph.nodes]
    assert {primitive.value for primitive in COMMON} <= set(rows[0])
    assert sum(int(row["macs"]) for row in rows) == MACS
    assert sum(int(row["bitops"]) for row in rows) == 32 * MACS
    assert {(row["weight_width"], row["activation_width"]) for row in rows} == {("4", "8"), ("", "")}
    own = parsed(command, resnet8, "--bits", "w4a8")["dqtsim"]["total"]
    for primitive in COMMON:
        assert sum(int(row[primitive.value]) for row in rows) == own["operations"].get(primitive.value, 0)


def test_static_widths_of_a_dynamic_model(command: Command, dynamic: Path) -> None:
    tree = parsed(command, dynamic, "--bits", "4")
    # the stem is pinned, and a controller that decides nothing is not executed
    assert tree["bits"]["stem"] == [8, 8]
    assert tree["dqtsim"]["total"]["macs"] == MACS
    assert tree["dqtsim"]["by_kind"]["controller"]["macs"] == 0


def test_the_run_of_a_picture(command: Command, dynamic: Path, tmp_path: Path) -> None:
    codes = np.random.default_rng(3).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "one.npy", codes)
    np.save(tmp_path / "two.npy", np.concatenate([codes, codes]))
    graph = load(dynamic)
    result = engine(plan(graph, load_target("default")), "spec")(codes, [])
    tree = parsed(command, dynamic, "--input", tmp_path / "one.npy")
    assert tuple(map(tuple, tree["bits"].values())) == result.bits
    assert tree["dqtsim"]["total"]["macs"] == result.macs
    assert tree["dqtsim"]["total"]["bitops"] == result.bitops
    assert tree["dqtsim"]["by_kind"]["controller"]["macs"] == 256 * 64 + 64 * 27
    table = lines(command, dynamic, "--input", tmp_path / "one.npy")
    assert " ".join(table[0]) == "resnet8, bits dynamic, picture one.npy"
    assert refusal(command("count-ops", dynamic, "--input", tmp_path / "two.npy")) == (
        f"--input counts the run of one picture; '{tmp_path / 'two.npy'}' holds 2."
    )


def test_without_a_picture_a_controller_is_counted_at_its_widest(command: Command, dynamic: Path) -> None:
    table = lines(command, dynamic)
    assert " ".join(table[0]) == (
        "resnet8, widest choice of the controller (give --input or --data for what it really chooses)"
    )
    assert any(line[0] == "controller" for line in table)
    assert {tuple(pair) for pair in parsed(command, dynamic)["bits"].values()} == {(8, 8)}


def test_energy_tables_are_swapped(command: Command, resnet8: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        "name = 'own'\nsource = 'made up'\nadd = {8 = 0, 32 = 0}\nmultiply = {8 = 64, 32 = 1024}\n"
        "memory = {access_bits = 1, here = 0}\n"
        "placement = {weights = 'here', activations = 'here', tables = 'here'}\n",
        encoding="utf-8",
    )
    tree = parsed(command, resnet8, "--bits", "w4a2", "--energy", path)["dqtsim"]
    assert tree["energy_table"] == "own"
    assert tree["total"]["energy_pj"]["memory"] == tree["total"]["energy_pj"]["nesting"] == 0
    assert round(tree["total"]["energy_pj"]["macs"]) == 8 * MACS
    sentence = refusal(command("count-ops", resnet8, "--energy", tmp_path / "none.toml"))
    assert sentence == f"the energy table '{tmp_path / 'none.toml'}' cannot be read: no such file or directory."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--json", "--csv"], "--json and --csv exclude each other."),
        (["--bits", "9"], "--bits: widths lie between 1 and the master width 8; found '9'."),
        (["--bits", "dynamic"], "dynamic widths need a controller; model 'resnet8' has none."),
        (["--bits", "static"], "--bits: expected a width such as 4, or a pair such as w4a8; found 'static'."),
        (["--energy", "x"], "an energy table is horowitz-45nm or a .toml file; found 'x'."),
    ],
)
def test_wrong_use(command: Command, resnet8: Path, words: list[str], sentence: str) -> None:
    assert refusal(command("count-ops", resnet8, *words)) == sentence


def test_an_operator_that_is_not_registered(command: Command, resnet8: Path, tmp_path: Path) -> None:
    model = onnx.load(resnet8)
    model.graph.node[-1].op_type = "NestedSoftmax"
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    sentence = refusal(command("count-ops", path))
    found, _, supported = sentence.partition(" (supported: ")
    assert found == "a model may use only supported operators; node 'fc' is operator 'NestedSoftmax' of domain 'dqtsim'"
    assert supported.endswith("dqtsim.NestedRequantize, dqtsim.NestedTable).")


def test_counting_loads_no_kernels(resnet8: Path) -> None:
    """Nothing slow to import takes part, so that a count is there in a moment."""
    script = (
        "import sys\nfrom dqtsim.cli import main\n"
        f"main(['count-ops', {str(resnet8)!r}, '--bits', '4', '--json'], standalone_mode=False)\n"
        "print([m for m in ('numba', 'torch', 'onnxruntime', 'rich', 'matplotlib') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_counting_proves_no_bounds(resnet8: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    def proven(*_arguments: object) -> None:
        pytest.fail("a bound was proven")

    monkeypatch.setattr("dqtsim.planner.layer_bound", proven)
    assert command("count-ops", resnet8, "--bits", "4").exit_code == 0


def test_new(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    result = command("new", "resnet8", "--classes", "7", "--seed", "3", "--dynamic", "-o", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: resnet8, 10 layers, {path.stat().st_size:,} bytes\n"
    graph = load(path)
    assert (graph.dynamic, graph.outputs[0].shape, graph.producer["seed"]) == (True, (1, 7), "3")
    again = tmp_path / "again.onnx"
    command("new", "resnet8", "--classes", "7", "--seed", "3", "--dynamic", "-o", again)
    assert again.read_bytes() == path.read_bytes()
    command("new", "resnet8", "--classes", "7", "--seed", "4", "--dynamic", "-o", again)
    assert again.read_bytes() != path.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["again.onnx", "net.onnx"]


def test_new_refuses(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert refusal(command("new", "resnet9", "-o", path)) == (
        "a structure is one of resnet8, resnet20, resnet18, resnet18-imagenet, resnet50, mobilenetv2; found 'resnet9'."
    )
    assert refusal(command("new", "resnet8", "--input-size", "40", "-o", path)) == (
        "the input size of a structure is a multiple of 32; found 40."
    )
    assert refusal(command("new", "resnet8", "-o", tmp_path / "net.bin")) == (
        f"-o writes a .onnx file; found '{tmp_path / 'net.bin'}'."
    )
    assert refusal(command("new", "resnet8", "-o", tmp_path / "no" / "net.onnx")) == (
        f"-o writes into an existing folder; '{tmp_path / 'no'}' is none."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_stays_as_it_was(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")

    def full(self: Path, _data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert refusal(command("new", "resnet8", "-o", path)) == f"'{path}' cannot be written: no space left on device."
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
