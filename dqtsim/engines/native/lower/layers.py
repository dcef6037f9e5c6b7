"""Layers that multiply and accumulate, as native operations: NestedConv, NestedGemm, NestedLogits (A1-B4, B7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....graph.model import Array
from ....numbers import of_nesting
from ....planner import Step
from ..emit import matrix
from ..emit.nest import NEST
from ..emit.tile import CODES, CONV, DEPTH, LOGITS, QUADS
from ..memory import Address, Flat, Planes, Spot
from ..proofs import tables
from ..proofs.variants import Variants, can_overflow, choose, clamps_products, held, row_index, variants_of
from .one_bit import ONE, bits, bits_row, counts_bits, pixel_bytes, taps_of_bits
from .overflow import narrow
from .packing import block_table, pack_weights
from .residual import residual_of
from .saturate_each import each
from .state import Lowering, spread
from .tiles import DEPTH_BYTES, apart, by_matrices, distance, grouping, panel_row, tile_of, whole_tiles

# one chunk is worth at least so many multiply-accumulates
CHUNK_MACS = 1_000_000
MOST_CHUNKS = 16


@dataclass(frozen=True)
class Source:
    """Where a layer finds its taps: `first` tap of output (0, 0), in the tensor itself and in nested codes."""

    direct: Address
    nested: Address


@dataclass(frozen=True)
class Shape:
    """The geometry of a layer: pixels and taps.

    offsets: int64 per output pixel, of its first tap. segments, runs: see `taps_of`. dense: how operands
    (O, C / group, ...) become rows (O, taps).
    """

    offsets: Array
    segments: Array
    runs: Array
    outputs: int
    dense: "Dense"


@dataclass(frozen=True)
class Part:
    """A layer at those of its widths that `variants` has; `counted`: it counts bits instead of multiplying."""

    shape: Shape
    source: Source
    variants: Variants
    counted: bool = False


@dataclass(frozen=True)
class Dense:
    """How grouped weights become rows over all taps: zeros where a group does not look."""

    group: int
    channels: int

    def spread(self, operands: Array) -> Array:
        """Return int8 (O, C * taps) of operands (O, C / group, kernel...)."""
        outputs, per_group = operands.shape[0], operands.shape[1]
        if self.group == 1:
            return operands.reshape(outputs, -1)
        whole = np.zeros((outputs, self.channels, *operands.shape[2:]), np.int8)
        for o in range(outputs):
            first = o // (outputs // self.group) * per_group
            whole[o, first : first + per_group] = operands[o]
        return whole.reshape(outputs, -1)


def nest(state: Lowering, step: Step, place: Planes, variants: Variants, *, padded: bool) -> int | Spot:
    """Append the nesting of an input where widths that `variants` has need it; return the copy's first byte, or 0."""
    machine, node = step.call.machine, step.node
    narrow = any(b_a != machine.n for _, b_a in variants)
    target: int | Spot = Spot(state.buffer(place.size)) if narrow else 0
    if narrow or padded:
        top, left, bottom, right = place.border
        state.add(
            "nest",
            NEST,
            spread(place.height * place.width * place.channels, at_most=8, least=1 << 16),
            **choose(state, step, variants),
            n=machine.n,
            rule=of_nesting(machine.activation_rule),
            zero=int(state.out.constants[node.inputs[2]]),
            **place.words(),
            target=target,
            step=place.step,
            top=top,
            left=left,
            bottom=bottom,
            right=right,
            direct=1,
        )
    return target


