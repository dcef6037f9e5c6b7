"""The common parts of all layers that multiply and accumulate: tiles, weights, operations "conv" (B1-B4, B7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....graph.model import Array, Widths
from ....graph.rows import rows_of
from ....planner import Step
from ..emit import matrix
from ..emit.tile import DEPTH, LOGITS, QUADS, VARIANT
from ..memory import Constant, Flat, Spot, Word
from ..proofs import tables
from ..proofs.activations import activations_of
from ..proofs.variants import Variants, bias_register, can_overflow, clamps_products, has_halves, row_index
from .centroid import Window, centroid
from .geometry import Part, Tiling, tiling_of
from .matrices import words_of_matrices
from .nest import choose
from .overflow import narrow
from .packing import Packed, block_table, pack_weights
from .saturate_each import each
from .state import END, Lowering, spread
from .tiles import apart, grouping

# the least number of multiply-accumulates in a chunk
CHUNK_MACS = 1_000_000
MOST_CHUNKS = 16
NO_RESIDUAL: Mapping[str, Word] = {
    "residual": None,
    **dict.fromkeys(("own_multiplier", "other_multiplier", "addend", "add_shift", "add_low", "add_high"), 0),
}


@dataclass(frozen=True)
class Layer:
    """A layer whose geometry is known, in one or two parts for different widths.

    places, others: offsets int64 of the output pixels in the target, and in the other operand of an addition. words:
    the fields of its epilogue, which all its operations share. window: its taps in the input.
    """

    step: Step
    kind: str
    parts: Sequence[Part]
    variants: Variants
    places: Array
    words: Mapping[str, Word]
    window: Window
    others: Array | None = None

    @property
    def logits(self) -> bool:
        """Return whether its outputs are int32."""
        return self.kind == LOGITS

    @property
    def depthwise(self) -> bool:
        """Return whether each channel has its own taps."""
        return self.kind in (DEPTH, QUADS)

    @property
    def by_product(self) -> bool:
        """Return whether its register clamps after every product and can overflow."""
        return clamps_products(self.step)


def layer(state: Lowering, made: Layer) -> None:
    """Append the operations of a layer: "conv" for each of its parts, then those of its register."""
    step = made.step
    tiling = tiling_of(state.isa, made.parts[0].shape, made.kind)
    parts = tiling.filled(made.parts)
    sums = _room_for_sums(state, made, tiling)
    for part in parts:
        _part(state, made, tiling, part, sums)
    stride = 4 * tiling.channels
    if made.by_product:
        assert sums is not None
        shape, source = parts[0].shape, parts[0].source
        each(state, step, shape, source, made.variants, sums, stride, made.places, made.words, made.kind)
    elif can_overflow(step):
        assert sums is not None
        narrow(state, step, made.variants, sums, stride, made.places, made.words)
    if has_halves(step):
        assert sums is not None
        centroid(state, step, made.window, sums, stride, made.places, made.words)


def _room_for_sums(state: Lowering, made: Layer, tiling: Tiling) -> Spot | None:
    """Return the place of the exact sums of a layer, if they are needed."""
    pixels, name = len(made.places), made.step.node.name
    if not state.keep and not can_overflow(made.step) and not has_halves(made.step):
        return None
    sums = state.room(pixels * tiling.channels * 4, last=END if state.keep else 0)
    if state.keep:
        state.sums[name] = Flat(sums, "int32", (pixels, tiling.channels))
    return sums


def _part(state: Lowering, made: Layer, tiling: Tiling, part: Part, sums: Spot | None) -> None:
    """Append the operation "conv" of a part, and before it "panels" if chunks share panels."""
    step, node, memory = made.step, made.step.node, state.memory
    pixels, channels, tiles, blocks = len(made.places), tiling.channels, tiling.tiles, tiling.blocks

    def to_tiles(offsets: Array) -> Constant:
        return memory.add(offsets[tiling.order])

    packed = pack_weights(state, step, part, blocks, made.kind, tiling.matrices)
    weights_bytes = sum(next(iter(packed.values())).sizes)
    records = _records(state, made, tiling, part, packed)
    by_blocks = len(blocks) > tiles
    shares = len(blocks) if by_blocks else tiles if made.logits or apart(made.places, state.isa.lanes) else 1
    chunks = spread(pixels * weights_bytes, at_most=min(MOST_CHUNKS, shares), least=CHUNK_MACS)
    group = grouping(weights_bytes, len(blocks), tiles, matrices=tiling.matrices is not None)
    geometry = _taps(state, made, tiling, part, 0 if by_blocks else chunks * group)
    whole: dict[str, Word] = dict(
        **choose(state, step, part.variants),
        variants=memory.table(VARIANT, records),
        direct=part.source.direct,
        nested=part.source.nested,
        offsets=to_tiles(part.shape.offsets),
        tiles=tiles,
        pixels=tiling.pixels,
        block_count=len(blocks),
        run=next(iter(packed.values())).run,
        target_offsets=to_tiles(made.places),
        residual_offsets=None if made.others is None else to_tiles(made.others),
        sums=sums,
        sums_offsets=None if sums is None else to_tiles(np.arange(pixels, dtype=np.int64) * channels * 4),
        # for registers that clamp after each product, "each" takes the extremes
        flags=state.room(8) if made.by_product else state.flags[node.name].start,
        zero=0 if made.logits else state.scalar(step, "y_zero_point"),
        group=group,
        by_blocks=int(by_blocks),
        **geometry,
        **made.words,
    )
    if geometry["matrices"] == matrix.ALL_PANELS:
        state.add("panels", min(chunks, tiles), **whole)
    state.add("conv", chunks, **whole)
    # about as many codes are read as are written
    if weights_bytes < 2 * pixels * channels:
        state.alone = state.now


def _records(state: Lowering, made: Layer, tiling: Tiling, part: Part, packed: Mapping[int, Packed]) -> list[Word]:
    """Return the fields of the VARIANT records of a part."""
    activations = activations_of(made.step, state.operands(made.step))
    records: list[Word] = []
    for pair, variant in part.variants.items():
        own = packed[pair[0]]
        correction = own.begin - activations.zeta(pair[1]) * own.totals
        if isinstance(variant, int):
            parameters = tables.packed_logits(correction, variant, _bias(state, made, pair), tiling.blocks)
        else:
            parameters = tables.packed_parameters(correction, variant, tiling.blocks)
        code = activations.greatest(pair[1])
        table = block_table(state, tiling.blocks, own, code, depthwise=made.depthwise)
        records += [int(pair[1] == activations.n), own.address, state.memory.add(parameters), table]
    return records


def _bias(state: Lowering, made: Layer, pair: Widths) -> Array:
    """Return the biases of logits at a pair of widths."""
    rows = rows_of(made.step.node, state.operands(made.step))
    bias = state.operand(made.step, "bias")[row_index(rows, pair)]
    return bias_register(bias, made.step.call.machine.bias_width)


def _taps(state: Lowering, made: Layer, tiling: Tiling, part: Part, panels: int) -> dict[str, Word]:
    """Return the fields by which the kernels of a part find its taps."""
    found: dict[str, Word] = {
        **dict.fromkeys(matrix.WORDS, 0),
        "panel": None,
        "step_offsets": None,
        "segments": None,
        "segment_count": 0,
    }
    if tiling.matrices is not None:
        return found | words_of_matrices(state, part.shape, part.source, tiling, tiling.matrices.depth, panels)
    found["segments"] = state.memory.add(part.shape.segments)
    found["segment_count"] = len(part.shape.segments) // (4 if made.kind == QUADS else 1)
    return found
