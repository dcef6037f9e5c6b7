"""TensorBoard's files say what log.csv says, once, whatever happened to the run."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")
pytest.importorskip("tensorboard", reason="event files need TensorBoard, part of the extra 'train'")

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dqtsim.train import train
from dqtsim.train.board import Board, scalars
from dqtsim.train.config import RunDir, TrainConfig

from .conftest import tiny_config

Points = dict[str, list[tuple[int, float]]]


def points(folder: Path) -> Points:
    """Return the steps and values of every tag in the event files of a folder, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(run: RunDir) -> Points:
    """Return the same from log.csv, in the precision of an event file."""
    found: Points = {}
    for step, row in enumerate(csv.DictReader(run.table.read_text().splitlines()), 1):
        values = {name: json.loads(text) for name, text in row.items() if name != "phase" and text}
        for tag, value in scalars(values):
            found.setdefault(tag, []).append((step, torch.tensor(value).item()))
    return found


def short(cifar: Path, out: Path) -> TrainConfig:
    return dataclasses.replace(tiny_config(cifar, out), pictures=32)


def test_the_event_files_hold_every_number_of_the_table(finished: RunDir) -> None:
    expected = logged(finished)
    assert points(finished.path) == expected
    assert {"epoch", "seconds", "loss_loss", "float", "w2a2", "dynamic", "mean_width", "shares/8/2"} <= set(expected)
    assert [step for step, _ in expected["w8a8"]] == [3, 4, 5]


def test_a_killed_run_has_every_point_once(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = short(cifar, tmp_path / "run")
    add = Board.add

    def kill(self: Board, row: dict[str, object]) -> None:
        """Stop where a point is in its file and the row is not in the log, as a kill could."""
        add(self, row)
        assert len(points(config.out)["epoch"]) == self.rows
        if self.rows == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Board, "add", kill)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert len(RunDir(config.out).epochs()) == 2
    monkeypatch.setattr(Board, "add", add)
    run = train(config, resume=True)
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 2
    assert points(run.path) == logged(run)


def test_without_tensorboard_a_run_says_so_and_goes_on(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = dataclasses.replace(short(cifar, tmp_path / "run"), float_epochs=1, uniform_epochs=1, dynamic_epochs=0)
    run = train(config)
    assert len(run.epochs()) == 2
    assert not list(run.path.glob("events*"))
    assert capsys.readouterr().err.startswith(
        "TensorBoard's files are not written, because they need the package tensorboard; install it with "
        'pip install "dqtsim[train]".\n'
    )
