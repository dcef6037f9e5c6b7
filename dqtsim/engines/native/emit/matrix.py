"""Convolution by products of whole matrices of bytes, many pixels by channels by taps at once (B1).

The sizes of matrices, their registers and instructions are defined by the instruction set. If the pixels of a matrix
lie at equal distances, their taps are loaded from the input itself; otherwise they are first gathered into a panel
(im2col), a row of bytes for each pixel. Weights are packed as for vectors, with zeros for the unused taps of a last
matrix, so these bytes of the input may have any value. The sums of all pixels and vectors of channels of a block are
stored in memory; the epilogue of vectors then takes a few pixels at a time. Sums begin with corr, as for vectors, and
are exact modulo 2^32.
"""

from typing import Any

from llvmlite import ir

from ....spec.rules import Rounding
from ..ir import I8, I64, Emitter, constant, vector
from ..isa.base import Isa, Matrices
from .epilogue import EpilogueTile
from .tile import CONV, KIND, PARAMETER_BYTES, Tile

# pixels that the epilogue takes together: constants are loaded once for all of them
TOGETHER = 8
# the words of a CONV record that matrices need
WORDS = ("matrices", "panel", "row_bytes", "steps", "step_offsets")
GATHER = ir.FunctionType(ir.VoidType(), [I64] * 4)
GATHER_NAME = "gather"
# the taps of a kernel: no matrices; the input itself; panels of each chunk; panels of all tiles
VECTORS, DIRECT, PANELS, ALL_PANELS = range(4)


def emit_out(module: Any, isa: Isa, rounding: Rounding, vectors: int) -> None:
    """Add the epilogue of TOGETHER pixels for tiles of `vectors` vectors; tiles of all sizes share it.

    Its arguments are those of a kernel; the input is the address of the sums, and weights are not read.
    """
    e = Emitter(module, _out_name(vectors), KIND, private=True)
    b, size = e.builder, 4 * isa.lanes
    tile = EpilogueTile(e, isa, rounding, TOGETHER, vectors, isa.lanes)
    tile.sums = [
        [e.load(b.add(tile.input, constant(I64, size * (vectors * i + j))), tile.lanes, size) for j in range(vectors)]
        for i in range(TOGETHER)
    ]
    tile.note_extremes()
    tile.keep_sums()
    tile.finish_codes()
    e.done()


def _out_name(vectors: int) -> str:
    return f"out_{vectors}"


def emit_tile(module: Any, isa: Isa, pixels: int, vectors: int) -> str:
    """Add the kernel of `pixels` by `vectors` of channels, whose epilogue exists already; return its name.

    Its arguments are those of `epilogue.emit_tile`; if the CONV record says so, the input is the tile's panel.
    """
    assert isa.matrices is not None
    name = f"tile_{pixels}x{vectors}"
    e = Emitter(module, name, KIND)
    b, size = e.builder, 4 * isa.lanes
    tile = Tile(e, isa, pixels, vectors, isa.lanes)
    held = e.slot(ir.ArrayType(tile.lanes, pixels * vectors))
    held.align = size
    sums = b.ptrtoint(held, I64)
    _multiply(tile, isa.matrices, sums)
    out = module.globals[_out_name(vectors)]
    with e.loop(constant(I64, pixels), 0, TOGETHER) as first:
        at = b.add(sums, b.mul(first, constant(I64, size * vectors)))
        table = b.add(tile.table, b.mul(first, constant(I64, 8)))
        b.call(out, [at, constant(I64, 0), tile.parameters, table, tile.channel, tile.words, tile.limits])
    e.done()
    return name


