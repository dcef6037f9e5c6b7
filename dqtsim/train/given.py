"""What people hand to `prepare`, `calibrate` and `export`: taken if it can only mean one thing, else refused by name.

Pictures become batches uint8 [N, C, H, W]. What is refused is refused with its cure.
"""

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dqtsim.errors import InputError, ModelError
from dqtsim.train.rules import TOP_CODE

_TAKES = "prepare takes a torch.nn.Module with parameters of float32"
_BATCHES = "batches of pictures are a tensor, an array, a list or a DataLoader"
_BATCH = "a batch is a tensor or an array of pictures, or (pictures, labels)"


def network(model: object) -> nn.Module:
    """`model`, if `prepare` can read it. Raises ModelError with the cure otherwise."""
    kind = type(model).__name__
    if isinstance(model, Mapping):
        raise ModelError(f"{_TAKES}, not a {kind}; load a state_dict into its network with load_state_dict.")
    if isinstance(model, type):
        raise ModelError(f"{_TAKES}, not the class {model.__name__}; make a network of it first.")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{_TAKES}, not a {kind}.")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"{_TAKES}, not a {kind}; unwrap it with model.module.")
    if hasattr(model, "_orig_mod"):
        raise ModelError(f"{_TAKES}, not what torch.compile returns; give the network before torch.compile.")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"{_TAKES}, not a TorchScript module; give the Python network from which it was made.")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        _tensor(name, tensor)
    return model


def _tensor(name: str, tensor: torch.Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise ModelError(f"{_TAKES}, but '{name}' has no shape yet; run a picture through the network first.")
    # A subclass of tensors may keep its values elsewhere.
    if tensor.is_meta and type(tensor) in (torch.Tensor, nn.Parameter):
        raise ModelError(f"{_TAKES}, but '{name}' is on the device meta and has no values; load them first.")
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32):
        dtype = str(tensor.dtype).removeprefix("torch.")
        cure = "" if tensor.is_complex() else "; give float32, with model.float()"
        raise ModelError(f"{_TAKES}, but '{name}' is {dtype}{cure}.")


def path(given: str | PathLike[str]) -> Path:
    """The path of an output, also given as text."""
    if not isinstance(given, str | PathLike):
        raise InputError(f"an output is named by a path, but it is a {type(given).__name__}.")
    return Path(given)


def batches(given: object, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The batches uint8 [N, C, H, W] of pictures of `shape` (C, H, W).

    `given` is one tensor or array, or gives batches one by one, as a list or a DataLoader does; a batch is pictures, or
    a tuple or list of pictures and labels. Raises InputError for anything else.
    """
    if isinstance(given, torch.Tensor | np.ndarray):
        yield pictures(given, shape)
        return
    if not hasattr(given, "__iter__") and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        # a data set of torch
        given = [given[i] for i in range(len(given))]
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        raise InputError(f"{_BATCHES}, but not a {_kind(given)}.")
    for batch in given:
        yield pictures(_without_labels(batch), shape)


def _without_labels(batch: object) -> object:
    if isinstance(batch, tuple | list) and 1 <= len(batch) <= 2 and isinstance(batch[0], torch.Tensor | np.ndarray):
        return batch[0]
    return batch


def pictures(given: object, shape: tuple[int, ...]) -> torch.Tensor:
    """Pictures of `shape` (C, H, W) as uint8 [N, C, H, W]; a single one may lack N. Raises InputError."""
    if not isinstance(given, torch.Tensor | np.ndarray):
        raise InputError(f"{_BATCH}, but not a {_kind(given)}.")
    if isinstance(given, np.ndarray) and given.dtype.kind not in "biuf":
        raise InputError(f"pictures are uint8 codes, 0 to 255, but these are {given.dtype}.")
    found = torch.from_numpy(np.ascontiguousarray(given)) if isinstance(given, np.ndarray) else given
    if found.dtype != torch.uint8:
        raise InputError(f"pictures are uint8 codes, 0 to 255, but these are {_dtype(found)}{_cure(found)}.")
    if tuple(found.shape) == shape:
        found = found[None]
    if tuple(found.shape[1:]) != shape:
        wanted = ", ".join(map(str, shape))
        raise InputError(f"pictures must be [N, {wanted}], but these are {list(found.shape)}{_turned(found, shape)}.")
    return found


def _cure(found: torch.Tensor) -> str:
    if found.numel() and not found.is_complex():
        values = found.to(torch.float64)
        if torch.equal(values, values.round().clamp(0, TOP_CODE)):
            return "; give them with .to(torch.uint8)"
    if found.is_floating_point():
        return "; give the codes before they were scaled, and say in NestedConfig what they stand for"
    return ""


def _turned(found: torch.Tensor, shape: tuple[int, ...]) -> str:
    last = (*shape[1:], shape[0])
    if len(shape) != 3:
        return ""
    if tuple(found.shape[1:]) == last:
        return "; the channels are last, give pictures.permute(0, 3, 1, 2)"
    if tuple(found.shape) == last:
        return "; the channels are last, give picture.permute(2, 0, 1)"
    return ""


def _dtype(found: torch.Tensor) -> str:
    return str(found.dtype).removeprefix("torch.")


def _kind(given: Any) -> str:
    kind = type(given).__name__
    if isinstance(given, tuple | list):
        return f"{kind} of " + (", ".join(type(part).__name__ for part in given[:3]) or "nothing")
    return kind
