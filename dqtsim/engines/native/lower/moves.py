"""Operators without multiply-accumulates, as native operations: pools, additions, other grids, moves (B4-B8)."""

import numpy as np

from ....graph.model import Node
from ....planner import Step
from ..emit.add import ADD
from ..emit.average_pool import AVERAGE_POOL
from ..emit.copy import COPY
from ..emit.decision import ARGMAX, GATHER_ROWS
from ..emit.max_pool import MAX_POOL
from ..emit.planes import PLANES
from ..emit.table import TABLE
from ..memory import Address, Flat, Planes, Spot
from ..proofs import tables
from .state import Lowering, spread

# bytes that are worth a chunk
CHUNK_BYTES = 1 << 16
MOST_CHUNKS = 8


def _scalars(state: Lowering, step: Step, first: int) -> list[int]:
    """Return the constant scalars among the inputs, from number `first`."""
    return [int(state.out.constants[name]) for name in step.node.inputs[first:]]


def _planes(state: Lowering, name: str) -> Planes | None:
    place = state.out.places.get(name)
    return place if isinstance(place, Planes) else None


def _window(node: Node, source: Planes, target: Planes) -> dict[str, Address]:
    """Return the words of a window's geometry (B6)."""
    (kernel_y, kernel_x), (stride_y, stride_x) = node.pair("kernel_shape"), node.pair("strides")
    top, left, _, _ = node.integers("pads")
    return {
        **source.words(),
        "target": target.origin,
        "target_row": target.row,
        "target_step": target.step,
        "rows": target.height,
        "columns": target.width,
        "kernel_y": kernel_y,
        "kernel_x": kernel_x,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "top": top,
        "left": left,
        "channels": source.step,
    }


def _window_chunks(node: Node, target: Planes) -> int:
    kernel_y, kernel_x = node.pair("kernel_shape")
    work = target.size * kernel_y * kernel_x
    return spread(work, at_most=min(MOST_CHUNKS, target.height), least=CHUNK_BYTES)


def max_pool(state: Lowering, step: Step) -> bool:
    """Lower MaxPool (B6)."""
    source = _planes(state, step.node.inputs[0])
    if source is None:
        return False
    target = state.new_place(step.node.outputs[0])
    assert isinstance(target, Planes)
    node = step.node
    dilation_y, dilation_x = node.pair("dilations")
    state.add(
        "max_pool",
        MAX_POOL,
        _window_chunks(node, target),
        dilation_y=dilation_y,
        dilation_x=dilation_x,
        **_window(node, source, target),
    )
    return True


def average_pool(state: Lowering, step: Step) -> bool:
    """Lower NestedAveragePool (B6)."""
    source = _planes(state, step.node.inputs[0])
    if source is None:
        return False
    node = step.node
    zero_x, zero_y, multiplier, shift = _scalars(state, step, 1)
    kernel_y, kernel_x = node.pair("kernel_shape")
    if shift > 61 or 255 * kernel_y * kernel_x * multiplier + (1 << shift) >= tables.I64_SAFE:
        return False
    target = state.new_place(node.outputs[0])
    assert isinstance(target, Planes)
    state.add(
        "average_pool",
        AVERAGE_POOL,
        _window_chunks(node, target),
        z_x=zero_x,
        z_y=zero_y,
        multiplier=multiplier,
        shift=shift,
        low=node.integer("low"),
        high=node.integer("high"),
        **_window(node, source, target),
    )
    return True


def add(state: Lowering, step: Step) -> bool:
    """Lower NestedAdd (B5)."""
    a, b = (_planes(state, name) for name in step.node.inputs[:2])
    if a is None or b is None:
        return False
    z_a, z_b, z_y, m_a, m_b, shift = _scalars(state, step, 2)
    half = (1 << shift) >> 1
    narrow = shift <= 30 and 255 * (m_a + m_b) + half < 1 << 31
    if shift > 61:
        return False
    target = state.new_place(step.node.outputs[0])
    assert isinstance(target, Planes)
    state.add(
        "add.narrow" if narrow else "add",
        ADD,
        spread(target.size, at_most=min(MOST_CHUNKS, target.height), least=CHUNK_BYTES),
        a=a.origin,
        b=b.origin,
        target=target.origin,
        rows=target.height,
        row_bytes=target.width * target.step,
        a_row=a.row,
        b_row=b.row,
        target_row=target.row,
        z_a=z_a,
        z_b=z_b,
        z_y=z_y,
        m_a=m_a,
        m_b=m_b,
        shift=shift,
        low=step.node.integer("low"),
        high=step.node.integer("high"),
    )
    return True


def requantize(state: Lowering, step: Step) -> bool:
    """Lower NestedRequantize: one look-up a code, in a table made here (B4)."""
    source = state.out.places.get(step.node.inputs[0])
    if source is None:
        return False
    z_x, z_y, m, s = _scalars(state, step, 1)
    low, high = step.node.integer("low"), step.node.integer("high")
    codes = [z_y + tables.divided((q - z_x) * m, s, step.call.machine.rounding) for q in range(256)]
    lut = state.out.memory.add(np.array([min(max(code, low), high) for code in codes], np.uint8))
    target = state.new_place(step.node.outputs[0])
    if isinstance(source, Planes) and isinstance(target, Planes):
        rows, row_bytes, source_row, target_row = source.height, source.width * source.step, source.row, target.row
        begin, end = source.origin, target.origin
    else:
        rows, row_bytes, source_row, target_row = 1, source.size, 0, 0
        begin, end = source.start, target.start
    state.add(
        "table",
        TABLE,
        source=begin,
        target=end,
        rows=rows,
        row_bytes=row_bytes,
        source_row=source_row,
        target_row=target_row,
        table=lut,
    )
    return True


