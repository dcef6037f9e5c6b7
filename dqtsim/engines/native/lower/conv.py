"""NestedConv as native operations (A1-B5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ....graph.model import Array
from ....planner import Step
from ..emit.tile import CODES, DEPTH, QUADS
from ..memory import Planes, Word
from ..proofs.variants import Variants, can_overflow, has_halves, variants_of
from .centroid import Window
from .geometry import Dense, Part, Shape, Source, taps_of
from .layer import NO_RESIDUAL, Layer, layer
from .nest import nest
from .one_bit import ONE, bits, bits_row, counts_bits, pixel_bytes, taps_of_bits
from .residual import Residual, residual_of
from .state import Emit, Handler, Known, Lowering


@dataclass(frozen=True)
class Convolution:
    """A convolution that has a native form: its input, its variants; counted: it counts bits at widths (1, 1)."""

    step: Step
    place: Planes
    variants: Variants
    kind: str
    counted: bool
    residual: Residual | None

    @property
    def grid(self) -> tuple[Array, Array]:
        """Return (y, x) int64 of the output pixels."""
        _, _, rows, columns = self.step.call.type.shape
        y, x = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
        return y, x


def conv(known: Known, step: Step) -> Emit | None:
    """Lower NestedConv; a NestedAdd that is its only reader may be fused."""
    place = known.planes(step.node.operand("x"))
    if place is None or step.call.machine.n > 8:
        return None
    variants = variants_of(step, known.operands(step))
    if variants is None:
        return None
    group, outputs = step.node.integer("group"), step.call.type.shape[1]
    depth = group == place.channels == outputs and group > 4
    kind = (QUADS if known.isa.depthwise.quads else DEPTH) if depth else CODES
    # codes whose sums may still change must not be added yet
    residual = None if can_overflow(step) or has_halves(step) else residual_of(known, step)
    found = Convolution(step, place, variants, kind, counts_bits(known, step, place), residual)
    return partial(_conv, found=found)


def _conv(state: Lowering, *, found: Convolution) -> None:
    node, residual = found.step.node, found.residual
    parts = _parts(state, found)
    window = _window(state, found, parts[0].source)
    target = state.new_planes(residual.output if residual else node.outputs[0])
    y, x = found.grid
    words: dict[str, Word] = {"target": target.origin, "low": node.integer("low"), "high": node.integer("high")}
    words |= residual.words() if residual else NO_RESIDUAL
    others = residual.offsets(y, x) if residual else None
    places = y * target.row + x * target.step
    layer(state, Layer(found.step, found.kind, parts, found.variants, places, words, window, others))
    if residual:
        state.fused.add(residual.output)


def _window(state: Lowering, found: Convolution, source: Source) -> Window:
    """Return the taps of a convolution by their pixels; `source` is its input in bytes."""
    node, place = found.step.node, found.place
    pads, stride, dilation = node.integers("pads"), node.pair("strides"), node.pair("dilations")
    rows, columns = state.operand(found.step, "w").shape[2:]
    y, x = found.grid
    ky, kx = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
    offsets = y * stride[0] - pads[0], x * stride[1] - pads[1]
    nested = None if source.nested is None else source.nested + -place.at(-pads[0], -pads[1])
    return Window(place, nested, offsets, (ky * dilation[0], kx * dilation[1]), node.integer("group"))


def _parts(state: Lowering, found: Convolution) -> list[Part]:
    """Append the operations that make a convolution's inputs; return its parts, by codes and by bits."""
    step, place, variants = found.step, found.place, found.variants
    node, kernel = step.node, state.operand(step, "w").shape[2:]
    pads, stride, dilation = node.integers("pads"), node.pair("strides"), node.pair("dilations")
    outputs, dense = step.call.type.shape[1], Dense(node.integer("group"), place.channels)
    y, x = found.grid
    parts: list[Part] = []
    plain = {pair: variant for pair, variant in variants.items() if not found.counted or pair != ONE}
    if plain:
        offsets = y * stride[0] * place.row + x * stride[1] * place.step
        shape = Shape(offsets, *taps_of(place, kernel, dilation, kind=found.kind), outputs, dense)
        nested = nest(state, step, place, plain, padded=any(pads))
        first = place.at(-pads[0], -pads[1])
        source = Source(place.start + first, None if nested is None else nested + first)
        parts.append(Part(shape, source, plain))
    if found.counted:
        ones = {ONE: variants[ONE]}
        of_bits = bits(state, step, place, ones)
        row, size = bits_row(place, pads), pixel_bytes(place.channels)
        taps = taps_of_bits(place, row, kernel, dilation)
        shape = Shape(y * stride[0] * row + x * stride[1] * size, *taps, outputs, dense)
        parts.append(Part(shape, Source(None, of_bits), ones, counted=True))
    return parts


HANDLERS: Mapping[str, Handler] = {"NestedConv": conv}
