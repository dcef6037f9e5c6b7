"""Which tile a layer is computed in: pixels times vectors of output channels."""

from ..kernels.vector.isa import Isa

# pixels of a tile by vectors of channels, the best first; all are compiled
SHAPES = {
    16: {4: (6, 5, 1), 3: (8, 6, 5, 1), 2: (8, 6, 5, 1), 1: (8, 6, 5, 1)},
    8: {2: (6, 5, 4, 1), 1: (6, 5, 4, 1)},
    4: {2: (4, 1), 1: (4, 1)},
}
# maps so small that 8 pixels fit them and 6 do not
EIGHTS = (16, 64)
L1_BYTES = 32 << 10
L2_BYTES = 600 << 10
TOGETHER = 8


# pixels of a depthwise tile
DEPTH_PIXELS = {16: 6, 8: 4, 4: 4}


def tile_of(isa: Isa, pixels: int, outputs: int, *, depth: bool = False) -> tuple[int, int]:
    """Return (pixels of a tile, most vectors of a block) for a layer of `pixels` outputs per channel."""
    vectors = -(-outputs // isa.lanes)
    if depth:
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


def shapes_of(isa: Isa) -> list[tuple[int, int]]:
    """Return every (pixels, vectors) that a layer may ask for."""
    shapes = SHAPES[isa.lanes]
    sizes = {size for allowed in shapes.values() for size in allowed}
    return sorted((size, count) for size in sizes for count in shapes if size * count <= 30)


def grouping(weights: int, blocks: int, tiles: int) -> int:
    """Return how many tiles take their turn while a block of weights is in the cache, of `weights` bytes in all."""
    if blocks == 1:
        return tiles
    if weights <= L1_BYTES:
        return 1
    return TOGETHER if weights <= L2_BYTES else tiles
