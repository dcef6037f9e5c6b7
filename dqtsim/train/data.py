"""Pictures for training: what `dqtsim.dataset` reads, as uint8 NCHW tensors, and augmentation.

A picture's bytes are its input codes, so nothing here touches a float.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from dqtsim import dataset
from dqtsim.errors import InputError
from dqtsim.train.rewrite import INPUT_ZERO_POINT


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 [N, 3, H, W] and `labels` int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> "Split":
        """The first `count` pictures, or all."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """A training and a test split that share one list of class names."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a picture."""
        channels, rows, columns = self.train.images.shape[1:]
        return channels, rows, columns

    def fingerprint(self) -> str:
        """SHA-256 over the bytes of the test pictures, to name the data in a model's metadata."""
        return hashlib.sha256(self.test.images.numpy().tobytes()).hexdigest()


def read_dataset(folder: Path) -> Dataset:
    """Both splits of `folder`, in any layout that `dqtsim.dataset` knows."""
    train, test = dataset.read_split(folder, "train"), dataset.read_split(folder, "test")
    splits = [Split(torch.from_numpy(part.images), torch.from_numpy(part.labels)) for part in (train, test)]
    if splits[0].images.shape[1:] != splits[1].images.shape[1:]:
        raise InputError(f"the pictures of train and test must have one size, but in {folder} they have two.")
    return Dataset(splits[0], splits[1], train.class_names, train.name)


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
