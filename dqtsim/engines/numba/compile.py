"""How kernels are compiled: cached on disk, without the GIL (so that pictures run on threads), integers only."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, assert_never, cast

import numba
from numba.extending import overload

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile `function` on first use; integer arithmetic wraps silently, so callers prove their ranges first."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@overload(assert_never)
def _assert_never(_number: Any) -> Callable[[Any], NoReturn]:
    """Give kernels `assert_never`: a choice whose number no branch handles stops the run."""

    def stop(_number: Any) -> NoReturn:
        raise AssertionError("a kernel was given a number that none of its branches knows")

    return stop
