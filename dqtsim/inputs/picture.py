"""Pictures: a file becomes the uint8 codes of a batch, (N, C, H, W); pixels are codes, nothing is scaled."""

import os
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..graph.model import Array, Graph

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")


def read_input(path: str | os.PathLike[str], graph: Graph) -> Array:
    """Return the samples in the file `path` as codes for `graph`, uint8 (N, ...).

    A `.npy` file holds uint8 as (H, W, C), (C, H, W) or a batch of either, for a network without pictures (K) or
    (N, K). A picture file (needs Pillow) must have the network's size: nothing is resized, because no resampling is
    part of the law. Raises InputError.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise InputError(f"the input is a .npy or a picture file; '{path}' is no file.")
    if suffix == ".npy":
        return _arrange(_load_array(path), graph, path)
    if suffix in PICTURE_SUFFIXES:
        return _arrange(_load_picture(path), graph, path, channels_last=True)
    raise InputError(f"the input is a .npy or a picture file ({', '.join(PICTURE_SUFFIXES)}); found '{path}'.")


def _load_array(path: str | os.PathLike[str]) -> Array:
    try:
        with Path(path).open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError):
        raise InputError(f"the input '{path}' is not a .npy file of numbers.") from None
    if array.dtype != np.uint8:
        raise InputError(f"the input is uint8, 0 to 255; '{path}' holds {array.dtype}.")
    return array


def _load_picture(path: str | os.PathLike[str]) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError('picture files need Pillow; install it with pip install "dqtsim[picture]".') from None
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        raise InputError(f"the input '{path}' is not a picture that Pillow can read.") from None


def _arrange(array: Array, graph: Graph, path: str | os.PathLike[str], *, channels_last: bool = False) -> Array:
    wanted = graph.input.shape[1:]
    if len(wanted) == 3:
        channels, height, width = wanted
        layouts: list[tuple[int, ...]] = [(channels, height, width), (height, width, channels)]
    else:
        layouts = [wanted]
    if array.shape == layouts[0] == layouts[-1] and len(wanted) == 3 and array.size > 1 and not channels_last:
        raise InputError(f"'{path}' holds {array.shape}, which can be (C, H, W) or (H, W, C); give it as (1, C, H, W).")
    for position, layout in list(enumerate(layouts))[-1 if channels_last else 0 :]:
        if array.shape == layout or (array.ndim == len(layout) + 1 and array.shape[1:] == layout and len(array)):
            batch = array.reshape(-1, *layout)
            return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if position else batch)
    shapes = " or ".join(str(layout) for layout in reversed(layouts))
    raise InputError(
        f"model '{graph.name}' takes uint8 of shape {shapes}, or a batch of these; '{path}' holds {array.shape}."
    )
