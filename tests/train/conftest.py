"""A CIFAR-10 folder of a few pictures that a small network can tell apart, and one finished run on it."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from dqtsim.train.config import RunDir, TrainConfig


def write_cifar(folder: Path, pictures: int = 32) -> Path:
    """Write the layout cifar-10-batches-py with `pictures` per batch, each class a colour and a gradient."""
    generator = np.random.default_rng(3)
    folder.mkdir(parents=True)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        labels = generator.integers(0, 10, pictures)
        colours = np.array([[25 * (3 * k % 10), 25 * (7 * k % 10), 25 * k] for k in range(10)])
        ramp = np.linspace(-30, 30, 32)
        images = colours[labels][:, :, None, None] + ramp[:, None] * np.where(labels % 2, 1, -1)[:, None, None, None]
        images = np.clip(images + generator.normal(0, 12, (pictures, 3, 32, 32)), 0, 255).astype(np.uint8)
        content = {b"data": images.reshape(pictures, -1), b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return folder


def tiny_config(data: Path, out: Path) -> TrainConfig:
    """Return a run of five epochs of two steps."""
    return TrainConfig(
        data=data, out=out, float_epochs=2, uniform_epochs=1, dynamic_epochs=2, frozen_epochs=1, batch_size=32,
        pictures=64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny data set."""
    return write_cifar(tmp_path_factory.mktemp("data") / "cifar-10-batches-py")


@pytest.fixture(scope="session")
def finished(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a finished tiny run."""
    from dqtsim.train import train

    return train(tiny_config(cifar, tmp_path_factory.mktemp("runs") / "run"))
