"""IN: a model file of any known format, recognized by its content, becomes a Graph.

A format is one module with `detect` and `load`, and one line in FRONTENDS. A module may also have `products`, for files
that it cannot load but `count-ops` can count.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from .. import limits
from ..errors import ModelError, reason
from ..graph.model import Graph
from .products import Products

# name of a format in error sentences: its module, imported when a file is examined
FRONTENDS = {"ONNX": "dqtsim.frontends.onnx"}
# other files that users try: the position of the bytes, the bytes, the name of such a file
_STRANGERS = (
    (4, b"TFL3", "a TensorFlow Lite file"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch, Keras and NumPy write"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x80", "a Python pickle, as PyTorch wrote"),
    (0, b"\x1f\x8b", "a gzip archive"),
)


class Frontend(Protocol):
    """One format."""

    def detect(self, data: bytes) -> bool:
        """Return whether a file with these bytes is of this format, without parsing all of it."""

    def load(self, data: bytes, path: str) -> Graph:
        """Return the checked graph of such a file; `path` is for error sentences. Raises ModelError."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that was read, and the frontend of its format."""

    path: str
    data: bytes
    frontend: Frontend

    def load(self) -> Graph:
        """Return the graph, checked. Raises ModelError with one sentence for anything wrong."""
        return self.frontend.load(self.data, self.path)

    def products(self) -> Products | None:
        """Return what the file multiplies, if it can only be counted; None if `load` takes it.

        Raises ModelError for a file that cannot be counted either.
        """
        find = getattr(self.frontend, "products", None)
        return None if find is None else cast(Products | None, find(self.data, self.path))


def load(path: str | os.PathLike[str]) -> Graph:
    """Return the graph in the model file at `path`, of any known format. Raises ModelError."""
    return open_model(path).load()


def open_model(path: str | os.PathLike[str]) -> ModelFile:
    """Return the model file at `path` with the frontend of its format. Raises ModelError if no frontend knows it."""
    try:
        data = limits.read_bytes(path, limits.MODEL_BYTES)
    except OSError as error:
        raise ModelError(f"the model file '{path}' cannot be read: {reason(error)}.") from None
    for name in FRONTENDS.values():
        frontend = cast(Frontend, import_module(name))
        if frontend.detect(data):
            return ModelFile(str(path), data, frontend)
    known = ", ".join(FRONTENDS)
    raise ModelError(f"a model file is of a format that dqtsim reads ({known}); '{path}' is {_stranger(data)}.")


def _stranger(data: bytes) -> str:
    """Return what a file of no known format seems to be."""
    if not data:
        return "empty"
    for start, mark, what in _STRANGERS:
        if data.startswith(mark, start):
            return what
    head = data[:1024]
    if head.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return "text"
    return f"none, or is damaged: it begins with the bytes {data[:8].hex(' ')}"
