"""A training that diverges stops at the first loss or parameter that is not finite, and says where."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from torch import nn

from dqtsim.cli import main
from dqtsim.errors import InputError
from dqtsim.train import train
from dqtsim.train.config import RunDir
from dqtsim.train.divergence import check_losses, check_parameters

from .conftest import tiny_config

KEPT = "What is in the run's folder is that of the last whole epoch."


def diverged(cifar: Path, out: Path, **options: Any) -> str:
    config = dataclasses.replace(tiny_config(cifar, out), width=0.25, **options)
    with pytest.raises(InputError) as raised:
        train(config)
    return str(raised.value)


def test_a_float_phase_stops_and_leaves_no_network(cifar: Path, tmp_path: Path) -> None:
    found = diverged(cifar, tmp_path / "run", float_rate=1e30)
    assert found == (
        f"the training has diverged: the loss is nan at step 2 of 2 of epoch 1 of 2 (float); try a smaller "
        f"--float-rate. {KEPT}"
    )
    names = sorted(path.name for path in (tmp_path / "run").iterdir() if "tfevents" not in path.name)
    assert names == ["config.json"]


def test_a_nested_phase_keeps_what_was_whole(cifar: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = diverged(cifar, run.path, nested_rate=1e30)
    assert "(uniform); try a smaller --nested-rate." in found
    assert [row["phase"] for row in run.epochs()] == ["float", "float"]
    assert run.float_network.exists()
    assert not run.uniform_network.exists()
    assert "NaN" not in run.log.read_text()


def test_the_command_exits_with_2(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqtsim.cli.training._keep_memory", lambda: None)
    words = ["train", "resnet8", "--data", str(cifar), "--out", str(tmp_path / "run"), "--width", "0.25"]
    words += ["--pictures", "128", "--batch-size", "64", "--float-epochs", "2", "--float-rate", "1e30"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: the training has diverged: the loss is nan at step 2 of 2")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_every_term_is_looked_at(value: float) -> None:
    check_losses("dynamic", {"w2a2": 1.0, "cost": 1e308}, "step 1")
    with pytest.raises(InputError) as raised:
        check_losses("dynamic", {"w2a2": 1.0, "cost": value}, "step 1")
    assert str(raised.value) == (
        f"the training has diverged: the term 'cost' of the loss is {value} at step 1; try a smaller --dynamic-rate. "
        f"{KEPT}"
    )


def test_the_last_step_of_an_epoch_is_looked_at() -> None:
    network = nn.Linear(2, 1)
    check_parameters("float", {"float_network": network}, "step 2")
    with torch.no_grad():
        network.bias.fill_(float("inf"))
    with pytest.raises(InputError) as raised:
        check_parameters("float", {"float_network": network}, "step 2")
    assert str(raised.value) == (
        f"the training has diverged: 'bias' is not finite at the end of step 2; try a smaller --float-rate. {KEPT}"
    )
