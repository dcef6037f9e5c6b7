"""count-ops of standard quantized models: tables, JSON, CSV, and the options that they do not have."""

import csv
import io
import json
from pathlib import Path

import pytest

from .conftest import Command, refusal
from .foreign import tfc


def test_commands(command: Command, tmp_path: Path) -> None:
    path = tfc().save(tmp_path)
    table = [" ".join(line.split()) for line in command("count-ops", path).stdout.splitlines()]
    assert table == [
        "sheet, MACs and BitOPs of a standard model",
        "node operator input weights MACs BitOPs weight bits",
        "fc0 MatMul INT2 INT2 50,176 200,704 100,352",
        "fc1 MatMul INT2 INT2 4,096 16,384 8,192",
        "fc2 MatMul INT2 INT2 4,096 16,384 8,192",
        "fc3 MatMul INT2 INT2 640 2,560 1,280",
        "total 59,008 236,032 118,016",
        "no MACs, not counted: 3 BatchNormalization, 1 Mul, 8 Quant",
    ]
    for by, heading, row in (
        ("type", "operator nodes", "MatMul 4"),
        ("width", "types nodes", "INT2 x INT2 4"),
    ):
        lines = [" ".join(line.split()) for line in command("count-ops", path, "--by", by).stdout.splitlines()]
        assert lines[1:4] == [
            f"{heading} MACs BitOPs weight bits",
            f"{row} 59,008 236,032 118,016",
            "total 4 59,008 236,032 118,016",
        ]
    rows = list(csv.DictReader(io.StringIO(command("count-ops", path, "--csv").stdout)))
    assert [row["macs"] for row in rows] == ["50176", "4096", "4096", "640"]
    assert rows[3] == {
        "node": "fc3",
        "operator": "MatMul",
        "input_type": "INT2",
        "weight_type": "INT2",
        "macs": "640",
        "bitops": "2560",
        "weight_bits": "1280",
        "output_elements": "10",
    }


def test_json(command: Command, tmp_path: Path) -> None:
    path = tfc().save(tmp_path)
    tree = json.loads(command("count-ops", path, "--json").stdout)
    assert tree["model"] == str(path)
    assert tree["inference_cost"]["total_cost"] == {
        "op_mac_INT2_INT2": 59_008,
        "mem_w_INT2": 59_008,
        "mem_o_INT32": 202,
        "total_mem_w_bits": 118_016,
        "total_mem_w_elems": 59_008,
        "total_mem_o_bits": 6464,
        "total_mem_o_elems": 202,
        "total_bops": 236_032,
        "total_macs": 59_008,
        "unsupported": "set()",
        "discount_sparsity": False,
    }
    assert set(tree["inference_cost"]["node_cost"]) == {"fc0", "fc1", "fc2", "fc3"}
    assert tree["dqtsim"]["total"] == {"macs": 59_008, "bitops": 236_032, "weight_bits": 118_016}
    assert tree["dqtsim"]["without_macs"] == {"BatchNormalization": 3, "Mul": 1, "Quant": 8}


@pytest.mark.parametrize(
    "words",
    [("--bits", "4"), ("--target", "default"), ("--input", "x.npy"), ("--energy", "horowitz-45nm"), ("--data", "x")],
)
def test_options_that_only_nested_models_have(command: Command, tmp_path: Path, words: tuple[str, str]) -> None:
    sentence = refusal(command("count-ops", tfc().save(tmp_path), *words))
    assert sentence == f"{words[0]} is for nested models; a standard model carries its own widths."
