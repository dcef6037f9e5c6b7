"""No particular CPU: 32-bit products, which LLVM compiles for every architecture."""

from functools import partial
from typing import Any

from ..ir import Emitter, constant
from .base import Depthwise, Isa, Product
from .peak import of_vectors


def _fours(e: Emitter, lanes: Any, *, signed: bool) -> tuple[Any, ...]:
    """Return four vectors of int32, one per byte."""
    b, kind = e.builder, lanes.type
    shift = b.ashr if signed else b.lshr
    top = constant(kind, 24)
    return tuple(shift(b.shl(lanes, constant(kind, 24 - 8 * i)), top) for i in range(4))


def _four_products(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    for a, w in zip(pixels, weights, strict=True):
        accumulators = e.builder.add(accumulators, e.builder.mul(a, w))
    return accumulators


def _multiply_add(e: Emitter, accumulators: Any, factor: Any) -> Any:
    """A * f + f: every CPU has it, in an instruction or two."""
    return e.builder.add(e.builder.mul(accumulators, factor), factor)


PORTABLE = Isa(
    "portable",
    "32-bit products, four lanes, no particular CPU",
    lanes=4,
    registers=16,
    dot=Product(_four_products, partial(_fours, signed=True), partial(_fours, signed=False)),
    shapes={2: (4, 1), 1: (4, 1)},
    depthwise=Depthwise(4),
    peak=of_vectors("32-bit multiply and add of 4 lanes", 4, 4, _multiply_add),
)
