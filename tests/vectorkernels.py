"""The native engine by each of the kernels that this CPU can run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from dqtsim.errors import InputError
from dqtsim.kernels.vector.build import VARIABLE, choose
from dqtsim.kernels.vector.isa import ISAS


@cache
def kernels() -> tuple[str, ...]:
    """Return the names of all kernels that can run here, the best first."""
    found = []
    for isa in ISAS:
        try:
            choose({VARIABLE: isa.name})
        except InputError:
            continue
        found.append(isa.name)
    return tuple(found)


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Let the engine jit use the kernel `name`."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
