"""The tile of a layer: pixels times vectors of output channels."""

import numpy as np

from ....graph.model import Array
from ..emit.tile import CODES, DEPTH, QUADS
from ..isa.base import Isa, Matrices

# small maps that tiles of 8 pixels fill, and tiles of 6 do not
EIGHTS = (16, 64)
L1_BYTES = 32 << 10
L2_BYTES = 600 << 10
TOGETHER = 8
# the least eighths of a matrix that taps must fill: with fewer, zeros would take too much time
LEAST_EIGHTHS = 5


def tile_of(
    isa: Isa, pixels: int, outputs: int, *, kind: str = CODES, matrices: Matrices | None = None
) -> tuple[int, int]:
    """Return (pixels of a tile, most vectors of a block) for a layer of `pixels` outputs per channel.

    matrices: see `by_matrices`.
    """
    vectors = -(-outputs // isa.lanes)
    if kind in (DEPTH, QUADS):
        return isa.depthwise.pixels, min(max(isa.shapes), vectors)
    most = min(max(isa.shapes), vectors)
    if pixels == 1:
        return 1, most
    if matrices is not None:
        return min(size for size in matrices.pixels if size >= min(pixels, max(matrices.pixels))), most
    if pixels in EIGHTS and most == 4 and 8 in isa.shapes[2]:
        most = 2
    # the tile that wastes the fewest pixels, on a tie the larger one
    sizes = [size for size in isa.shapes[most] if size > 1]
    return min(sizes, key=lambda size: (-(-pixels // size) * size, -size)), most


def by_matrices(isa: Isa, pixels: int, taps: int, kind: str) -> Matrices | None:
    """Return the matrices that multiply a layer of so many output pixels, each the sum of `taps` bytes, or None."""
    found = isa.matrices
    if found is None or kind != CODES or pixels == 1 or 8 * taps < LEAST_EIGHTHS * found.depth:
        return None
    return found


def whole_tiles(pixels: int, size: int, *, overlap: bool) -> Array:
    """Return int64 (tiles, size): the pixel at each position of a tile.

    If the pixels do not fill whole tiles, the last tile repeats its last pixel, or, with `overlap`, begins earlier so
    that it is full, and computes some pixels twice.
    """
    first = np.arange(-(-pixels // size), dtype=np.int64) * size
    if overlap:
        first = np.minimum(first, max(0, pixels - size))
    order: Array = np.minimum(first[:, None] + np.arange(size), pixels - 1)
    return order


def distance(offsets: Array, rows: int) -> int:
    """Return the distance between the pixels of every matrix, 0 if distances differ.

    offsets: (tiles, size). rows: pixels of a matrix.
    """
    apart = np.diff(offsets.reshape(-1, rows), axis=1)
    return int(apart[0, 0]) if apart.min() == apart.max() else 0


def grouping(weights: int, blocks: int, tiles: int, *, matrices: bool = False) -> int:
    """Return the number of tiles that use a block of weights while it is in the cache; `weights`: bytes of all blocks.

    matrices: their tiles are large, and are kept as panels.
    """
    if matrices:
        return 1 if weights <= L2_BYTES else min(TOGETHER, tiles)
    if blocks == 1:
        return tiles
    if weights <= L1_BYTES:
        return 1
    return TOGETHER if weights <= L2_BYTES else tiles


def panel_row(taps: int, depth: int) -> int:
    """Return the bytes between the rows of a panel: an odd number of lines, so that no two share a set for long.

    depth: bytes of a line, which is a row of a matrix. A row has room for the excess bytes of the last copy.
    """
    lines = -(-taps // depth) + 1
    return depth * (lines | 1)


def apart(places: Array, lanes: int) -> bool:
    """Return whether a vector of codes, stored at one pixel, does not overwrite following pixels.

    If it does, the following pixels must be stored later, so there must be only one chunk. places: ascending, in bytes.
    """
    return len(places) == 1 or int(np.diff(places).min()) >= lanes
