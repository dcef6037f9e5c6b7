"""Labelled pictures on disk, as uint8 codes: CIFAR-10 in its two official layouts, and folders of images.

A picture's bytes are its input codes, so nothing here touches a float. Errors are one sentence each (InputError).
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import InputError, reason
from ..graph.model import Graph
from .decode import PICTURE_SUFFIXES, Pictures, read_codes

Labels = npt.NDArray[np.int64]

# files that may lie beside pictures and are ignored, as hidden files are
_ASIDE = {"thumbs.db", "desktop.ini", "readme", "license"}
_ASIDE_SUFFIXES = (".txt", ".md", ".csv", ".json")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_BYTES = 3 * 32 * 32
# the names that a pickled batch of arrays and plain values may import, in NumPy's old and new spelling
_PICKLE_NAMES = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


@dataclass(frozen=True, eq=False)
class Split:
    """One split: `images` uint8 (N, C, H, W), `labels` int64 (N), and the names of the classes."""

    images: Pictures
    labels: Labels
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.labels)


def read_split(folder: Path, split: str, channels: int = 3) -> Split:
    """Return the 'train' or 'test' pictures of `folder`; those of images may be gray, with `channels` 1.

    Layouts: `cifar-10-batches-py` and `cifar-10-batches-bin` (or a folder that holds one of them), or folders `train`
    and `test` (or `val`) with one folder of images per class, all of one size. Anything else there is refused,
    except hidden files and folders, texts (.txt, .md, .csv, .json) and files of file managers. Raises InputError.
    """
    if not folder.is_dir():
        raise InputError(f"the data must be a folder, but there is no folder at {folder}.")
    for candidate in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if (candidate / "data_batch_1").is_file():
            return _cifar(candidate, "", split, _meta_names(candidate / "batches.meta"))
        if (candidate / "data_batch_1.bin").is_file():
            return _cifar(candidate, ".bin", split, _text_names(candidate / "batches.meta.txt"))
    if (folder / "train").is_dir():
        return _image_folder(folder, split, channels)
    raise InputError(
        "the data folder must hold data_batch_1 (CIFAR-10 python), data_batch_1.bin (CIFAR-10 binary) "
        f"or a folder train (one folder of images per class), but none of them is in {folder}."
    )


def read_labelled(graph: Graph, folder: Path, split: str = "test", limit: int | None = None) -> Split:
    """Return the first `limit` pictures of a split whose classes are those of `graph`. Raises InputError."""
    channels = graph.input.shape[1] if len(graph.input.shape) == 4 else 3
    found = read_split(folder, split, channels)
    if graph.class_names and graph.class_names != found.class_names:
        raise InputError(f"the classes of '{folder}' are {found.class_names}; the model's are {graph.class_names}.")
    return Split(found.images[:limit], found.labels[:limit], found.class_names, found.name)


def _cifar(folder: Path, suffix: str, split: str, class_names: tuple[str, ...]) -> Split:
    stems = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    images, labels = [], []
    for stem in stems:
        path = folder / f"{stem}{suffix}"
        if not path.is_file():
            raise InputError(f"CIFAR-10 must have all its batches, but {path} is missing.")
        pictures, numbers = _read_binary(path) if suffix else _read_pickle(path)
        wrong = numbers[(numbers < 0) | (numbers >= len(class_names))]
        if wrong.size:
            raise InputError(f"a label must be from 0 to {len(class_names) - 1}, but {path} has {int(wrong[0])}.")
        images.append(pictures)
        labels.append(numbers)
    return Split(np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels), class_names, "cifar10")


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, numbers, strings and containers of them, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, if a plain batch may need it."""
        if (module, name) not in _PICKLE_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _load_pickle(path: Path) -> dict[bytes, Any]:
    try:
        with limits.open_file(path, limits.BATCH_BYTES) as file:
            content: object = _ArrayUnpickler(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"a CIFAR-10 pickle may hold only numpy arrays and plain values, but {path} has: {error}."
        ) from None
    except OSError as error:
        raise InputError(f"a CIFAR-10 pickle must be readable, but {path} is not: {reason(error)}.") from None
    except (EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError, MemoryError) as error:
        raise InputError(f"a CIFAR-10 pickle must be readable, but {path} is not: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"a CIFAR-10 pickle must hold a dictionary, but {path} holds a {type(content).__name__}.")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


def _read_pickle(path: Path) -> tuple[Pictures, Labels]:
    content = _load_pickle(path)
    data, labels = content.get(b"data"), content.get(b"labels")
    if not isinstance(data, np.ndarray) or labels is None:
        raise InputError(f"a CIFAR-10 batch must have the keys data and labels, but {path} has not.")
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _CIFAR_BYTES:
        raise InputError(
            f"a CIFAR-10 batch must be uint8 [N, {_CIFAR_BYTES}], but {path} has {data.dtype} {list(data.shape)}."
        )
    try:
        numbers = np.asarray(labels, dtype=np.int64)
    except (TypeError, ValueError):
        raise InputError(f"the labels of a CIFAR-10 batch must be integers, but {path} has others.") from None
    if numbers.shape != (len(data),):
        raise InputError(
            f"a CIFAR-10 batch must have one label per picture, but {path} has {numbers.size} for {len(data)}."
        )
    return data.reshape(-1, *_CIFAR_SHAPE), numbers


def _read_binary(path: Path) -> tuple[Pictures, Labels]:
    try:
        with limits.open_file(path, limits.BATCH_BYTES) as file:
            content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"a CIFAR-10 batch must be readable, but {path} is not: {reason(error)}.") from None
    record = 1 + _CIFAR_BYTES
    if content.size == 0 or content.size % record:
        raise InputError(
            f"a CIFAR-10 binary batch must be a whole number of {record}-byte records, "
            f"but {path} has {content.size} bytes."
        )
    table = content.reshape(-1, record)
    return table[:, 1:].reshape(-1, *_CIFAR_SHAPE), table[:, 0].astype(np.int64)


