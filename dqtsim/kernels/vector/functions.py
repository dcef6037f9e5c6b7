"""All native functions for one instruction set and rounding, as addresses."""

import sys
from collections.abc import Mapping
from itertools import product
from typing import Any

from ...spec.rules import Rounding
from .build import host
from .isa import AND, COUNTS, SMALL, Isa

ROUNDINGS = {Rounding.TIES_UP: 0, Rounding.FLOOR: 1, Rounding.TIES_AWAY: 2, Rounding.TIES_EVEN: 3}
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
# lanes of the vectors that depthwise blocks of dot products have, the widest first
QUAD_LANES = {16: (16, 8, 4), 8: (8, 4)}


def functions(isa: Isa, rounding: Rounding) -> Mapping[str, int]:
    """Return the addresses of all functions by name, from this process, the cache, or the compiler."""
    from . import cache

    return cache.library(lambda module: emit_all(module, isa, rounding), isa, rounding.value)


def shapes_of(isa: Isa) -> list[tuple[int, int]]:
    """Return every (pixels, vectors) that a layer may ask of vectors."""
    return sorted((size, count) for count in SHAPES[isa.lanes] for size in sizes_of(isa, count))


def sizes_of(isa: Isa, vectors: int) -> tuple[int, ...]:
    """Return the pixels that tiles of so many vectors may have: fewer sizes where matrices do most layers."""
    sizes = SHAPES[isa.lanes][vectors]
    return tuple(size for size in sizes if size != 5) if isa.matrices else sizes


def can_count(isa: Isa) -> bool:
    """Return whether an instruction set has kernels that count bits, and this CPU an instruction for it."""
    return AND in isa.dots and bool(host()[1].get(COUNTS))


def counting(isa: Isa, rounding: Rounding, product: str) -> Mapping[str, int]:
    """Return the addresses of the kernels that count bits by one dot product, AND or XOR, by name.

    They have a library of their own, because few networks need it.
    """
    from . import cache

    return cache.library(lambda module: emit_counting(module, isa, rounding, product), isa, rounding.value, product)


def emit_counting(module: Any, isa: Isa, rounding: Rounding, product: str) -> None:
    """Add the kernels of `counting` to `module`."""
    from . import codes

    for pixels, vectors in shapes_of(isa):
        codes.emit_tile(module, isa, ROUNDINGS[rounding], pixels, vectors, product=product)


def emit_all(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add every function to `module`."""
    from . import (
        add,
        average_pool,
        bits,
        clear,
        codes,
        control,
        conv,
        copy,
        each,
        matrix,
        max_pool,
        nest,
        picture,
        planes,
        schedule,
        table,
        tile,
    )
    from .narrow import emit as emit_narrow

    code = ROUNDINGS[rounding]
    if isa.matrices:
        matrix.emit_gather(module)
        conv.emit_panels(module)
        for vectors in SHAPES[isa.lanes]:
            for pixels in MATRIX_PIXELS:
                matrix.emit_tile(module, isa, code, pixels, vectors)
    for name, (pixels, vectors) in product(["", SMALL] if SMALL in isa.dots else [""], shapes_of(isa)):
        codes.emit_tile(module, isa, code, pixels, vectors, product=name)
        if pixels == 1:
            codes.emit_tile(module, isa, code, pixels, vectors, tile.LOGITS, product=name)
    pixels = DEPTH_PIXELS[isa.lanes]
    if isa.packs:
        for lanes in QUAD_LANES[isa.lanes]:
            codes.emit_tile(module, isa, code, pixels, tile.PACKED, tile.QUADS, lanes)
    else:
        for vectors in SHAPES[isa.lanes]:
            codes.emit_tile(module, isa, code, pixels, vectors, tile.DEPTH)
    conv.emit_conv(module, isa)
    if can_count(isa):
        bits.emit(module)
    for operation in (copy, max_pool, nest, picture, planes, table):
        operation.emit(module, isa)
    for rounded in (add, average_pool):
        rounded.emit(module, isa, code)
    for logits in (False, True):
        emit_narrow(module, isa, code, logits=logits)
    for kind in (each.PLAIN, each.LOGITS, each.DEPTH):
        each.emit(module, isa, code, kind)
    add.emit(module, isa, code, narrow=True)
    control.emit_argmax(module, isa)
    control.emit_gather_rows(module, isa)
    clear.emit_clear(module)
    schedule.emit_run(module)
    schedule.emit_many(module)
    schedule.emit_share(module, PAUSE if isa.needs else None, yields=sys.platform != "win32")


# what a waiting core is told; only the instruction sets of x86 have needs
PAUSE = "llvm.x86.sse2.pause"
