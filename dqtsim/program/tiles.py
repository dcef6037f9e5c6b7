"""Which tile a layer is computed in: pixels times vectors of output channels."""

from ..kernels.vector.functions import DEPTH_PIXELS, SHAPES
from ..kernels.vector.isa import Isa
from ..kernels.vector.tile import CODES, DEPTH, QUADS

# maps so small that 8 pixels fit them and 6 do not
EIGHTS = (16, 64)
L1_BYTES = 32 << 10
L2_BYTES = 600 << 10
TOGETHER = 8


def tile_of(isa: Isa, pixels: int, outputs: int, *, kind: str = CODES) -> tuple[int, int]:
    """Return (pixels of a tile, most vectors of a block) for a layer of `pixels` outputs per channel."""
    vectors = -(-outputs // isa.lanes)
    if kind in (DEPTH, QUADS):
        return DEPTH_PIXELS[isa.lanes], min(max(SHAPES[isa.lanes]), vectors)
    shapes = SHAPES[isa.lanes]
    widest = max(shapes)
    most = min(widest, vectors)
    if pixels == 1:
        return 1, most
    if isa.lanes == 16 and pixels in EIGHTS and most == 4:
        most = 2
    # the tile that wastes the fewest pixels, the larger one first
    sizes = [size for size in shapes[most] if size > 1]
    return min(sizes, key=lambda size: (-(-pixels // size) * size, -size)), most


def grouping(weights: int, blocks: int, tiles: int) -> int:
    """Return how many tiles take their turn while a block of weights is in the cache, of `weights` bytes in all."""
    if blocks == 1:
        return tiles
    if weights <= L1_BYTES:
        return 1
    return TOGETHER if weights <= L2_BYTES else tiles