def reshape(state: Lowering, step: Step) -> bool:
    """Lower Flatten, Reshape and Identity: nothing to do, unless pixels have to be put in the order of the law."""
    name, kind = step.node.outputs[0], step.call.type
    source = state.out.places.get(step.node.inputs[0])
    if source is None or any(i in state.out.places for i in step.node.inputs[1:]):
        return False
    if isinstance(source, Flat):
        if len(kind.shape) == 4 and kind.dtype == "uint8":
            return False
        state.out.places[name] = Flat(source.start, kind.dtype, kind.shape)
        return True
    if step.node.operator == "Identity":
        state.out.places[name] = source
        return True
    if len(kind.shape) == 4:
        return False
    if source.height * source.width == 1:
        state.out.places[name] = Flat(source.origin, kind.dtype, kind.shape)
        return True
    target = state.flat(name)
    state.out.places[name] = target
    _planes_to(state, source, target)
    return True


def argmax(state: Lowering, step: Step) -> bool:
    """Lower ArgMax along the last axis (B7, B8)."""
    source = state.out.places.get(step.node.inputs[0])
    if not isinstance(source, Flat) or source.dtype not in ("int32", "int64"):
        return False
    target = state.flat(step.node.outputs[0])
    state.out.places[step.node.outputs[0]] = target
    columns = source.shape[-1]
    state.add(
        "argmax",
        ARGMAX,
        source=source.start,
        target=target.start,
        rows=int(np.prod(source.shape)) // columns,
        columns=columns,
        wide=int(source.dtype == "int64"),
    )
    return True


def gather(state: Lowering, step: Step) -> bool:
    """Lower Gather along the first axis: a row that is known beforehand is where it is."""
    data, indices = step.node.inputs
    kind = step.call.type
    if step.node.integer("axis") or data not in state.out.places | state.out.constants:
        return False
    table = state.place_of(data)
    if not isinstance(table, Flat) or kind.dtype == "uint8":
        return False
    rows = table.shape[0]
    row_bytes = table.size // rows
    known = state.out.constants.get(indices)
    name = step.node.outputs[0]
    if known is not None and known.ndim == 0:
        state.out.places[name] = Flat(table.start + int(known) % rows * row_bytes, kind.dtype, kind.shape)
        return True
    where = state.place_of(indices)
    if not isinstance(where, Flat) or where.dtype != "int64":
        return False
    target = state.flat(name)
    state.out.places[name] = target
    state.add(
        "gather_rows",
        GATHER_ROWS,
        source=table.start,
        source_rows=rows,
        indices=where.start,
        target=target.start,
        rows=int(np.prod(where.shape)),
        bytes=row_bytes,
    )
    return True


def concat(state: Lowering, step: Step) -> bool:
    """Lower Concat: of channels, or along the first axis of contiguous tensors."""
    name, kind = step.node.outputs[0], step.call.type
    if any(i not in state.out.places | state.out.constants for i in step.node.inputs):
        return False
    axis = step.node.integer("axis") % len(kind.shape)
    sources = [state.place_of(i) for i in step.node.inputs]
    if all(isinstance(source, Flat) for source in sources) and axis == 0 and len(kind.shape) != 4:
        target = state.flat(name)
        state.out.places[name] = target
        at = 0
        for source in sources:
            copy(state, (source.start, 0, 0), (target.start + at, 0, 0), 1, 1, source.size)
            at += source.size
        return True
    if axis != 1 or not all(isinstance(source, Planes) for source in sources):
        return False
    made = state.new_place(name)
    assert isinstance(made, Planes)
    at = 0
    for source in sources:
        assert isinstance(source, Planes)
        rows, columns = source.height, source.width
        begin = (source.origin, source.row, source.step)
        copy(state, begin, (made.origin + at, made.row, made.step), rows, columns, source.channels)
        at += source.channels
    return True


def put_in_order(state: Lowering, name: str) -> Flat:
    """Return a contiguous place of a tensor, in the order of the law."""
    place = state.out.places[name]
    if isinstance(place, Flat):
        return place
    shape = (1, place.channels, place.height, place.width)
    target = Flat(Spot(state.buffer(int(np.prod(shape)))), "uint8", shape)
    _planes_to(state, place, target)
    return target


def _planes_to(state: Lowering, source: Planes, target: Flat) -> None:
    state.add(
        "planes",
        PLANES,
        source=source.origin,
        channels=source.channels,
        height=source.height,
        width=source.width,
        row=source.row,
        step=source.step,
        target=target.start,
    )


Grid = tuple[Spot | int, int, int]


def copy(state: Lowering, source: Grid, target: Grid, rows: int, columns: int, size: int) -> None:
    """Append a copy of rows x columns pieces of `size` bytes; a grid is (address, bytes of a row, of a step)."""
    state.add(
        "copy_rows",
        COPY,
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
