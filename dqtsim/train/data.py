"""Pictures for training: what `dqtsim.inputs.dataset` reads, as uint8 NCHW tensors, and augmentation.

A picture's bytes are its input codes, so nothing here touches a float.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dqtsim.errors import InputError
from dqtsim.inputs import dataset
from dqtsim.train.files import PictureFiles, Pictures, in_parts
from dqtsim.train.rewrite import INPUT_ZERO_POINT

# The most that calibration may read at once, and the least number of pictures.
_CALIBRATION_PIXELS = 512 * 32 * 32
_FEWEST = 16


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 [N, 3, H, W] and `labels` int64 [N]."""

    images: Pictures
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> "Split":
        """The first `count` pictures, or all."""
        images = self.images.first(count) if isinstance(self.images, PictureFiles) else self.images[:count]
        return Split(images, self.labels[:count])

    def calibration(self) -> torch.Tensor:
        """A few pictures from which steps are set: the first 512 of 32x32, fewer of larger ones.

        Files are sorted by class, so pictures in files are taken from the whole list.
        """
        rows, columns = self.images.shape[2:]
        count = min(512, max(_FEWEST, _CALIBRATION_PIXELS // (rows * columns)))
        if isinstance(self.images, PictureFiles):
            return self.images[torch.linspace(0, len(self) - 1, min(count, len(self)), dtype=torch.float64).long()]
        return self.images[:count]

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch in random order: augmented pictures uint8 [size, 3, H, W] and labels; a smaller rest is dropped."""
        order = torch.randperm(len(self), generator=generator)
        parts = torch.split(order[: len(order) // size * size], size)
        if isinstance(self.images, PictureFiles):
            pictures = self.images.augmented(parts, generator)
        else:
            pictures = (augment(self.images[index], generator) for index in parts)
        yield from zip(pictures, (self.labels[index] for index in parts), strict=True)


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
        found = hashlib.sha256()
        for part in in_parts(self.test.images):
            found.update(self.test.images[part].numpy().tobytes())
        return found.hexdigest()


def read_dataset(folder: Path, size: int | None = None) -> Dataset:
    """Both splits of `folder`, in any layout that `dqtsim.inputs.dataset` knows.

    With `size`, the pictures of an image folder may have any sizes, and stay in their files until they are needed.
    Without it they are read now. Raises InputError.
    """
    if size is not None and folder.is_dir():
        return _read_files(folder, size)
    train, test = dataset.read_split(folder, "train"), dataset.read_split(folder, "test")
    splits = [Split(torch.from_numpy(part.images), torch.from_numpy(part.labels)) for part in (train, test)]
    if splits[0].images.shape[1:] != splits[1].images.shape[1:]:
        raise InputError(f"the pictures of train and test must have one size, but in {folder} they have two.")
    return Dataset(splits[0], splits[1], train.class_names, train.name)


def _read_files(folder: Path, size: int) -> Dataset:
    if not dataset.is_image_folder(folder):
        raise InputError(f"a size is for a folder train with one folder of images per class; {folder} has none.")
    splits = []
    for name in ("train", "test"):
        files, names = dataset.list_images(folder, name)
        labels = torch.tensor([label for _, label in files])
        splits.append(Split(PictureFiles(tuple(str(path) for path, _ in files), size), labels))
    return Dataset(splits[0], splits[1], names, folder.name)


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
