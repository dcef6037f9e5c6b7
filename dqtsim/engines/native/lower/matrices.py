"""The taps of kernels that multiply whole matrices."""

import numpy as np

from ..emit import matrix
from ..memory import Word
from .geometry import Shape, Source, Tiling
from .state import Lowering
from .tiles import panel_row


def words_of_matrices(
    state: Lowering, shape: Shape, source: Source, tiling: Tiling, depth: int, panels: int
) -> dict[str, Word]:
    """Return the fields by which matrices find their taps.

    depth: bytes of a row of a matrix. panels: how many tiles are gathered at a time, 0 for all of them.
    """
    memory = state.memory
    taps = shape.runs.size
    steps = -(-taps // depth)
    if tiling.apart:
        starts = shape.segments[:, None] + np.arange(shape.runs.shape[1], dtype=np.int64)
        places = starts.reshape(-1)[::depth]
        read = int(shape.offsets.max() + places.max()) + depth
        for address in (source.direct, source.nested):
            state.enlarge(address, read)
        return {
            "matrices": matrix.DIRECT,
            "row_bytes": tiling.apart,
            "steps": steps,
            "step_offsets": memory.add(places),
        }
    row = panel_row(taps, depth)
    copies = [
        (segment + at, number * shape.runs.shape[1] + at)
        for number, segment in enumerate(shape.segments.tolist())
        for at in range(0, shape.runs.shape[1], depth)
    ]
    return {
        "matrices": matrix.PANELS if panels else matrix.ALL_PANELS,
        "panel": state.room((panels or tiling.tiles) * tiling.pixels * row),
        "row_bytes": row,
        "steps": steps,
        "step_offsets": memory.add(np.arange(steps, dtype=np.int64) * depth),
        "segments": memory.add(np.array(copies, np.int64)),
        "segment_count": len(copies),
    }
