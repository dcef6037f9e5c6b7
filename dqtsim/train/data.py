"""Pictures for training: CIFAR-10 in its two official layouts, and folders of images, as uint8 NCHW tensors.

A picture's bytes are its input codes (zero point 128, scale 1/64), so nothing here touches a float.
"""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from dqtsim.errors import InputError

INPUT_ZERO_POINT = 128
INPUT_SCALE = 1 / 64

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_BYTES = 3 * 32 * 32
_PICKLE_NAMES = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


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
    """Read `folder` in any of its layouts: CIFAR-10 python, CIFAR-10 binary, train/ and test/ of images."""
    if not folder.is_dir():
        raise InputError(f"The data must be a folder, but there is no folder at {folder}.")
    for candidate in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if (candidate / "data_batch_1").is_file():
            return _cifar(candidate, "", _read_pickle, _meta_names(candidate / "batches.meta"))
        if (candidate / "data_batch_1.bin").is_file():
            return _cifar(candidate, ".bin", _read_binary, _text_names(candidate / "batches.meta.txt"))
    if (folder / "train").is_dir():
        return _image_folders(folder)
    raise InputError(
        "The data folder must hold data_batch_1 (CIFAR-10 python), data_batch_1.bin (CIFAR-10 binary) "
        f"or a folder train (one folder of images per class), but none of them is in {folder}."
    )


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


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, numbers, strings and containers of them, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLE_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _load_pickle(path: Path) -> dict[bytes, Any]:
    def load(file: IO[bytes]) -> object:
        return _ArrayUnpickler(file, encoding="bytes").load()

    try:
        with path.open("rb") as file:
            content = load(file)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"A CIFAR-10 pickle may hold only numpy arrays and plain values, but {path} has: {error}."
        ) from error
    except (OSError, EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"A CIFAR-10 pickle must be readable, but {path} is not: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"A CIFAR-10 pickle must hold a dictionary, but {path} holds a {type(content).__name__}.")
    return {k.encode() if isinstance(k, str) else k: v for k, v in content.items()}


def _read_pickle(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    content = _load_pickle(path)
    data, labels = content.get(b"data"), content.get(b"labels")
    if not isinstance(data, np.ndarray) or labels is None:
        raise InputError(f"A CIFAR-10 batch must have the keys data and labels, but {path} has not.")
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _CIFAR_BYTES:
        raise InputError(
            f"A CIFAR-10 batch must be uint8 [N, {_CIFAR_BYTES}], but {path} has {data.dtype} {list(data.shape)}."
        )
    numbers = np.asarray(labels, dtype=np.int64)
    if numbers.shape != (len(data),):
        raise InputError(
            f"A CIFAR-10 batch must have one label per picture, but {path} has {numbers.size} for {len(data)}."
        )
    return data.reshape(-1, *_CIFAR_SHAPE), numbers


def _read_binary(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"A CIFAR-10 batch must be readable, but {path} is not: {error}.") from error
    record = 1 + _CIFAR_BYTES
    if content.size == 0 or content.size % record:
        raise InputError(
            f"A CIFAR-10 binary batch must be a whole number of {record}-byte records, "
            f"but {path} has {content.size} bytes."
        )
    table = content.reshape(-1, record)
    return table[:, 1:].reshape(-1, *_CIFAR_SHAPE), table[:, 0].astype(np.int64)


def _meta_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return _CIFAR_CLASSES
    names = _load_pickle(path).get(b"label_names", _CIFAR_CLASSES)
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _text_names(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().split()) if path.is_file() else _CIFAR_CLASSES


def _cifar(
    folder: Path,
    suffix: str,
    read: Callable[[Path], tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]],
    class_names: tuple[str, ...],
) -> Dataset:
    def split(stems: list[str]) -> Split:
        parts = []
        for stem in stems:
            path = folder / f"{stem}{suffix}"
            if not path.is_file():
                raise InputError(f"CIFAR-10 must have all its batches, but {path} is missing.")
            images, labels = read(path)
            wrong = labels[(labels < 0) | (labels >= len(class_names))]
            if wrong.size:
                raise InputError(f"A label must be from 0 to {len(class_names) - 1}, but {path} has {int(wrong[0])}.")
            parts.append((images, labels))
        images = np.ascontiguousarray(np.concatenate([part[0] for part in parts]))
        return Split(torch.from_numpy(images), torch.from_numpy(np.concatenate([part[1] for part in parts])))

    train = split([f"data_batch_{number}" for number in range(1, 6)])
    return Dataset(train, split(["test_batch"]), class_names, "cifar10")


def _image_folders(folder: Path) -> Dataset:
    names = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    if not names:
        raise InputError(f"An image folder must have one folder per class, but {folder / 'train'} has no folder.")
    held_out = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if held_out is None:
        raise InputError(f"An image folder must have a folder test or val, but {folder} has neither.")
    size: list[tuple[int, int]] = []
    return Dataset(_image_split(folder / "train", names, size), _image_split(held_out, names, size), names, folder.name)


def _image_split(folder: Path, names: tuple[str, ...], size: list[tuple[int, int]]) -> Split:
    images, labels = [], []
    for label, name in enumerate(names):
        files = folder / name
        if not files.is_dir():
            raise InputError(f"Every class must have a folder in each split, but {files} is missing.")
        for path in sorted(files.iterdir()):
            if path.suffix.lower() not in _IMAGE_SUFFIXES:
                continue
            picture = _read_image(path)
            size[:] = size or [picture.shape[1:]]
            if picture.shape[1:] != size[0]:
                raise InputError(
                    f"All pictures must have one size, {size[0][1]}x{size[0][0]} as the first, "
                    f"but {path} is {picture.shape[2]}x{picture.shape[1]}."
                )
            images.append(picture)
            labels.append(label)
    if not images:
        raise InputError(f"A split must have at least one picture, but {folder} has none.")
    return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64))


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"A picture must be readable, but {path} is not: {error}.") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
