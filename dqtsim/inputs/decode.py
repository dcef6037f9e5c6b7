"""Picture files, single ones and those of data folders: one list of suffixes and one decoder, Pillow.

A picture becomes RGB with 8 bits a channel: grey is repeated, transparency is dropped, and of a file with several
pictures (.gif, .tif) the first is taken. Channels of more bits are refused: reducing them is no part of the law. A
network of one channel takes gray pictures, however they are stored; a colour is refused there for the same reason.
"""

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Pictures = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")


def open_picture(path: str | os.PathLike[str]) -> "Image.Image":
    """Return the decoded picture of a file, in RGB. Raises InputError naming a file that is not a whole picture."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError('picture files need Pillow; install it with pip install "dqtsim[picture]".') from None
    try:
        with limits.open_file(path, limits.PICTURE_BYTES) as file, Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"pictures have 8 bits a channel; '{path}' has more (Pillow's mode {image.mode}).")
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise InputError(f"the picture '{path}' cannot be read: it is of no format that Pillow knows.") from None
    # Pillow raises SyntaxError for a broken PNG, and ValueError for some other broken files
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or str(error)
        why = " ".join(said.split())[:200].rstrip(".")
        raise InputError(f"the picture '{path}' cannot be read: {why[:1].lower()}{why[1:]}.") from None


def as_codes(image: "Image.Image") -> Pictures:
    """Return an RGB picture as uint8 (3, H, W)."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def read_codes(path: str | os.PathLike[str], channels: int = 3) -> Pictures:
    """Return the picture of a file as uint8 (3, H, W), or (1, H, W) if `channels` is 1.

    Raises InputError for a file that is no picture, and for a picture that is not gray where one channel is wanted.
    """
    codes = as_codes(open_picture(path))
    return gray(codes, path) if channels == 1 else codes


def gray(codes: Pictures, path: str | os.PathLike[str]) -> Pictures:
    """Return a picture (3, H, W) whose channels are equal as (1, H, W). Raises InputError for colours."""
    if (codes != codes[:1]).any():
        raise InputError(f"a network of one channel takes gray pictures; '{path}' has colours.")
    return codes[:1]
