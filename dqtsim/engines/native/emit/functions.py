"""All native functions for one instruction set and rounding, as addresses."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ....spec.rules import Rounding
from ..compile.build import host
from ..isa.base import AND, COUNTS, SMALL, XOR, Isa

# sums that a tile may keep in registers: pixels by vectors of channels, for each number of lanes
SHAPES: Mapping[int, Mapping[int, tuple[int, ...]]] = {
    16: {4: (6, 5, 1), 3: (8, 6, 5, 1), 2: (8, 6, 5, 1), 1: (8, 6, 5, 1)},
    8: {2: (6, 5, 4, 1), 1: (6, 5, 4, 1)},
    4: {2: (4, 1), 1: (4, 1)},
}
# pixels of a depthwise tile
DEPTH_PIXELS = {16: 4, 8: 2, 4: 4}
# pixels of a tile of matrices
MATRIX_PIXELS = (32, 16)
# libraries; besides these, every dot product with a name has one
MAIN, DEPTHWISE, REGISTERS = "main", "depthwise", "registers"
# by what the names of their functions begin with
_LIBRARIES = {
    "quads_": DEPTHWISE,
    "depth_": DEPTHWISE,
    "narrow": REGISTERS,
    "each": REGISTERS,
    **{product: product for product in (SMALL, AND, XOR)},
}
# lanes of the vectors that depthwise blocks of dot products have, the widest first
QUAD_LANES = {16: (16, 8, 4), 8: (8, 4)}


class Functions(Mapping[str, int]):
    """The addresses of all functions by name, from this process, the cache, or the compiler.

    What few networks need has libraries of its own, which are made when one of their functions is asked for.
    """

    def __init__(self, isa: Isa, rounding: Rounding) -> None:
        self._isa, self._rounding = isa, rounding

    def __getitem__(self, name: str) -> int:
        """Return the address of a function."""
        library = library_of(name)
        if library not in libraries(self._isa):
            raise KeyError(name)
        return self._of(library)[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all functions."""
        for library in libraries(self._isa):
            yield from self._of(library)

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(len(self._of(library)) for library in libraries(self._isa))

    def _of(self, library: str) -> Mapping[str, int]:
        from ..compile import cache

        def emit(module: Any) -> None:
            emit_library(module, self._isa, self._rounding, library)

        return cache.library(emit, self._isa, self._rounding.value, library)


def libraries(isa: Isa) -> tuple[str, ...]:
    """Return the libraries that an instruction set has on this CPU."""
    products = [name for name in isa.dots if name == SMALL or can_count(isa)]
    return (MAIN, DEPTHWISE, REGISTERS, *products)


def library_of(name: str) -> str:
    """Return in which library a function of this name would be."""
    return next((library for start, library in _LIBRARIES.items() if name.startswith(start)), MAIN)


def shapes_of(isa: Isa) -> list[tuple[int, int]]:
    """Return every (pixels, vectors) that a layer may ask of vectors."""
    return sorted((size, count) for count in SHAPES[isa.lanes] for size in sizes_of(isa, count))


def sizes_of(isa: Isa, vectors: int) -> tuple[int, ...]:
    """Return the pixels that tiles of so many vectors may have: one size and 1 where matrices do most layers."""
    return (6, 1) if isa.matrices else SHAPES[isa.lanes][vectors]


def can_count(isa: Isa) -> bool:
    """Return whether an instruction set has kernels that count bits, and this CPU an instruction for it."""
    return AND in isa.dots and bool(host()[1].get(COUNTS))


def emit_library(module: Any, isa: Isa, rounding: Rounding, library: str) -> None:
    """Add the functions of a library to `module`."""
    if library == MAIN:
        _emit_tiles(module, isa, rounding)
        _emit_rest(module, isa, rounding)
    elif library == DEPTHWISE:
        _emit_depthwise(module, isa, rounding)
    elif library == REGISTERS:
        _emit_registers(module, isa, rounding)
    elif library in isa.dots:
        _emit_tiles(module, isa, rounding, library)
    else:
        raise ValueError(f"'{library}' is no library of {isa.name}")


def _emit_tiles(module: Any, isa: Isa, rounding: Rounding, product: str = "") -> None:
    """Add the kernels that multiply by one of the instruction set's dot products, and with the usual one matrices."""
    from . import epilogue, matrix, tile

    for pixels, vectors in shapes_of(isa):
        epilogue.emit_tile(module, isa, rounding, pixels, vectors, product=product)
        if pixels == 1 and product not in (AND, XOR):
            epilogue.emit_tile(module, isa, rounding, pixels, vectors, tile.LOGITS, product=product)
    if isa.matrices and not product:
        matrix.emit_gather(module)
        for vectors in SHAPES[isa.lanes]:
            matrix.emit_out(module, isa, rounding, vectors)
            for pixels in MATRIX_PIXELS:
                matrix.emit_tile(module, isa, pixels, vectors)


def _emit_depthwise(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add the kernels of layers whose channels each have taps of their own."""
    from . import epilogue, tile

    pixels = DEPTH_PIXELS[isa.lanes]
    if isa.packs:
        for lanes in QUAD_LANES[isa.lanes]:
            epilogue.emit_tile(module, isa, rounding, pixels, tile.PACKED, tile.QUADS, lanes)
    else:
        for vectors in SHAPES[isa.lanes]:
            epilogue.emit_tile(module, isa, rounding, pixels, vectors, tile.DEPTH)


def _emit_registers(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add the operations of accumulators that a sum can leave."""
    from . import saturate_each
    from .overflow import emit

    for logits in (False, True):
        emit(module, isa, rounding, logits=logits)
    for kind in (saturate_each.PLAIN, saturate_each.LOGITS, saturate_each.DEPTH):
        saturate_each.emit(module, isa, rounding, kind)


def _emit_rest(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add all other operations, and what runs them."""
    from . import (
        add,
        average_pool,
        clear,
        conv,
        copy,
        decision,
        max_pool,
        nest,
        one_bit,
        picture,
        planes,
        schedule,
        table,
    )

    conv.emit_conv(module, isa)
    if isa.matrices:
        conv.emit_panels(module)
    if can_count(isa):
        one_bit.emit(module)
    for operation in (copy, max_pool, nest, picture, planes, table):
        operation.emit(module, isa)
    for rounded in (add, average_pool):
        rounded.emit(module, isa, rounding)
    add.emit(module, isa, rounding, narrow=True)
    decision.emit_argmax(module, isa)
    decision.emit_gather_rows(module, isa)
    clear.emit_clear(module)
    schedule.emit_run(module)
    schedule.emit_many(module)
    schedule.emit_share(module, PAUSE if isa.needs else None, yields=sys.platform != "win32")


# what a waiting core is told; only the instruction sets of x86 have needs
PAUSE = "llvm.x86.sse2.pause"
