"""A program that torch.export.save wrote (.pt2), as a network; nothing in the file is run to read it.

torch.export.load may run what a file says: it unpickles weights that ask for it, evaluates sizes as Python, and a graph
may call any function of torch. So the archive is looked at first. It may hold tensors as plain bytes, sizes as numbers
or names, and calls of ATen operators; anything else is refused.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dqtsim import limits
from dqtsim.errors import InputError, ModelError, cut, reason

_OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|eq|ge|le)")
_SIZE = re.compile(r"Symbol\('s\d+'(, (positive|integer|nonnegative)=True)*\)|\d+")
# What tensors and the graph lie in, below the archive's own folder.
_PLACES = re.compile(
    r"[^/]+/(data/(weights/weight_\d+|weights/\w+_config\.json|constants/tensor_\d+|constants/\w+_config\.json|"
    r"sample_inputs/\w+\.pt)|models/\w+\.json|archive_format|archive_version|byteorder|\.data/\w+)"
)


@dataclass(frozen=True)
class ProgramFile:
    """A program as a network; its modules have the names that they had. Pictures are of `shape` (C, H, W)."""

    path: Path
    network: nn.Module
    shape: tuple[int, ...]


def is_program(data: bytes) -> bool:
    """Whether a file begins as an archive of torch.export does."""
    return data.startswith(b"PK")


def read(path: Path) -> ProgramFile:
    """Read a program. Raises InputError or ModelError."""
    try:
        data = limits.read_bytes(path, limits.MODEL_BYTES)
    except OSError as error:
        raise InputError(f"the model file '{path}' cannot be read: {reason(error)}.") from None
    _look(path, data)
    try:
        # PyTorch's warnings are about its own workings.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(data))
            network = torch.export.unflatten(program).eval()
    except Exception as error:
        raise ModelError(f"'{path}' is no program that this PyTorch reads: {_first_line(error)}.") from None
    for module in network.modules():
        # Notes about sizes that are not known, which cannot be copied.
        graph = getattr(module, "graph", None)
        for node in graph.nodes if isinstance(graph, torch.fx.Graph) else ():
            node.meta = {}
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ModelError(f"a program must have one input, and '{path}' has {len(names)}.")
    value = next(node for node in program.graph.nodes if node.name == names[0]).meta["val"]
    shape = tuple(int(size) for size in value.shape[1:])
    try:
        with torch.no_grad():
            network(torch.zeros(2, *shape))
    except Exception:
        raise ModelError(
            f"a program must take any number of pictures; export '{path.name}' with "
            f"dynamic_shapes=({{0: torch.export.Dim('n')}},)."
        ) from None
    return ProgramFile(path, network, shape)


def _look(path: Path, data: bytes) -> None:
    """Raise ModelError if the archive holds anything but plain tensors and a graph of ATen operators."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > limits.MODEL_BYTES:
                raise ModelError(f"'{path}' unpacks to more than {limits.MODEL_BYTES:,} bytes.")
            for entry in entries:
                if not _PLACES.fullmatch(entry.filename):
                    raise _unsafe(path, f"'{cut(entry.filename)}'")
                if entry.filename.endswith(".json"):
                    for what in _unsafe_parts(json.loads(archive.read(entry))):
                        raise _unsafe(path, what)
                elif entry.filename.endswith(".pt"):
                    torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"'{path}' is no program of torch.export: {_first_line(error)}.") from None


def _unsafe(path: Path, what: str) -> ModelError:
    return ModelError(
        f"a program may hold plain tensors and calls of ATen operators only, because more could run code while it is "
        f"read, but '{path}' has {what}."
    )


def _unsafe_parts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if tree.get("use_pickle"):
            yield "a pickled tensor"
        if isinstance(tree.get("expr_str"), str) and not _SIZE.fullmatch(tree["expr_str"]):
            yield f"the size '{cut(tree['expr_str'])}'"
        if "inputs" in tree and isinstance(tree.get("target"), str) and not _OPERATOR.fullmatch(tree["target"]):
            yield f"a call of '{cut(tree['target'])}'"
        for value in tree.values():
            yield from _unsafe_parts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _unsafe_parts(value)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return cut(lines[0].rstrip(".")) if lines else type(error).__name__
