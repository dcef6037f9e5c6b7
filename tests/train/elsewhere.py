"""A device that is not the CPU, for machines without one: real tensors that say they lie on `PLACE`.

Every operation is computed on the CPU, but refused as a GPU would refuse it if its tensors lie in two places. The name
is that of a device that PyTorch's autograd knows without a driver.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

PLACE = torch.device("meta")
_TO = torch.ops.aten._to_copy.default
_COPY = torch.ops.aten.copy_.default


class Elsewhere(torch.Tensor):
    """A tensor on `PLACE`; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Elsewhere":
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=PLACE,
        )  # fmt: skip
        made.held = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _compute(func, args, kwargs or {})


def _compute(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    leaves, structure = tree_flatten((args, {key: value for key, value in kwargs.items() if key != "device"}))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    wrapped = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if wrapped and func is not _COPY and any(t.dim() and not isinstance(t, Elsewhere) for t in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but those of {func} are not.")
    target = kwargs.get("device")
    there = torch.device(target) == PLACE if target is not None else bool(wrapped)
    if func is _COPY:
        there = isinstance(args[0], Elsewhere)
    plain, named = tree_unflatten([leaf.held if isinstance(leaf, Elsewhere) else leaf for leaf in leaves], structure)
    result = func(*plain, **named)
    if not there:
        return result
    known = {id(tensor.held): tensor for tensor in wrapped}

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        # What an operation in place returns is its argument itself.
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return tree_map(wrap, result)


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[None]:
    """Make `PLACE` a device on which tensors can be made and to which they can be moved."""
    with _Mode():  # type: ignore[no-untyped-call]
        yield
