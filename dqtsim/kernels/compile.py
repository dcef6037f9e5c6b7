"""How kernels are compiled: cached on disk, without the GIL (so that pictures run on threads), integers only."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile `function` on first use; integer arithmetic wraps silently, so callers prove their ranges first."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
