"""All native functions of one instruction set and rounding, compiled or from the cache."""

from collections.abc import Mapping
from typing import Any

from ..kernels.vector.isa import Isa
from ..spec.rules import Rounding
from .tiles import DEPTH_PIXELS, SHAPES, shapes_of

ROUNDINGS = {Rounding.TIES_UP: 0, Rounding.FLOOR: 1, Rounding.TIES_AWAY: 2, Rounding.TIES_EVEN: 3}


def emit_all(module: Any, isa: Isa, rounding: Rounding, pause: str | None) -> list[str]:
    """Add every function to `module`; return their names."""
    from ..kernels.vector import (
        add,
        average_pool,
        clear,
        control,
        conv,
        copy,
        max_pool,
        nest,
        picture,
        planes,
        schedule,
        table,
        tile,
    )

    code = ROUNDINGS[rounding]
    names = []
    for pixels, vectors in shapes_of(isa):
        names.append(tile.emit_tile(module, isa, code, pixels, vectors))
        if pixels == 1:
            names.append(tile.emit_tile(module, isa, code, pixels, vectors, tile.LOGITS))
    for vectors in SHAPES[isa.lanes]:
        names.append(tile.emit_tile(module, isa, code, DEPTH_PIXELS[isa.lanes], vectors, tile.DEPTH))
    names += [conv.emit_conv(module, isa), schedule.emit_run(module), schedule.emit_share(module, pause)]
    names.append(clear.emit_clear(module))
    names += [operation.emit(module, isa) for operation in (copy, max_pool, nest, picture, planes, table)]
    names += [operation.emit(module, isa, code) for operation in (add, average_pool)]
    if code in (tile.TIES_UP, tile.FLOOR):
        names.append(add.emit(module, isa, code, narrow=True))
    names += [control.emit_argmax(module, isa), control.emit_gather_rows(module, isa)]
    return names


__all__ = ["Mapping", "emit_all"]
