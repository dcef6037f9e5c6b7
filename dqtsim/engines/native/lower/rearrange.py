"""Any move whose indices are constant: every element of the result lies somewhere in the inputs, and is copied.

Moves that follow each other become one: a tensor that only moves read is not stored, it is a *view*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ....graph.model import Array
from ....ops.move import OPERATORS
from ....planner import Step
from ..memory import Address, Place, Planes
from .state import Emit, Known, Lowering, View, spread

MOVES = frozenset(operator.name for operator in OPERATORS)
# the least number of bytes in a chunk
CHUNK_BYTES = 1 << 16
MOST_CHUNKS = 8


@dataclass(frozen=True)
class Grid:
    """Offsets int64 of pixels and of the pieces of a pixel, in a source and in a target; a piece has `size` bytes."""

    source_pixels: Array
    source_pieces: Array
    target_pixels: Array
    target_pieces: Array
    size: int


def rearrange(known: Known, step: Step) -> Emit | None:
    """Lower a step that moves elements; its indices and shapes must be constant."""
    moved = moved_by(step)
    if any(known.constant(name) is None for name in step.node.inputs if name not in moved):
        return None
    if is_view(known, step):
        return partial(_look, step=step)
    return partial(_move, step=step)


def moved_by(step: Step) -> Sequence[str]:
    """Return the inputs whose elements a step moves."""
    return step.node.inputs if step.node.operator == "Concat" else [step.node.source]


def is_view(known: Known, step: Step) -> bool:
    """Return whether codes that a step moves need not be stored: only moves of them read them."""
    name = step.node.outputs[0]
    readers = known.uses.get(name, [])
    if step.node.operator == "Concat" or step.call.type.dtype != "uint8" or known.keep or name in known.outputs:
        return False
    for reader in readers:
        if reader.node.operator not in MOVES or name not in moved_by(reader):
            return False
        rest = [other for other in reader.node.inputs if other not in moved_by(reader)]
        if any(known.constant(other) is None for other in rest):
            return False
    return bool(readers)


def _look(state: Lowering, *, step: Step) -> None:
    """Record the result as a view: its elements stay where they are."""
    source = _view(state, step.node.source)
    constants = {role: state.known(name) for role, name in step.node.operands.items() if name != step.node.source}
    role = next(role for role, name in step.node.operands.items() if name == step.node.source)
    # what a move does to the elements it does to their offsets
    offsets = step.operator.law(step.call, {role: source.offsets, **constants}).output
    state.see(step.node.outputs[0], View(source.start, offsets, source.size))


def _move(state: Lowering, *, step: Step) -> None:
    name = step.node.outputs[0]
    if step.node.operator != "Concat":
        _look(state, step=step)
        store(state, state.views[name], _offsets(state.new_place(name)), state.places[name].start)
        return
    target, at = state.new_place(name), 0
    offsets, axis = _offsets(target), step.node.integer("axis")
    for part in step.node.inputs:
        view = _view(state, part)
        end = at + view.offsets.shape[axis]
        store(state, view, offsets.take(range(at, end), axis), target.start)
        at = end


def _view(state: Lowering, name: str) -> View:
    """Return the places of a tensor's elements."""
    if name in state.views:
        return state.views[name]
    place = state.place_of(name)
    return View(place.start, _offsets(place), 1 if isinstance(place, Planes) else np.dtype(place.dtype).itemsize)


def _offsets(place: Place) -> Array:
    """Return int64 of a tensor's shape: the offset of each element from the tensor's first byte."""
    if isinstance(place, Planes):
        c, y, x = np.ogrid[: place.channels, : place.height, : place.width]
        found: Array = (place.at(0, 0) + y * place.row + x * place.step + c)[None].astype(np.int64)
        return found
    return np.arange(int(np.prod(place.shape)), dtype=np.int64).reshape(place.shape) * np.dtype(place.dtype).itemsize


def store(state: Lowering, view: View, target: Array, start: Address) -> None:
    """Append the operation that stores the elements of a view at the offsets `target` from `start`."""
    grid = grid_of(view.offsets, target, view.size)
    pixels, pieces = len(grid.source_pixels), len(grid.source_pieces)
    state.add(
        "move",
        spread(pixels * pieces * grid.size, at_most=min(MOST_CHUNKS, pixels), least=CHUNK_BYTES),
        source=view.start,
        source_pixels=state.memory.add(grid.source_pixels),
        source_pieces=state.memory.add(grid.source_pieces),
        target=start,
        target_pixels=state.memory.add(grid.target_pixels),
        target_pieces=state.memory.add(grid.target_pieces),
        pixels=pixels,
        pieces=pieces,
        bytes=grid.size,
    )


def grid_of(source: Array, target: Array, size: int) -> Grid:
    """Return elements of `size` bytes as pixels and pieces; source, target: int64 offsets, of the tensor's shape.

    Pixels of a picture have all channels; elsewhere they have all elements of the last axis. Elements that lie side by
    side in both tensors are one piece.
    """
    own, other = (_rows(offsets) for offsets in (source, target))
    for offsets in (own, other):
        if (offsets != offsets[:, :1] + (offsets[:1] - offsets[0, 0])).any():
            own, other = own.reshape(-1, 1), other.reshape(-1, 1)
    pieces = [offsets[0] - offsets[0, 0] for offsets in (own, other)]
    cuts = np.flatnonzero((np.diff(pieces[0]) != size) | (np.diff(pieces[1]) != size)) + 1
    length = int(np.gcd.reduce([*cuts, own.shape[1]]))
    return Grid(own[:, 0], pieces[0][::length], other[:, 0], pieces[1][::length], length * size)


def _rows(offsets: Array) -> Array:
    """Return offsets as (pixels, elements of a pixel)."""
    if offsets.ndim == 4:
        offsets = offsets.transpose(0, 2, 3, 1)
    return offsets.reshape(-1, offsets.shape[-1] if offsets.ndim else 1)
