"""What one training step does: which pairs it takes, whom it imitates, and what settled epochs leave alone."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.errors import InputError
from dqtsim.train import loop, train
from dqtsim.train.board import Board
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.data import read_dataset
from dqtsim.train.loop import load_networks
from dqtsim.train.loss import task_loss
from dqtsim.train.phases import load_state

from .conftest import tiny_config

PAIRS = ((2, 2), (3, 3), (4, 4), (8, 8))


def trainer(cifar: Path, out: Path, **options: Any) -> loop._Trainer:
    config = dataclasses.replace(tiny_config(cifar, out), candidates=PAIRS, device="cpu", **options)
    config.check()
    dataset = read_dataset(cifar)
    return loop._Trainer(config, RunDir(out), dataset, Board(out, 0), loop._cost(config, dataset))


def test_a_step_takes_the_widest_pair_and_draws_the_others(cifar: Path, tmp_path: Path) -> None:
    steps = trainer(cifar, tmp_path, pairs_per_step=2)
    drawn = [steps._step_pairs() for _ in range(60)]
    assert all(pairs[0] == ((8, 8), 1.0) and len(pairs) == 2 for pairs in drawn)
    assert all(weight == 3.0 for _, (_, weight) in drawn)
    assert {pair for _, (pair, _) in drawn} == {(2, 2), (3, 3), (4, 4)}
    everything = trainer(cifar, tmp_path)._step_pairs()
    assert everything == [((8, 8), 1.0), ((4, 4), 1.0), ((3, 3), 1.0), ((2, 2), 1.0)]


@pytest.mark.parametrize("count", [1, 5])
def test_a_step_cannot_take_fewer_than_two_pairs_or_more_than_all(cifar: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match=f"from 2 to the number of consistency pairs, 4, but is {count}"):
        trainer(cifar, tmp_path, pairs_per_step=count)


def test_narrow_pairs_imitate_the_widest_of_their_step(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[torch.Tensor | None] = []

    def spy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float, teacher: Any = None, share: float = 0) -> Any:
        teachers.append(teacher)
        return task_loss(logits, labels, smoothing, teacher, share)

    monkeypatch.setattr(loop, "task_loss", spy)
    config = dataclasses.replace(
        tiny_config(cifar, tmp_path / "run"), width=0.25, float_epochs=1, distill=0.5, teacher="master", batch_size=64
    )
    train(dataclasses.replace(config, dynamic_epochs=0))
    # The float phase's step has no teacher; of the one uniform step, the widest has none either.
    assert [teacher is None for teacher in teachers] == [True, True, False, False]
    assert not any(teacher.requires_grad for teacher in teachers if teacher is not None)


def test_settled_epochs_leave_the_controller_and_train_the_network(cifar: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(cifar, tmp_path / "one"), width=0.25, dynamic_epochs=1, frozen_epochs=0)
    settled = dataclasses.replace(config, out=tmp_path / "two", settled_epochs=1)
    uniform = dataclasses.replace(config, out=tmp_path / "three", dynamic_epochs=0)
    explored, kept, before = (load_state(train(c).checkpoint) for c in (config, settled, uniform))

    def moved(state: dict[str, Any], module: str, name: str) -> bool:
        return not torch.equal(state[module][name], before[module][name])

    assert moved(explored, "controller", "logits.weight")
    assert not moved(kept, "controller", "logits.weight")
    assert moved(kept, "network", next(name for name in kept["network"] if name.endswith("weight")))
    network = load_networks(RunDir(settled.out), read_dataset(cifar))[1]
    assert network.rules.candidates == settled.candidates


def test_settled_epochs_are_dynamic_epochs() -> None:
    with pytest.raises(InputError, match="settled_epochs must be from 0 to dynamic_epochs, 7, but is 8"):
        TrainConfig(Path(), Path(), settled_epochs=8).check()
