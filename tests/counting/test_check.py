"""count-ops --check: a run counted from shapes and by execution, compared node by node."""

from pathlib import Path

import numpy as np
import pytest

from dqtsim.counting.by_execution import count_by_execution, different_nodes
from dqtsim.counting.counts import count
from dqtsim.energy import load_energy
from dqtsim.graph import save
from tests.builders import compiled, network, picture

from .conftest import Command, refusal
from .foreign import tfc


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the file of a small dynamic network; its picture lies beside it."""
    save(network(), tmp_path / "small.onnx")
    np.save(tmp_path / "one.npy", picture()[0])
    return tmp_path / "small.onnx"


@pytest.mark.parametrize("words", [(), ("--bits", "2")])
def test_both_counts_are_the_same(model: Path, command: Command, words: tuple[str, ...]) -> None:
    result = command("count-ops", model, "--input", model.parent / "one.npy", "--check", *words)
    nodes = len(network(dynamic=not words).nodes)  # with static widths, no controller
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"bits {words[-1] if words else 'dynamic'}, picture one.npy: {nodes} nodes counted from shapes and from the "
        "law's execution: 0 different\n"
    )


def test_a_wrong_count_exits_with_1(model: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqtsim.ops.cost.nesting", lambda *_args, **_options: {})
    result = command("count-ops", model, "--input", model.parent / "one.npy", "--bits", "2", "--check")
    assert result.exit_code == 1
    *named, summary = result.stdout.splitlines()
    assert named[0] == "node 'left': the counts from its shapes and from the law's execution differ"
    assert summary.endswith(f": {len(named)} nodes different")


def test_only_what_differs_is_named() -> None:
    ready = compiled(network(dynamic=False))
    result, executed = count_by_execution(ready, picture())
    promised = count(ready, dict(zip(ready.graph.layers, result.bits, strict=True)), load_energy())
    assert different_nodes(promised, executed) == []
    name = ready.graph.layers[-1]
    pair = next(iter(executed[name].macs))
    executed[name].macs[pair] += 1
    assert different_nodes(promised, executed) == [name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--check"], "--check executes the run of one picture; give it as --input."),
        (["--check", "--input", "x", "--json"], "--check takes neither --data nor --by, --json and --csv."),
        (["--check", "--input", "x", "--csv"], "--check takes neither --data nor --by, --json and --csv."),
        (["--check", "--input", "x", "--by", "type"], "--check takes neither --data nor --by, --json and --csv."),
        (["--check", "--data", "x"], "--check takes neither --data nor --by, --json and --csv."),
    ],
)
def test_what_a_check_takes(model: Path, command: Command, words: list[str], sentence: str) -> None:
    assert refusal(command("count-ops", model, *words)) == sentence


def test_a_standard_model_has_no_law_to_execute(tmp_path: Path, command: Command) -> None:
    sentence = refusal(command("count-ops", tfc().save(tmp_path), "--check", "--input", "x"))
    assert sentence == "--input is for nested models; a standard model carries its own widths."


def test_a_batch_is_not_one_run(model: Path, command: Command) -> None:
    np.save(model.parent / "three.npy", picture(5, count=3))
    sentence = refusal(command("count-ops", model, "--check", "--input", model.parent / "three.npy"))
    assert sentence == f"--input counts the run of one picture; '{model.parent / 'three.npy'}' holds 3."
