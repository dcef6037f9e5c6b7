"""Pictures for training: what `dqtsim.dataset` reads, as tensors, and augmentation that stays in uint8.

A picture's bytes are its input codes (zero point 128, scale 1/64), so nothing here touches a float.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from dqtsim import dataset

INPUT_ZERO_POINT = 128
INPUT_SCALE = 1 / 64


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 [N, 3, H, W] and `labels` int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split that share one list of class names."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    name: str

    def fingerprint(self) -> str:
        """SHA-256 over the bytes of the test pictures, to name the data in a model's metadata."""
        return hashlib.sha256(self.test.images.numpy().tobytes()).hexdigest()


def read_dataset(folder: Path) -> Dataset:
    """Read both splits of `folder` in any layout that `dqtsim.dataset.read_split` knows. Raises InputError."""
    train, test = dataset.read_split(folder, "train"), dataset.read_split(folder, "test")
    return Dataset(_tensors(train), _tensors(test), train.class_names, train.name)


def _tensors(split: dataset.Split) -> Split:
    return Split(torch.from_numpy(split.images), torch.from_numpy(split.labels))


def augment(images: torch.Tensor, generator: torch.Generator, pad: int = 4) -> torch.Tensor:
    """Random crop after padding with the zero point, and random mirror: uint8 [N, C, H, W] to the same."""
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad), value=INPUT_ZERO_POINT)
    top = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    mirror = torch.rand((count, 1), generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    columns = torch.where(mirror, columns.flip(1), columns)
    samples = torch.arange(count)[:, None, None, None]
    planes = torch.arange(channels)[None, :, None, None]
    return padded[samples, planes, rows[:, None, :, None], columns[:, None, None, :]]
