"""Widths that `dqtsim calibrate` adds to a model of `dqtsim quantize`, beside those that quantize makes itself."""

import json
from pathlib import Path

import numpy as np

from dqtsim import load
from dqtsim.engines.registry import run as run_plan
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.widths import apply_bits
from tests.train.test_quantize import _leave_memory_alone, files, quantize, run

__all__ = ["_leave_memory_alone", "files"]

WIDTHS = "4,5,6,w8a6"
# what rows and windows alone may lose, in decibels: steps, zero points and master codes were chosen for 8 bits
REACH = 2


def test_rows_alone_come_within_reach_of_quantize(files: Path, tmp_path: Path) -> None:
    eight, more, whole = (tmp_path / name for name in ("eight.onnx", "more.onnx", "whole.onnx"))
    assert quantize(files, "net.onnx", eight, "--widths", "8").exit_code == 0
    words = ("--data", files / "pictures.npy", "--pictures", 12, "--widths", WIDTHS, "--json")
    added = run("calibrate", eight, *words, "-o", more)
    assert added.exit_code == 0, added.output
    made = quantize(files, "net.onnx", whole, "--widths", WIDTHS, "--json")
    reached = {
        (row["weights"], row["activations"]): row["signal_to_noise_db"] for row in json.loads(made.stdout)["widths"]
    }
    for row in json.loads(added.stdout)["widths"]:
        assert row["signal_to_noise_db"] > reached[row["weights"], row["activations"]] - REACH
    same_outputs(eight, more, np.load(files / "pictures.npy"))
    np.save(tmp_path / "one.npy", np.load(files / "pictures.npy")[20])
    engines = ("--engines", "native,numba,onnxruntime,torch")
    compared = run("compare", more, "--input", tmp_path / "one.npy", "--bits", "w8a6", *engines)
    assert compared.exit_code == 0, compared.output


def same_outputs(one: Path, other: Path, codes: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Both models give the same results at 8 bits."""
    plans = [plan(apply_bits(load(path), "8")[0], load_target("default")) for path in (one, other)]
    for first, second in zip(*(run_plan(compiled, codes) for compiled in plans), strict=True):
        assert all(np.array_equal(first.outputs[name], array) for name, array in second.outputs.items())
