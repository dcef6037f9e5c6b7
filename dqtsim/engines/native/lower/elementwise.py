"""Operators that take a code at a time: additions, products, requantization, tables (B4, B5, B9, B9', B10)."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ....graph.model import Array
from ....planner import Step
from ..memory import Flat, Planes, Word
from ..proofs import tables
from .state import Emit, Handler, Known, Lowering, spread

# the least number of bytes in a chunk
CHUNK_BYTES = 1 << 16
MOST_CHUNKS = 8


def add(known: Known, step: Step) -> Emit | None:
    """Lower NestedAdd (B5)."""
    a, b = (known.planes(step.node.operand(role)) for role in ("a", "b"))
    if a is None or b is None or known.scalar(step, "shift") > 61:
        return None
    return partial(_add, step=step, a=a, b=b)


def _add(state: Lowering, *, step: Step, a: Planes, b: Planes) -> None:
    z_a, z_b, z_y = state.scalars(step, "a_zero_point", "b_zero_point", "y_zero_point")
    m_a, m_b, shift = state.scalars(step, "a_multiplier", "b_multiplier", "shift")
    half = (1 << shift) >> 1
    narrow = shift <= 30 and 255 * (m_a + m_b) + half < 1 << 31
    target = state.new_planes(step.node.outputs[0])
    state.add(
        "add.narrow" if narrow else "add",
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


def multiply(known: Known, step: Step) -> Emit | None:
    """Lower NestedMultiply (B10)."""
    a, b = (known.places.get(step.node.operand(role)) for role in ("a", "b"))
    # a product of two codes has 17 bits with its sign and M has 31: with half of 2^62 every sum fits 64 bits
    if isinstance(a, Planes) and isinstance(b, Planes):
        return partial(_multiply_planes, step=step, a=a, b=b)
    if isinstance(a, Flat) and isinstance(b, Flat):
        return partial(_multiply_flat, step=step, a=a, b=b)
    return None


def _multiply_planes(state: Lowering, *, step: Step, a: Planes, b: Planes) -> None:
    """Emit products of pictures: whole rows, or pixels by one pixel that has a code per channel."""
    target = state.new_planes(step.node.outputs[0])
    shared = (b.height, b.width) == (1, 1)
    state.add(
        "multiply",
        spread(target.size, at_most=min(MOST_CHUNKS, target.height), least=CHUNK_BYTES),
        a=a.origin,
        a_row=a.row,
        a_step=a.step,
        b=b.origin,
        b_row=0 if shared else b.row,
        b_step=0 if shared else b.step,
        target=target.origin,
        target_row=target.row,
        target_step=target.step,
        rows=target.height,
        columns=target.width if shared else 1,
        bytes=target.step if shared else target.width * target.step,
        **_product(state, step),
    )


def _multiply_flat(state: Lowering, *, step: Step, a: Flat, b: Flat) -> None:
    target = state.new_flat(step.node.outputs[0])
    words: dict[str, Word] = {"a": a.start, "b": b.start, "target": target.start}
    words |= {f"{name}_{part}": 0 for name in ("a", "b", "target") for part in ("row", "step")}
    words |= {"rows": 1, "columns": 1, "bytes": target.size}
    state.add("multiply", 1, **words, **_product(state, step))


def _product(known: Known, step: Step) -> dict[str, Word]:
    """Return the fields of the numbers of B10."""
    z_a, z_b, z_y = known.scalars(step, "a_zero_point", "b_zero_point", "y_zero_point")
    multiplier, shift = known.scalars(step, "multiplier", "shift")
    low, high = step.node.integer("low"), step.node.integer("high")
    return {"z_a": z_a, "z_b": z_b, "z_y": z_y, "multiplier": multiplier, "shift": shift, "low": low, "high": high}


def requantize(known: Known, step: Step) -> Emit | None:
    """Lower NestedRequantize: one look-up a code, in a table made here (B4)."""
    if step.node.operand("x") not in known.places:
        return None
    return partial(_look_up, step=step, codes=_requantized(known, step))


def table(known: Known, step: Step) -> Emit | None:
    """Lower NestedTable: one look-up a code (B9), in the table of its channel if there is one per channel (B9')."""
    place = known.places.get(step.node.operand("x"))
    if place is None:
        return None
    given = known.known(step.node.operand("table"))
    if "channels" in step.node.form:
        if isinstance(place, Flat) and len(place.shape) != 2:
            return None
        return partial(_look_up_channels, step=step, codes=np.pad(given, ((0, 0), (0, 256 - given.shape[1]))))
    # bytes between pixels may be larger than codes of less than 8 bits; their results are never read
    return partial(_look_up, step=step, codes=np.pad(given, (0, 256 - given.size)))


def _look_up(state: Lowering, *, step: Step, codes: Array) -> None:
    """Emit a look-up of every byte in `codes`, uint8 [256]."""
    source = state.places[step.node.operand("x")]
    where = state.memory.add(codes)
    target = state.new_place(step.node.outputs[0])
    if isinstance(source, Planes) and isinstance(target, Planes):
        rows, row_bytes, source_row, target_row = source.height, source.width * source.step, source.row, target.row
        begin, end = source.origin, target.origin
    else:
        rows, row_bytes, source_row, target_row = 1, source.size, 0, 0
        begin, end = source.start, target.start
    state.add(
        "table",
        source=begin,
        target=end,
        rows=rows,
        row_bytes=row_bytes,
        source_row=source_row,
        target_row=target_row,
        table=where,
    )


def _look_up_channels(state: Lowering, *, step: Step, codes: Array) -> None:
    """Emit a look-up of every channel in its row of `codes`, uint8 [C, 256]; a flat tensor is one pixel."""
    source = state.places[step.node.operand("x")]
    where = state.memory.add(codes)
    target = state.new_place(step.node.outputs[0])
    if isinstance(source, Planes) and isinstance(target, Planes):
        words: dict[str, Word] = {"source": source.origin, "source_row": source.row, "source_step": source.step}
        words |= {"target": target.origin, "target_row": target.row, "target_step": target.step}
        words |= {"rows": source.height, "columns": source.width}
    else:
        words = {"source": source.start, "target": target.start, "rows": 1, "columns": 1}
        words |= {f"{name}_{part}": 0 for name in ("source", "target") for part in ("row", "step")}
    state.add("table.channels", 1, **words, channels=len(codes), tables=where)


def _requantized(known: Known, step: Step) -> Array:
    """Return uint8 [256]: the result for each code."""
    z_x, z_y, m, s = known.scalars(step, "x_zero_point", "y_zero_point", "multiplier", "shift")
    low, high = step.node.integer("low"), step.node.integer("high")
    codes = [z_y + tables.divided((q - z_x) * m, s, step.call.machine.rounding) for q in range(256)]
    return np.array([min(max(code, low), high) for code in codes], np.uint8)


HANDLERS: Mapping[str, Handler] = {
    "NestedAdd": add,
    "NestedMultiply": multiply,
    "NestedRequantize": requantize,
    "NestedTable": table,
}
