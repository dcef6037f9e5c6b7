"""Explicit padding: the layer or pool that reads it makes it, where it can."""

from dataclasses import dataclass
from typing import cast

from torch import fx

from dqtsim.train.reading.export import arguments
from dqtsim.train.reading.moves import moved
from dqtsim.train.reading.pixels import Pixels, pixels_of
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Pair, Sides

_NO_PADS = (0, 0, 0, 0)
_LOWEST = -3.0e38


@dataclass(frozen=True)
class Operand:
    """The tensor that a layer or pool reads, of three axes; the padding after that, and what a layer takes in."""

    name: str
    pads: Sides
    pixels: Pixels | None = None


def unpadded(reader: Reader, node: fx.Node, operand: fx.Node) -> Operand:
    """The operand of a layer, without padding by zeros and without an affine function of the picture."""
    inner, pads = _without(reader, operand, 0.0)
    pixels = pixels_of(reader, inner)
    if pixels is None or len(reader.shape(inner)) != len(reader.picture):
        return Operand(reader.planes(node, inner), pads)
    axes = reader.shape_of(pixels.source)
    name = pixels.source if len(axes) == 3 else reader.view(pixels.source, (axes[0], 1, axes[1]))
    return Operand(name, pads, pixels)


def unpadded_pool(reader: Reader, node: fx.Node, operand: fx.Node, *, maximum: Pair | None) -> Operand:
    """The operand of a pool: without padding by zeros, or by less than anything, for a maximum over so many taps."""
    inner, pads = _without(reader, operand, 0.0)
    if maximum and inner is not operand:
        # The maximum with a zero is that without it, if nothing is negative and no window is all padding.
        inside = all(pad < maximum[i % 2] and pad < 2 for i, pad in enumerate(pads))
        if not inside or not reader.positive((reader.source(node, inner),)):
            inner, pads = operand, _NO_PADS
    if maximum and inner is operand:
        inner, pads = _without(reader, operand, _LOWEST)
    return Operand(reader.planes(node, inner), pads)


def _without(reader: Reader, operand: fx.Node, value: float) -> tuple[fx.Node, Sides]:
    pads = _NO_PADS
    while operand in reader.padded:
        inner, outer, filled = reader.padded[operand]
        if filled != value and not (value == _LOWEST and filled <= _LOWEST):
            break
        operand, pads = inner, cast(Sides, tuple(a + b for a, b in zip(pads, outer, strict=True)))
    return operand, pads


def _pad(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    mode, value, sides = given.get("mode", "constant"), given.get("value") or 0.0, list(given["pad"])
    operand = given["self"]
    if mode == "constant" and value != 0 and value > _LOWEST and any(sides):
        raise reader.refuse(node, f"must pad with zeros, but pads with {value}")
    axes = len(reader.shape(node))
    sides += [0] * (2 * axes - len(sides))
    if mode != "constant" or min(sides) < 0 or any(sides[4:] if axes == 3 else sides[2:]):
        moved(reader, node)
        return
    # From the last axis on: (left, right, top, bottom).
    pads = (sides[2], sides[0], sides[3], sides[1]) if axes == 3 else (0, sides[0], 0, sides[1])

    def move() -> None:
        if value:
            raise reader.refuse(node, "pads with less than anything and must be read by a maximum alone")
        moved(reader, node)

    reader.padded[node] = (operand, pads, float(value))
    reader.lazy[node] = move


HANDLERS: dict[str, Handler] = {"pad": _pad, "constant_pad_nd": _pad}