def conv(state: Lowering, step: Step) -> bool:
    """Lower NestedConv; a NestedAdd that only takes its output goes with it."""
    node = step.node
    place = state.out.places.get(node.inputs[0])
    if not isinstance(place, Planes) or step.call.machine.n > 8:
        return False
    roles = {"zero": 3, "bias": 4, "multiplier": 5, "shift": 6}
    variants = variants_of(state, step, roles)
    if variants is None:
        return False
    weights = state.out.constants[node.inputs[1]]
    top, left, _, _ = node.integers("pads")
    _, outputs, rows, columns = step.call.type.shape
    stride, dilation = node.pair("strides"), node.pair("dilations")
    y, x = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
    offsets = y * stride[0] * place.row + x * stride[1] * place.step
    group = node.integer("group")
    depth = group == place.channels == outputs and group > 4
    kind = (QUADS if state.isa.packs else DEPTH) if depth else CODES
    segments, runs = taps_of(place, weights.shape[2:], dilation, kind=kind)
    shape = Shape(offsets, segments, runs, outputs, Dense(group, place.channels))
    parts: list[Part] = []
    counted = counts_bits(state, step, place)
    plain = {pair: variant for pair, variant in variants.items() if not counted or pair != ONE}
    if plain:
        nested = nest(state, step, place, plain, padded=any(node.integers("pads")))
        first = place.at(-top, -left)
        source = Source(place.start + first, nested + first if isinstance(nested, Spot) else 0)
        parts.append(Part(shape, source, plain))
    if counted:
        ones = {ONE: variants[ONE]}
        of_bits = bits(state, step, place, ones)
        row, size = bits_row(place, node.integers("pads")), pixel_bytes(place.channels)
        taps = taps_of_bits(place, row, weights.shape[2:], dilation)
        shape = Shape(y * stride[0] * row + x * stride[1] * size, *taps, outputs, Dense(group, place.channels))
        parts.append(Part(shape, Source(0, of_bits), ones, counted=True))
    # codes of sums that a register has yet to change are added to nothing
    residual = None if can_overflow(step) else residual_of(state, step)
    target = state.new_place(residual.output if residual else node.outputs[0])
    assert isinstance(target, Planes)
    places = y * target.row + x * target.step
    words: dict[str, Address] = {"target": target.origin, "low": node.integer("low"), "high": node.integer("high")}
    words |= residual.words(state) if residual else NO_RESIDUAL
    others = residual.offsets(y, x) if residual else None
    layer(state, step, parts, variants, places, words, others=others, kind=kind)
    if residual:
        state.out.fused.add(residual.output)
    return True


