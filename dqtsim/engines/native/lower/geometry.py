"""The geometry of a layer: the bytes of its pixels and taps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....graph.model import Array
from ..emit.tile import CODES, DEPTH, QUADS
from ..isa.base import Isa, Matrices
from ..memory import Address, Planes
from ..proofs import tables
from ..proofs.variants import Variants
from .tiles import by_matrices, distance, tile_of, whole_tiles


@dataclass(frozen=True)
class Source:
    """The place of a layer's taps: the first tap of output (0, 0), in the tensor itself and in nested codes."""

    direct: Address | None
    nested: Address | None


@dataclass(frozen=True)
class Dense:
    """Grouped weights as rows over all taps, with zeros for the taps of other groups."""

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
    dense: Dense


@dataclass(frozen=True)
class Part:
    """A layer at the widths in `variants`; `counted`: it counts bits instead of multiplying."""

    shape: Shape
    source: Source
    variants: Variants
    counted: bool = False


@dataclass(frozen=True)
class Tiling:
    """The division of a layer's pixels and channels.

    order: int64 (tiles, pixels of a tile), the pixel at each position of a tile. blocks: of channels. matrices: the
    matrix instructions that multiply them, None for vectors; the pixels of one matrix lie `apart` bytes apart, 0 if
    distances differ.
    """

    order: Array
    blocks: Sequence[tables.Block]
    matrices: Matrices | None
    apart: int

    @property
    def tiles(self) -> int:
        """Return the number of tiles."""
        return len(self.order)

    @property
    def pixels(self) -> int:
        """Return the pixels of a tile."""
        return int(self.order.shape[1])

    @property
    def channels(self) -> int:
        """Return the channels of all blocks."""
        return sum(len(block.order) for block in self.blocks)

    def filled(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts; if matrices read the input directly, their runs are filled up to whole matrices."""
        if not self.apart or self.matrices is None:
            return parts
        return [
            replace(part, shape=replace(part.shape, runs=tables.padded(part.shape.runs, self.matrices.depth)))
            for part in parts
        ]


def tiling_of(isa: Isa, shape: Shape, kind: str) -> Tiling:
    """Return how a layer is divided for an instruction set."""
    pixels = len(shape.offsets)
    matrices = by_matrices(isa, pixels, shape.runs.size, kind)
    size, most = tile_of(isa, pixels, shape.outputs, kind=kind, matrices=matrices)
    order = whole_tiles(pixels, size, overlap=matrices is not None)
    blocks = tables.blocks_of(isa, kind, size, shape.outputs, most)
    return Tiling(order, blocks, matrices, 0 if matrices is None else distance(shape.offsets[order], matrices.rows))


def taps_of(
    place: Planes, kernel: Sequence[int], dilation: tuple[int, int], *, kind: str = CODES
) -> tuple[Array, Array]:
    """Return (segments, runs): a row of taps is one run if pixels lie side by side without gaps between channels.

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
