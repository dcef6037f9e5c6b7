"""Pictures: a file becomes the uint8 codes of a batch, (N, C, H, W); pixels are codes, nothing is scaled."""

import os
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .. import limits
from ..errors import InputError, cut, reason
from ..graph.model import Array, Graph
from .decode import PICTURE_SUFFIXES, read_codes

Shape = tuple[int, ...]


def read_input(path: str | os.PathLike[str], graph: Graph) -> Array:
    """Return the samples in the file `path` as codes for `graph`, uint8 (N, ...); see `read_samples`."""
    return read_samples(path, graph.input.shape[1:], graph.name)


def read_samples(path: str | os.PathLike[str], wanted: Shape, name: str) -> Array:
    """Return the samples in the file `path` as codes uint8 (N, *wanted) for the model called `name`.

    A `.npy` file holds uint8 as (H, W, C), (C, H, W) or a batch of either, for a network without pictures (K) or
    (N, K). A picture file (needs Pillow) must have the network's size, and be gray if the network has one channel:
    nothing is resized or mixed, because that is no part of the law. Raises InputError.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise InputError(f"the input is a .npy or a picture file; '{path}' is no file.")
    if suffix == ".npy":
        return _load_array(path, wanted, name)
    if suffix in PICTURE_SUFFIXES:
        pixels = read_codes(path, wanted[0] if len(wanted) == 3 else 3).transpose(1, 2, 0)
        return _arrange(pixels, *_layout(pixels.shape, wanted, name, path, channels_last=True))
    raise InputError(f"the input is a .npy or a picture file ({', '.join(PICTURE_SUFFIXES)}); found '{path}'.")


def _load_array(path: str | os.PathLike[str], wanted: Shape, name: str) -> Array:
    """Return the samples of a .npy file; its data are read only if its header fits the model."""
    try:
        with limits.open_file(path, limits.ARRAY_BYTES) as file:
            shape, fortran, dtype = _read_header(file)
            if dtype != np.uint8:
                raise InputError(f"the input is uint8, 0 to 255; '{path}' holds {cut(dtype)}.")
            layout = _layout(shape, wanted, name, path)
            array = np.fromfile(file, np.uint8, prod(shape))
            if array.size < prod(shape):
                raise EOFError
            if file.seek(0, os.SEEK_CUR) < file.seek(0, os.SEEK_END):
                raise InputError(f"the input is one .npy array; '{path}' goes on after it.")
            return _arrange(array.reshape(shape, order="F" if fortran else "C"), *layout)
    except MemoryError:
        raise InputError(f"the input '{path}' does not fit into memory.") from None
    except OSError as error:
        raise InputError(f"the input '{path}' cannot be read: {reason(error)}.") from None
    except (ValueError, EOFError):
        raise InputError(f"the input '{path}' is not a .npy file of numbers.") from None


def _read_header(file: BinaryIO) -> "tuple[Shape, bool, np.dtype[np.generic]]":
    """Return shape, Fortran order and dtype of a .npy file. Raises ValueError, for object arrays too."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version}")
    if dtype.hasobject:
        raise ValueError("objects")
    return shape, fortran, dtype


def _layout(
    shape: Shape, wanted: Shape, name: str, path: str | os.PathLike[str], *, channels_last: bool = False
) -> tuple[Shape, bool]:
    """Return the stored shape of one sample, and whether its channels come last. Raises InputError."""
    if len(wanted) == 3:
        channels, height, width = wanted
        layouts: list[Shape] = [(channels, height, width), (height, width, channels)]
    else:
        layouts = [wanted]
    if shape == layouts[0] == layouts[-1] and len(wanted) == 3 and prod(shape) > 1 and not channels_last:
        raise InputError(f"'{path}' holds {shape}, which can be (C, H, W) or (H, W, C); give it as (1, C, H, W).")
    for position, layout in list(enumerate(layouts))[-1 if channels_last else 0 :]:
        if shape == layout or (len(shape) == len(layout) + 1 and shape[1:] == layout and shape[0]):
            return layout, bool(position)
    shapes = " or ".join(str(layout) for layout in reversed(layouts))
    raise InputError(f"model '{name}' takes uint8 of shape {shapes}, or a batch of these; '{path}' holds {cut(shape)}.")


def _arrange(array: Array, layout: Shape, channels_last: bool) -> Array:
    batch = array.reshape(-1, *layout)
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if channels_last else batch)
