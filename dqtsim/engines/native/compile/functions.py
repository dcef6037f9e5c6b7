"""All native functions for one instruction set and rounding, as addresses."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ....spec.rules import Rounding
from ..emit.libraries import emit_library, libraries, library_of
from ..isa.base import AND, Isa
from . import cache
from .build import products


class Functions(Mapping[str, int]):
    """The addresses of all functions by name, from this process, the cache, or the compiler.

    Rarely used functions are in separate libraries, which are made when one of their functions is needed.
    """

    def __init__(self, isa: Isa, rounding: Rounding) -> None:
        self._isa, self._rounding = isa, rounding
        self._products = products(isa)

    def __getitem__(self, name: str) -> int:
        """Return the address of a function."""
        library = library_of(name)
        if library not in libraries(self._products):
            raise KeyError(name)
        return self._of(library)[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all functions."""
        for library in libraries(self._products):
            yield from self._of(library)

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(len(self._of(library)) for library in libraries(self._products))

    def _of(self, library: str) -> Mapping[str, int]:
        def emit(module: Any) -> None:
            yields = sys.platform != "win32"
            emit_library(module, self._isa, self._rounding, library, self._products, yields=yields)

        return cache.library(emit, self._isa, self._rounding.value, library)


def can_count(isa: Isa) -> bool:
    """Return whether an instruction set has kernels that count bits, and this CPU an instruction for it."""
    return AND in products(isa)
