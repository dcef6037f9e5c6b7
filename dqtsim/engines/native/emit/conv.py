"""Convolution: which tiles a chunk computes, in which order, and at which widths (B1-B5)."""

from typing import Any

from llvmlite import ir

from ..ir import I32, I64, WORD, Emitter, constant, vector
from ..isa.base import Isa, Matrices
from . import matrix
from .choice import variant_of
from .rows import rows_of
from .tile import BLOCK, CONV, KIND, VARIANT


def emit_conv(module: Any, isa: Isa) -> str:
    """Add the operation "conv" of CONV records to `module`; return its name."""
    e = Emitter(module, "conv")
    b = e.builder
    words, chunk = e.arguments
    source, weights, parameters, blocks = constants_of(e, words)
    tiles, count, chunks, group, pixels = e.unpack(CONV, words, "tiles", "block_count", "chunks", "group", "pixels")
    by_blocks = b.icmp_signed("!=", e.word(CONV, words, "by_blocks"), constant(I64, 0))

    def part(total: Any, divided: Any, step: int) -> Any:
        """The beginning (step 0) or end (step 1) of this chunk's share of `total`, or of all of it if not divided."""
        share = b.sdiv(b.mul(total, b.add(chunk, constant(I64, step))), chunks)
        return b.select(divided, share, total if step else constant(I64, 0))

    matrices = matrix.Panels(e, words, chunk, pixels, group, isa.matrices) if isa.matrices else None
    if matrices is not None:
        matrices.begin()

    by_tiles = b.not_(by_blocks)
    first_tile, last_tile = part(tiles, by_tiles, 0), part(tiles, by_tiles, 1)
    first_block, last_block = part(count, by_blocks, 0), part(count, by_blocks, 1)
    lanes = vector(I32, isa.lanes)
    limits = e.slot(ir.ArrayType(lanes, 2))
    limits.align = 4 * isa.lanes
    place = b.ptrtoint(limits, I64)
    size = 4 * isa.lanes
    for k in range(2):
        e.store(constant(lanes, 0), b.add(place, constant(I64, size * k)), size)
    with e.loop(last_tile, first_tile, group) as start:
        stop = e.least(b.add(start, group), last_tile)
        if matrices is not None:
            matrices.gather(source, start, stop)
        with e.loop(last_block, first_block) as number:
            block = b.add(blocks, b.mul(number, constant(I64, WORD * len(BLOCK))))
            function, w, p, a, channel = (
                e.load(b.add(block, constant(I64, WORD * k)), I64, 8) for k in range(len(BLOCK))
            )
            kernel = e.pointer(function, KIND)
            w, p, a = b.add(weights, w), b.add(parameters, p), b.add(source, a)
            with e.loop(stop, start) as tile:
                table = b.mul(b.mul(tile, pixels), constant(I64, 8))
                taps = a
                if matrices is not None:
                    taps = matrices.taps(a, tile, start)
                b.call(kernel, [taps, w, p, table, channel, words, place])
    if matrices is not None:
        matrices.end()
    flags = e.word(CONV, words, "flags")
    for k, which in enumerate(("min", "max")):
        value = e.load(b.add(place, constant(I64, size * k)), lanes, size)
        extreme = e.call(f"llvm.vector.reduce.s{which}.v{isa.lanes}i32", I32, value)
        b.atomic_rmw(which, e.pointer(b.add(flags, constant(I64, 4 * k)), I32), extreme, "monotonic")
    e.done()
    return "conv"


def emit_panels(module: Any, matrices: Matrices) -> str:
    """Add the operation "panels" of CONV records: the panels of all tiles, for the operation "conv" that follows."""
    e = Emitter(module, "panels")
    words, chunk = e.arguments
    source, *_ = constants_of(e, words)
    tiles, chunks, pixels = e.unpack(CONV, words, "tiles", "chunks", "pixels")
    panels = matrix.Panels(e, words, chunk, pixels, constant(I64, 0), matrices)
    with rows_of(e, chunks, chunk, tiles) as tile:
        matrix.gather(e, words, source, tile, pixels, panels.place(tile, tile))
    e.done()
    return "panels"


def constants_of(e: Emitter, words: Any) -> tuple[Any, Any, Any, Any]:
    """Return the addresses of the first tap, weights, parameters and BLOCK records at this execution's widths."""
    b = e.builder
    variant = variant_of(e, CONV, words, len(VARIANT))
    direct, weights, parameters, blocks = (
        e.load(b.add(variant, constant(I64, WORD * k)), I64, 8) for k in range(len(VARIANT))
    )
    own, nested = e.unpack(CONV, words, "direct", "nested")
    return b.select(b.icmp_signed("!=", direct, constant(I64, 0)), own, nested), weights, parameters, blocks
