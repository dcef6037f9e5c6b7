"""Operators that only move data or change shapes, and decisions (B7, B8)."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ....planner import Step
from ..memory import NOWHERE, Address, Flat, Planes
from .rearrange import is_view, rearrange
from .state import Emit, Handler, Known, Lowering

# operators that change no byte of a contiguous tensor
RESHAPES = ("Flatten", "Identity", "Reshape")


def reshape(known: Known, step: Step) -> Emit | None:
    """Lower Flatten, Reshape and Identity: nothing to do, unless pixels must be put into the order of the law."""
    name, kind = step.node.outputs[0], step.call.type
    source = known.places.get(step.node.source)
    if source is None or any(i in known.places for i in step.node.inputs if i != step.node.source):
        return None
    if isinstance(source, Flat):
        if len(kind.shape) == 4 and kind.dtype == "uint8":
            return None
        return lambda state: state.put(name, Flat(source.start, kind.dtype, kind.shape))
    if step.node.operator == "Identity":
        return lambda state: state.put(name, source)
    if len(kind.shape) == 4:
        return None
    if source.height * source.width == 1:
        return lambda state: state.put(name, Flat(source.origin, kind.dtype, kind.shape))
    if is_view(known, step):
        return None
    return lambda state: _planes_to(state, source, state.new_flat(name))


def argmax(known: Known, step: Step) -> Emit | None:
    """Lower ArgMax along the last axis (B7, B8)."""
    source = known.places.get(step.node.operand("data"))
    if not isinstance(source, Flat) or source.dtype not in ("int32", "int64"):
        return None
    return partial(_argmax, step=step, source=source)


def _argmax(state: Lowering, *, step: Step, source: Flat) -> None:
    target = state.new_flat(step.node.outputs[0])
    columns = source.shape[-1]
    state.add(
        "argmax",
        source=source.start,
        target=target.start,
        rows=int(np.prod(source.shape)) // columns,
        columns=columns,
        wide=int(source.dtype == "int64"),
    )


def gather(known: Known, step: Step) -> Emit | None:
    """Lower Gather along the first axis: a row with a constant index is used in place."""
    data, indices = step.node.operand("data"), step.node.operand("indices")
    if step.node.integer("axis") or not known.exists(data) or step.call.type.dtype == "uint8":
        return None
    if isinstance(known.places.get(data), Planes):
        return None
    row = known.constant(indices)
    if row is not None and row.ndim == 0:
        return partial(_take_row, step=step, row=int(row))
    if row is None and not _are_argmax(known, indices):
        return None
    return partial(_gather, step=step)


def _are_argmax(known: Known, name: str) -> bool:
    """Return whether a tensor holds indices in the place where an ArgMax wrote them; only these have a proven bound."""
    while name in known.made_by and known.made_by[name].node.operator in RESHAPES:
        name = known.made_by[name].node.source
    return name in known.made_by and known.made_by[name].node.operator == "ArgMax"


def _take_row(state: Lowering, *, step: Step, row: int) -> None:
    table, kind = _flat(state, step.node.operand("data")), step.call.type
    rows = table.shape[0]
    start = table.start + row % rows * (table.size // rows)
    state.put(step.node.outputs[0], Flat(start, kind.dtype, kind.shape))


def _gather(state: Lowering, *, step: Step) -> None:
    table, where = (_flat(state, step.node.operand(role)) for role in ("data", "indices"))
    rows = table.shape[0]
    target = state.new_flat(step.node.outputs[0])
    state.add(
        "gather_rows",
        source=table.start,
        source_rows=rows,
        indices=where.start,
        target=target.start,
        rows=int(np.prod(where.shape)),
        bytes=table.size // rows,
    )


def _flat(state: Lowering, name: str) -> Flat:
    place = state.place_of(name)
    assert isinstance(place, Flat)
    return place


def concat(known: Known, step: Step) -> Emit | None:
    """Lower Concat: of channels, or along the first axis of contiguous tensors."""
    kind, inputs = step.call.type, step.node.inputs
    axis = step.node.integer("axis") % len(kind.shape)
    # constants are contiguous
    flat = [known.constant(name) is not None or isinstance(known.places.get(name), Flat) for name in inputs]
    if all(flat) and axis == 0 and len(kind.shape) != 4:
        return partial(_concat_flat, step=step)
    pictures = [place for name in inputs if (place := known.planes(name)) is not None]
    if axis == 1 and len(pictures) == len(inputs):
        return partial(_concat_channels, step=step, pictures=pictures)
    return None


def _concat_flat(state: Lowering, *, step: Step) -> None:
    sources = [_flat(state, name) for name in step.node.inputs]
    target = state.new_flat(step.node.outputs[0])
    at = 0
    for source in sources:
        copy(state, (source.start, 0, 0), (target.start + at, 0, 0), 1, 1, source.size)
        at += source.size


def _concat_channels(state: Lowering, *, step: Step, pictures: list[Planes]) -> None:
    made = state.new_planes(step.node.outputs[0])
    at = 0
    for source in pictures:
        begin = (source.origin, source.row, source.step)
        copy(state, begin, (made.origin + at, made.row, made.step), source.height, source.width, source.channels)
        at += source.channels


def put_in_order(state: Lowering, name: str) -> Flat:
    """Return a contiguous place of a tensor, in the order of the law."""
    place = state.places[name]
    if isinstance(place, Flat):
        return place
    shape = (1, place.channels, place.height, place.width)
    target = Flat(state.room(Flat(NOWHERE, "uint8", shape).size), "uint8", shape)
    _planes_to(state, place, target)
    return target


def _planes_to(state: Lowering, source: Planes, target: Flat) -> None:
    state.add(
        "planes",
        source=source.origin,
        channels=source.channels,
        height=source.height,
        width=source.width,
        row=source.row,
        step=source.step,
        target=target.start,
    )


Grid = tuple[Address, int, int]


def copy(state: Lowering, source: Grid, target: Grid, rows: int, columns: int, size: int) -> None:
    """Append a copy of rows x columns pieces of `size` bytes; a grid is (address, bytes of a row, of a step)."""
    state.add(
        "copy_rows",
        source=source[0],
        source_row=source[1],
        source_step=source[2],
        target=target[0],
        target_row=target[1],
        target_step=target[2],
        rows=rows,
        columns=columns,
        bytes=size,
    )


def first_of(*handlers: Handler) -> Handler:
    """Return a handler that takes the first form that one of `handlers` has for a step."""

    def handler(known: Known, step: Step) -> Emit | None:
        return next((emit for each in handlers if (emit := each(known, step)) is not None), None)

    return handler


HANDLERS: Mapping[str, Handler] = {
    "ArgMax": argmax,
    "Concat": first_of(concat, rearrange),
    "Flatten": first_of(reshape, rearrange),
    "Gather": first_of(gather, rearrange),
    "Identity": first_of(reshape, rearrange),
    "Reshape": first_of(reshape, rearrange),
    "Slice": rearrange,
    "Transpose": rearrange,
}
