"""The limits for files. Every reader checks its file against these before it spends memory or time on it.

The numbers are far above what real networks need, and low enough for any computer. `open_file` opens regular files
only, so a device, a pipe or a file of terabytes is refused at once; a link to a regular file counts as one.
"""

import errno
import json
import os
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

# bytes of a file
MODEL_BYTES = (1 << 31) - 1  # the limit of a protocol buffer
TEXT_BYTES = 1 << 20  # targets, plans, energy tables, configurations
MANIFEST_BYTES = 1 << 26
VECTOR_BYTES = 1 << 30  # a golden vector, packed and unpacked
ARRAY_BYTES = 1 << 34
PICTURE_BYTES = 1 << 28
BATCH_BYTES = 1 << 30  # a batch of CIFAR-10
CHECKPOINT_BYTES = 1 << 34
LOG_BYTES = 1 << 28
LIBRARY_BYTES = 1 << 28  # compiled code in the cache
CALIBRATION_BYTES = 1 << 33  # the codes that are held while rows are fitted to a model

# a model
NODES = 1 << 16
INITIALIZERS = 1 << 20
INPUTS = 1 << 12  # of a node
ATTRIBUTES = 1 << 8  # of a node
ENTRIES = 1 << 12  # of an attribute
ELEMENTS = (1 << 31) - 1  # of a tensor
RANK = 16
METADATA = 1 << 12
METADATA_BYTES = 1 << 24  # of an entry
NAME = 1 << 10  # characters
FIELDS = 1 << 18  # outermost ones of a file

# others
VECTOR_TENSORS = 1 << 16


def open_file(path: str | os.PathLike[str], most: int) -> BinaryIO:
    """Open a regular file of at most `most` bytes. Raises OSError, whose `strerror` says what is wrong."""
    _check(Path(path).stat(), most)  # before it is opened, because opening a device can have effects
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        _check(os.fstat(descriptor), most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(found: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, and at most {most:,} are read")


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes. Raises OSError as `open_file` does."""
    with open_file(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
    if len(data) > size:
        raise OSError(errno.EBUSY, "it grows while it is read")
    return data


def read_text(path: str | os.PathLike[str], most: int = TEXT_BYTES) -> str:
    """Return a file of UTF-8 text. Raises OSError as `open_file` does, and UnicodeDecodeError."""
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def toml_tree(text: str) -> dict[str, Any]:
    """Return the content of TOML text. Raises ValueError, which says what is wrong."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_tree(text: str) -> Any:
    """Return the content of JSON text; a duplicate key is an error. Raises ValueError as `toml_tree` does."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} occurs twice")
        found[key] = value
    return found