def taps_of(
    place: Planes, kernel: Sequence[int], dilation: tuple[int, int], *, kind: str = CODES
) -> tuple[Array, Array]:
    """Return (segments, runs): rows of taps are one run where pixels lie side by side without gaps between channels.

    Depthwise, there are no runs; each tap is a segment, or four taps are, the last one repeated.
    """
    rows, columns = kernel
    channels, step = place.channels, place.step
    taps = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    if kind in (DEPTH, QUADS):
        count = rows * columns
        number = np.arange(count if kind == DEPTH else -(-count // 4) * 4, dtype=np.int64)
        y, x = np.divmod(np.minimum(number, count - 1), columns)
        return y * (dilation[0] * place.row) + x * (dilation[1] * step), np.zeros((len(number), 0), np.int64)
    whole = dilation[1] == 1 and (channels % 16 == 0 or step == 4)
    run = columns * step if whole else -(-channels // 4) * 4
    segments, runs = [], []
    for ky in range(rows):
        for kx in [0] if whole else range(columns):
            segments.append(ky * dilation[0] * place.row + kx * dilation[1] * step)
            line = np.full(run, -1, np.int64)
            for tap in range(columns) if whole else [kx]:
                begin = tap * step if whole else 0
                line[begin : begin + channels] = taps[:, ky, tap]
            runs.append(line)
    return np.array(segments, np.int64), np.array(runs, np.int64)


NO_RESIDUAL = dict.fromkeys(
    (
        "residual",
        "own_multiplier",
        "other_multiplier",
        "addend",
        "add_shift",
        "add_low",
        "add_high",
    ),
    0,
)


def gemm(state: Lowering, step: Step) -> bool:
    """Lower NestedGemm and NestedLogits: a convolution of one pixel."""
    node, machine = step.node, step.call.machine
    place = state.out.places.get(node.inputs[0])
    logits = node.operator == "NestedLogits"
    if not isinstance(place, Flat) or machine.n > 8:
        return False
    roles = {"bias": 3} if logits else {"zero": 3, "bias": 4, "multiplier": 5, "shift": 6}
    variants = variants_of(state, step, roles)
    if variants is None:
        return False
    outputs, taps = state.out.constants[node.inputs[1]].shape
    run = -(-taps // 4) * 4
    runs = np.full((1, run), -1, np.int64)
    runs[0, :taps] = np.arange(taps)
    shape = Shape(np.zeros(1, np.int64), np.zeros(1, np.int64), runs, outputs, Dense(1, taps))
    # one pixel, whose channels are the taps
    nested = nest(state, step, Planes(place.start, taps, 1, 1), variants, padded=False)
    name = node.outputs[0]
    size = -(-outputs // 16) * 16 * (4 if logits else 1)
    target = Flat(Spot(state.buffer(size)), step.call.type.dtype, step.call.type.shape)
    state.out.places[name] = target
    limits = {"low": 0, "high": 0} if logits else {"low": node.integer("low"), "high": node.integer("high")}
    words: dict[str, Address] = {"target": target.start, **limits, **NO_RESIDUAL}
    layer(
        state,
        step,
        [Part(shape, Source(place.start, nested), variants)],
        variants,
        np.zeros(1, np.int64),
        words,
        kind=LOGITS if logits else CODES,
    )
    return True


def layer(
    state: Lowering,
    step: Step,
    parts: Sequence[Part],
    variants: Variants,
    places: Array,
    words: Mapping[str, Address],
    *,
    others: Array | None = None,
    kind: str = CODES,
) -> None:
    """Append the operations "conv" of a layer whose geometry is known, one for each of its parts.

    places, others: offsets int64 of the output pixels in the target, and in the other operand of an addition.
    """
    isa, machine, memory, node = state.isa, step.call.machine, state.out.memory, step.node
    shape = parts[0].shape
    pixels = len(shape.offsets)
    logits, depthwise = kind == LOGITS, kind in (DEPTH, QUADS)
    matrices = by_matrices(isa, pixels, shape.runs.size, kind)
    size, most = tile_of(isa, pixels, shape.outputs, kind=kind, matrices=matrices)
    order = whole_tiles(pixels, size, overlap=matrices)
    tiles = len(order)
    apart_by = distance(shape.offsets[order]) if matrices else 0
    if apart_by:
        parts = [
            replace(part, shape=replace(part.shape, runs=tables.padded(part.shape.runs, DEPTH_BYTES))) for part in parts
        ]
        shape = parts[0].shape
    blocks = tables.blocks_of(isa, kind, size, shape.outputs, most)
    channels = sum(len(block.order) for block in blocks)
    bias = None if not logits else state.out.constants[node.inputs[3]]
    z_x = int(state.out.constants[node.inputs[2]])

    def to_tiles(offsets: Array) -> int:
        return memory.add(offsets[order])

    by_product = clamps_products(step)
    sums: Address = 0
    if state.keep or can_overflow(step):
        sums = Spot(state.buffer(pixels * channels * 4))
    if state.keep:
        assert isinstance(sums, Spot)
        sums.buffer.last = 1 << 30
        state.out.sums[node.name] = Flat(sums, "int32", (pixels, channels))
    for part in parts:
        packed = pack_weights(state, step, part, blocks, kind, matrices=matrices)
        weights_bytes = sum(next(iter(packed.values())).sizes)
        records: list[int] = []
        for pair, variant in part.variants.items():
            own = packed[pair[0]]
            correction = own.begin - tables.zeta(z_x, pair[1], machine.n, machine.activation_rule) * own.totals
            if isinstance(variant, int):
                assert bias is not None
                line = held(bias[row_index(node.integers("row_widths"), pair)], machine.bias_width)
                parameters = tables.packed_logits(correction, variant, line, blocks)
            else:
                parameters = tables.packed_parameters(correction, variant, blocks)
            code = tables.greatest(z_x, pair[1], machine.n, machine.activation_rule)
            table = block_table(state, blocks, own, code, depthwise=depthwise)
            records += [int(pair[1] == machine.n), own.address, memory.add(parameters), table]
        macs = pixels * weights_bytes
        by_blocks = len(blocks) > tiles
        shares = len(blocks) if by_blocks else tiles if logits or apart(places, isa.lanes) else 1
        chunks = spread(macs, at_most=min(MOST_CHUNKS, shares), least=CHUNK_MACS)
        group = grouping(weights_bytes, len(blocks), tiles, matrices=matrices)
        geometry: dict[str, Address] = dict.fromkeys((*matrix.WORDS, "segments", "segment_count"), 0)
        if matrices:
            geometry |= matrices_of(state, part.shape, part.source, order, apart_by, 0 if by_blocks else chunks * group)
        else:
            geometry["segments"] = memory.add(part.shape.segments)
            geometry["segment_count"] = len(part.shape.segments) // (4 if kind == QUADS else 1)
        whole: dict[str, Address] = dict(
            variants=memory.add(np.array(records, np.int64)),
            direct=part.source.direct,
            nested=part.source.nested,
            offsets=to_tiles(part.shape.offsets),
            tiles=tiles,
            pixels=size,
            block_count=len(blocks),
            run=own.run,
            target_offsets=to_tiles(places),
            residual_offsets=0 if others is None else to_tiles(others),
            sums=sums,
            sums_offsets=to_tiles(np.arange(pixels, dtype=np.int64) * channels * 4) if sums else 0,
            # registers that clamp after each product have extremes of their own
            flags=Spot(state.buffer(8)) if by_product else state.flags_of(node.name).start,
            zero=0 if logits else int(state.out.constants[node.inputs[3]]),
            group=group,
            by_blocks=int(by_blocks),
            **choose(state, step, part.variants),
            **geometry,
            **words,
        )
        if geometry["matrices"] == matrix.ALL_PANELS:
            state.add("panels", CONV, min(chunks, tiles), **whole)
        state.add("conv", CONV, chunks, **whole)
        # about as many codes come in as go out
        if weights_bytes < 2 * pixels * channels:
            state.out.alone = state.now
    if by_product:
        each(state, step, shape, parts[0].source, variants, sums, 4 * channels, places, words, kind)
    elif can_overflow(step):
        narrow(state, step, variants, sums, 4 * channels, memory.add(places), places, words)


def matrices_of(
    state: Lowering, shape: Shape, source: Source, order: Array, apart_by: int, panels: int
) -> dict[str, Address]:
    """Return the words that say where matrices find their taps.

    order: pixels (tiles, size) of all tiles. apart_by: bytes from a pixel to the next, where it is the same for all, or
    0. panels: how many tiles are gathered at a time, 0 for all of them.
    """
    memory = state.out.memory
    taps = shape.runs.size
    starts = shape.segments[:, None] + np.arange(shape.runs.shape[1], dtype=np.int64)
    steps = -(-taps // DEPTH_BYTES)
    offsets = shape.offsets[order]
    if apart_by:
        places = starts.reshape(-1)[::DEPTH_BYTES]
        read = int(offsets.max() + places.max()) + DEPTH_BYTES
        for address in (source.direct, source.nested):
            if isinstance(address, Spot):
                address.buffer.size = max(address.buffer.size, address.offset + read)
        return {
            "matrices": matrix.DIRECT,
            "row_bytes": apart_by,
            "steps": steps,
            "step_offsets": memory.add(places),
        }
    row = panel_row(taps)
    copies = [
        (segment + at, number * shape.runs.shape[1] + at)
        for number, segment in enumerate(shape.segments.tolist())
        for at in range(0, shape.runs.shape[1], DEPTH_BYTES)
    ]
    return {
        "matrices": matrix.PANELS if panels else matrix.ALL_PANELS,
        "panel": Spot(state.buffer((panels or len(order)) * order.shape[1] * row)),
        "row_bytes": row,
        "steps": steps,
        "step_offsets": memory.add(np.arange(steps, dtype=np.int64) * DEPTH_BYTES),
        "segments": memory.add(np.array(copies, np.int64)),
        "segment_count": len(copies),
    }


__all__ = ["conv", "gemm"]
