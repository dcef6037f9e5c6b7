"""Pictures to calibrate with: a .npy file, CIFAR-10, or a folder of images of any size.

Images are cut to the shape of the network's pictures around their centre and scaled to it (bilinear), as evaluation of
networks usually does: of a square picture 7/8 of the side are used. That is no part of the law; the codes that come out
are the network's input, and every result begins with these.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from .dataset import is_cifar, read_split
from .decode import PICTURE_SUFFIXES, Pictures, as_codes, gray, open_picture
from .picture import Shape, read_samples

_SHARE = 7 / 8


def read_pictures(
    path: Path, shape: Shape, name: str, count: int, done: Callable[[], None] = lambda: None
) -> tuple[Pictures, Pictures]:
    """Return `count` pictures to calibrate with and up to `count` others to measure with, both uint8 (N, *shape).

    They are taken evenly from what `path` holds, because files are often sorted by class. With at most `count` there,
    all are for calibration and none is left. `done` is called for every image. Raises InputError.
    """
    if path.is_dir() and not is_cifar(path):
        files = _files(path, shape)
        first, second = _chosen(len(files), count)
        return tuple(_decoded([files[i] for i in part], shape, done) for part in (first, second))  # type: ignore[return-value]
    held = read_split(path, "train").images if path.is_dir() else read_samples(path, shape, name)
    if held.shape[1:] != shape:
        raise InputError(f"model '{name}' takes pictures of {shape}; those of '{path}' are {held.shape[1:]}.")
    first, second = _chosen(len(held), count)
    return held[first], held[second]


def _chosen(available: int, count: int) -> tuple[list[int], list[int]]:
    """Return indices evenly from all, every other one for the second list."""
    if available <= count:
        return list(range(available)), []
    taken = min(available, 2 * count)
    places = [i * available // taken for i in range(taken)]
    first = [places[i * taken // count] for i in range(count)]
    chosen = set(first)
    return first, [place for place in places if place not in chosen]


def _files(folder: Path, shape: Shape) -> list[Path]:
    """Return the images below `folder`, or below its folder train if there is one, by name."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"images have 1 or 3 channels, and the network takes {shape}; give a .npy file.")
    home = folder / "train" if (folder / "train").is_dir() else folder
    found = sorted(entry for entry in home.rglob("*") if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file())
    if not found:
        raise InputError(f"the folder of pictures must hold some ({', '.join(PICTURE_SUFFIXES)}); {home} has none.")
    return found


def _decoded(files: list[Path], shape: Shape, done: Callable[[], None]) -> Pictures:
    found = np.empty((len(files), *shape), np.uint8)
    for position, path in enumerate(files):
        found[position] = _scaled(path, shape)
        done()
    return found


def _scaled(path: Path, shape: Shape) -> Pictures:
    from PIL import Image

    channels, rows, columns = shape
    image = open_picture(path)
    if image.size != (columns, rows):
        box = central_box(*image.size, rows, columns)
        image = image.resize((columns, rows), Image.Resampling.BILINEAR, box)
    codes = as_codes(image)
    return gray(codes, path) if channels == 1 else codes


def central_box(width: int, height: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return left, upper, right and lower edge of the part of a picture that becomes `rows` by `columns`."""
    scale = _SHARE * min(width / columns, height / rows)
    across, down = max(1, round(columns * scale)), max(1, round(rows * scale))
    left, upper = (width - across) // 2, (height - down) // 2
    return left, upper, left + across, upper + down