def _meta_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return CIFAR_CLASSES
    names = _load_pickle(path).get(b"label_names", CIFAR_CLASSES)
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _text_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return CIFAR_CLASSES
    try:
        return tuple(limits.read_text(path).split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class names of CIFAR-10 must be readable, but {path} is not: {reason(error)}.") from None


def is_image_folder(folder: Path) -> bool:
    """Whether `folder` has the layout of image folders, and not one of CIFAR-10's."""
    return not is_cifar(folder) and (folder / "train").is_dir()


def is_cifar(folder: Path) -> bool:
    """Whether `folder` has one of the layouts of CIFAR-10."""
    homes = (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin")
    return any((home / name).is_file() for home in homes for name in ("data_batch_1", "data_batch_1.bin"))


def list_images(folder: Path, split: str) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """Return the files of a split of an image folder with their labels, by class and name, and the classes' names.

    Nothing is decoded. Raises InputError for a missing folder or a split without pictures.
    """
    names = tuple(_class_folders(folder / "train"))
    if not names:
        raise InputError(f"an image folder must have one folder per class, but {folder / 'train'} has no folder.")
    held_out = next((folder / choice for choice in ("test", "val") if (folder / choice).is_dir()), None)
    if held_out is None:
        raise InputError(f"an image folder must have a folder test or val, but {folder} has neither.")
    where = folder / "train" if split == "train" else held_out
    unknown = [name for name in _class_folders(where) if name not in names]
    if unknown:
        raise InputError(f"every class must have a folder in train, but {where / unknown[0]} has none there.")
    files = list(_image_files(where, names))
    if not files:
        raise InputError(f"a split must have at least one picture, but {where} has none.")
    return files, names


def _image_folder(folder: Path, split: str, channels: int) -> Split:
    files, names = list_images(folder, split)
    first = files[0] if split == "train" else next(_image_files(folder / "train", names), files[0])
    height, width = read_codes(first[0], channels).shape[1:]
    images, labels = [], []
    for path, label in files:
        picture = read_codes(path, channels)
        if picture.shape[1:] != (height, width):
            raise InputError(
                f"all pictures must have one size, {width}x{height} as the first, "
                f"but {path} is {picture.shape[2]}x{picture.shape[1]}."
            )
        images.append(picture)
        labels.append(label)
    return Split(np.stack(images), np.array(labels, np.int64), names, folder.name)


def _image_files(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(names):
        if not (folder / name).is_dir():
            raise InputError(f"every class must have a folder in each split, but {folder / name} is missing.")
        for path in _entries(folder / name):
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                raise InputError(f"a class folder must hold pictures ({', '.join(PICTURE_SUFFIXES)}), but has {path}.")
            yield path, label


def _class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in the folder of a split; refuse anything else that is not ignored."""
    entries = _entries(folder)
    for path in entries:
        if not path.is_dir():
            raise InputError(f"a split must hold one folder of pictures per class, but {folder} has {path.name}.")
    return [path.name for path in entries]


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder, by name, without the ignored ones."""
    return [path for path in sorted(folder.iterdir()) if not _lies_aside(path)]


def _lies_aside(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(".") or name in _ASIDE or (name.endswith(_ASIDE_SUFFIXES) and path.is_file())