def _multiply(tile: Tile, matrices: Matrices, sums: Any) -> None:
    """Write the sums of all pixels, [pixels][vectors] of lanes, to the address `sums`."""
    e, b, size, m = tile.e, tile.e.builder, 4 * tile.count, matrices
    groups = tile.pixels // m.rows
    row, steps, taps = (tile.word(name) for name in ("row_bytes", "steps", "step_offsets"))
    direct = b.icmp_signed("==", tile.word("matrices"), constant(I64, DIRECT))
    table = b.add(tile.word("offsets"), tile.table)
    rows = []
    for g in range(groups):
        own = e.load(b.add(table, constant(I64, 8 * m.rows * g)), I64, 8)
        rows.append(b.add(tile.input, b.select(direct, own, b.mul(row, constant(I64, m.rows * g)))))
    # as many vectors at a time as there are registers for their sums
    width = len(m.sums) // groups
    for start in range(0, tile.vectors, width):
        chosen = range(start, min(start + width, tile.vectors))
        place = {(g, j): m.sums[g * width + j - start] for g in range(groups) for j in chosen}
        for (_, j), register in place.items():
            # rows that lie 0 bytes apart are the same row
            corr = b.add(tile.parameters, constant(I64, j * PARAMETER_BYTES * tile.count))
            m.load(e, register, corr, constant(I64, 0))
        with e.loop(steps) as step:
            at = e.load(b.add(taps, b.mul(step, constant(I64, 8))), I64, 8)
            # a row of weights is four taps of every channel
            weights = b.add(tile.weights, b.mul(step, constant(I64, m.depth // 4 * size * tile.vectors)))
            for g in range(groups):
                m.load(e, m.taps[g], b.add(rows[g], at), row)
            for j in chosen:
                operand = m.weights[j % len(m.weights)]
                m.load(e, operand, b.add(weights, constant(I64, size * j)), constant(I64, size * tile.vectors))
                for g in range(groups):
                    m.multiply(e, place[g, j], m.taps[g], operand)
        for (g, j), register in place.items():
            at = b.add(sums, constant(I64, size * (tile.vectors * m.rows * g + j)))
            m.store(e, register, at, constant(I64, size * tile.vectors))


def emit_gather(module: Any, matrices: Matrices) -> str:
    """Add `gather(words, table, source, panel)`: the taps of a tile's pixels, one row of the panel each.

    words: the CONV record, whose segments are here pairs of offsets, from a pixel's first tap and in its row; table:
    bytes from the start of the offset table to this tile; source: address of the first tap of output pixel (0, 0).
    Whole rows of a matrix are copied: the bytes after the end of a run are overwritten by the next run.
    """
    e = Emitter(module, GATHER_NAME, GATHER)
    words, table, source, panel = e.arguments
    b = e.builder
    copies, count, row, pixels = e.unpack(CONV, words, "segments", "segment_count", "row_bytes", "pixels")
    table = b.add(e.word(CONV, words, "offsets"), table)
    line = vector(I8, matrices.depth)
    with e.loop(pixels) as pixel:
        first = b.add(source, e.load(b.add(table, b.mul(pixel, constant(I64, 8))), I64, 8))
        begin = b.add(panel, b.mul(pixel, row))
        with e.loop(count) as number:
            pair = b.add(copies, b.mul(number, constant(I64, 16)))
            taken, put = (e.load(b.add(pair, constant(I64, 8 * k)), I64, 8) for k in range(2))
            e.store(e.load(b.add(first, taken), line), b.add(begin, put))
    e.done()
    return GATHER_NAME


class Panels:
    """The additional work of the operation "conv" if its kernels may multiply matrices."""

    def __init__(self, e: Emitter, words: Any, chunk: Any, pixels: Any, group: Any, matrices: Matrices) -> None:
        b = e.builder
        self.matrices = matrices
        self.e, self.words, self.pixels = e, words, pixels
        mode, self.panel, row = e.unpack(CONV, words, "matrices", "panel", "row_bytes")
        self.used, self.direct, self.own = (
            b.icmp_signed(sign, mode, constant(I64, value))
            for sign, value in (("!=", VECTORS), ("<=", DIRECT), ("==", PANELS))
        )
        self.first, self.bytes = b.mul(chunk, group), b.mul(pixels, row)

    def begin(self) -> None:
        """Give this thread its matrix registers."""
        with self.e.builder.if_then(self.used):
            self.matrices.begin(self.e)

    def gather(self, source: Any, start: Any, stop: Any) -> None:
        """Gather the taps of the tiles from `start` to before `stop`, if they are this chunk's own."""
        e, b = self.e, self.e.builder
        with b.if_then(self.own), e.loop(stop, start) as tile:
            gather(e, self.words, source, tile, self.pixels, self.place(tile, start))

    def place(self, tile: Any, start: Any) -> Any:
        """Return the address of a tile's panel; `start` is the first tile of the group that shares weights."""
        b = self.e.builder
        number = b.select(self.own, b.add(self.first, b.sub(tile, start)), tile)
        return b.add(self.panel, b.mul(number, self.bytes))

    def taps(self, source: Any, tile: Any, start: Any) -> Any:
        """Return the input of a tile's kernel."""
        return self.e.builder.select(self.direct, source, self.place(tile, start))

    def end(self) -> None:
        """Release the registers, so that the system need not save them."""
        with self.e.builder.if_then(self.used):
            self.matrices.end(self.e)


def gather(e: Emitter, words: Any, source: Any, tile: Any, pixels: Any, panel: Any) -> None:
    """Call `gather` for one tile."""
    b = e.builder
    table = b.mul(b.mul(tile, pixels), constant(I64, 8))
    b.call(e.module.globals[GATHER_NAME], [words, table, source, panel])


__all__ = [
    "ALL_PANELS",
    "DIRECT",
    "PANELS",
    "VECTORS",
    "WORDS",
    "Panels",
    "emit_gather",
    "emit_out",
    "emit_tile",
    "gather",
]
