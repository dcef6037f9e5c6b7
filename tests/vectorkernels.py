"""The native engine by each of the kernels that this CPU can run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from dqtsim.engines.native.compile.build import VARIABLE, choose
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.lower import tiles
from dqtsim.errors import InputError


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
def kernel(name: str, *, least_eighths: int = 0) -> Iterator[None]:
    """Let the engine jit use the kernel `name`; plans that have no engine yet get matrices for small layers too.

    least_eighths: of a matrix that taps fill; `tiles.LEAST_EIGHTHS` is what is there otherwise.
    """
    before, taps = os.environ.get(VARIABLE), tiles.LEAST_EIGHTHS
    os.environ[VARIABLE], tiles.LEAST_EIGHTHS = name, least_eighths
    try:
        yield
    finally:
        tiles.LEAST_EIGHTHS = taps
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
