"""All native functions for one instruction set and rounding: their libraries and their LLVM IR."""

from collections.abc import Collection
from typing import Any

from ....spec.rules import Rounding
from ..isa.base import AND, PACKED, SMALL, XOR, Isa

# libraries; besides these, every dot product with a name has one
MAIN, DEPTHWISE, REGISTERS = "main", "depthwise", "registers"
MOVES, WINDOWS, CENTROIDS = "moves", "windows", "centroids"
# by what the names of their functions begin with
_LIBRARIES = {
    "quads_": DEPTHWISE,
    "depth_": DEPTHWISE,
    "narrow": REGISTERS,
    "each": REGISTERS,
    "move": MOVES,
    "window_nest": WINDOWS,
    "centroid": CENTROIDS,
    "columns": CENTROIDS,
    **{product: product for product in (SMALL, AND, XOR)},
}


def libraries(products: Collection[str]) -> tuple[str, ...]:
    """Return the libraries of an instruction set; `products` are those of its named dot products that the CPU has."""
    return (MAIN, DEPTHWISE, REGISTERS, MOVES, WINDOWS, CENTROIDS, *products)


def library_of(name: str) -> str:
    """Return in which library a function of this name would be."""
    return next((library for start, library in _LIBRARIES.items() if name.startswith(start)), MAIN)


def shapes_of(isa: Isa) -> list[tuple[int, int]]:
    """Return every (pixels, vectors) that a layer may ask of vectors."""
    return sorted((size, count) for count, sizes in isa.shapes.items() for size in sizes)


def emit_library(
    module: Any, isa: Isa, rounding: Rounding, library: str, products: Collection[str], *, yields: bool
) -> None:
    """Add the functions of a library to `module`.

    products: see `libraries`. yields: whether the C library has sched_yield.
    """
    from . import centroid, move, window_nest

    if library == MAIN:
        _emit_tiles(module, isa, rounding)
        _emit_rest(module, isa, rounding, counts=AND in products, yields=yields)
    elif library == DEPTHWISE:
        _emit_depthwise(module, isa, rounding)
    elif library == REGISTERS:
        _emit_registers(module, isa, rounding)
    elif library == MOVES:
        move.emit(module, isa)
    elif library == WINDOWS:
        window_nest.emit(module, isa)
    elif library == CENTROIDS:
        centroid.emit_columns(module, isa)
        for logits in (False, True):
            centroid.emit(module, isa, rounding, logits=logits)
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
    if isa.matrices is not None and not product:
        matrix.emit_gather(module, isa.matrices)
        for vectors in isa.shapes:
            matrix.emit_out(module, isa, rounding, vectors)
            for pixels in isa.matrices.pixels:
                matrix.emit_tile(module, isa, pixels, vectors)


def _emit_depthwise(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add the kernels of layers whose channels each have taps of their own."""
    from . import epilogue, tile

    pixels = isa.depthwise.pixels
    for quads in isa.depthwise.quads:
        epilogue.emit_tile(module, isa, rounding, pixels, PACKED, tile.QUADS, quads.lanes)
    if not isa.depthwise.quads:
        for vectors in isa.shapes:
            epilogue.emit_tile(module, isa, rounding, pixels, vectors, tile.DEPTH)


def _emit_registers(module: Any, isa: Isa, rounding: Rounding) -> None:
    """Add the operations of accumulators that a sum can leave."""
    from . import saturate_each
    from .overflow import emit

    for logits in (False, True):
        emit(module, isa, rounding, logits=logits)
    for kind in (saturate_each.PLAIN, saturate_each.LOGITS, saturate_each.DEPTH):
        saturate_each.emit(module, isa, rounding, kind)


def _emit_rest(module: Any, isa: Isa, rounding: Rounding, *, counts: bool, yields: bool) -> None:
    """Add all other operations, and the functions that run a program."""
    from . import (
        add,
        average_pool,
        clear,
        conv,
        copy,
        decision,
        max_pool,
        multiply,
        nest,
        one_bit,
        picture,
        planes,
        schedule,
        table,
        table_channels,
    )

    conv.emit_conv(module, isa)
    if isa.matrices is not None:
        conv.emit_panels(module, isa.matrices)
    if counts:
        one_bit.emit(module)
    for operation in (copy, max_pool, nest, picture, planes, table, table_channels):
        operation.emit(module, isa)
    for rounded in (add, average_pool, multiply):
        rounded.emit(module, isa, rounding)
    add.emit(module, isa, rounding, narrow=True)
    decision.emit_argmax(module, isa)
    decision.emit_gather_rows(module, isa)
    clear.emit_clear(module)
    schedule.emit_run(module)
    schedule.emit_many(module)
    schedule.emit_share(module, isa.pause, yields=yields)
