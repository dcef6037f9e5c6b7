"""NestedGemm and NestedLogits as native operations: convolutions of one pixel (A1-B4, B7)."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ....planner import Step
from ..emit.tile import CODES, LOGITS
from ..memory import Flat, Planes, Word
from ..proofs.variants import Variants, variants_of
from .centroid import Window
from .geometry import Dense, Part, Shape, Source
from .layer import NO_RESIDUAL, Layer, layer
from .nest import nest
from .state import Emit, Handler, Known, Lowering


def gemm(known: Known, step: Step) -> Emit | None:
    """Lower NestedGemm and NestedLogits: a convolution of one pixel."""
    place = known.places.get(step.node.operand("x"))
    if not isinstance(place, Flat) or step.call.machine.n > 8:
        return None
    variants = variants_of(step, known.operands(step))
    return None if variants is None else partial(_gemm, step=step, place=place, variants=variants)


def _gemm(state: Lowering, *, step: Step, place: Flat, variants: Variants) -> None:
    node = step.node
    logits = node.operator == "NestedLogits"
    outputs, taps = state.operand(step, "w").shape
    runs = np.full((1, -(-taps // 4) * 4), -1, np.int64)
    runs[0, :taps] = np.arange(taps)
    shape = Shape(np.zeros(1, np.int64), np.zeros(1, np.int64), runs, outputs, Dense(1, taps))
    # one pixel, whose channels are the taps
    input_ = Planes(place.start, taps, 1, 1)
    nested = nest(state, step, input_, variants, padded=False)
    target = Flat(state.room(-(-outputs // 16) * 16 * (4 if logits else 1)), step.call.type.dtype, step.call.type.shape)
    state.put(node.outputs[0], target)
    limits = {"low": 0, "high": 0} if logits else {"low": node.integer("low"), "high": node.integer("high")}
    words: dict[str, Word] = {"target": target.start, **limits, **NO_RESIDUAL}
    parts = [Part(shape, Source(place.start, nested), variants)]
    zero = np.zeros(1, np.int64)
    window = Window(input_, nested, (zero, zero), (zero, zero), 1)
    layer(state, Layer(step, LOGITS if logits else CODES, parts, variants, zero, words, window))


HANDLERS: Mapping[str, Handler] = {"NestedGemm": gemm, "NestedLogits": gemm}
