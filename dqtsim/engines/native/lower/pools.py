"""Pools: a window over pixels, each channel separately (B6)."""

from collections.abc import Mapping
from functools import partial

from ....graph.model import Node
from ....planner import Step
from ..memory import Planes, Word
from ..proofs import tables
from .elementwise import CHUNK_BYTES, MOST_CHUNKS
from .state import Emit, Handler, Known, Lowering, spread


def max_pool(known: Known, step: Step) -> Emit | None:
    """Lower MaxPool (B6)."""
    source = known.planes(step.node.operand("x"))
    return None if source is None else partial(_max_pool, step=step, source=source)


def _max_pool(state: Lowering, *, step: Step, source: Planes) -> None:
    node = step.node
    target = state.new_planes(node.outputs[0])
    dilation_y, dilation_x = node.pair("dilations")
    chunks = _chunks(node, target)
    state.add("max_pool", chunks, dilation_y=dilation_y, dilation_x=dilation_x, **_window(node, source, target))


def average_pool(known: Known, step: Step) -> Emit | None:
    """Lower NestedAveragePool (B6, B6')."""
    source = known.planes(step.node.operand("x"))
    if source is None:
        return None
    multiplier, shift = int(known.operand(step, "multiplier").max()), known.scalar(step, "shift")
    kernel_y, kernel_x = step.node.pair("kernel_shape")
    if shift > 61 or 255 * kernel_y * kernel_x * multiplier + (1 << shift) >= tables.I64_SAFE:
        return None
    return partial(_average_pool, step=step, source=source)


def _average_pool(state: Lowering, *, step: Step, source: Planes) -> None:
    node = step.node
    zero_x, zero_y = state.scalars(step, "x_zero_point", "y_zero_point")
    multipliers = state.operand(step, "multiplier")
    # distances in bytes: none where one multiplier serves all positions
    row, column = multipliers.strides if multipliers.ndim else (0, 0)
    target = state.new_planes(node.outputs[0])
    state.add(
        "average_pool",
        _chunks(node, target),
        z_x=zero_x,
        z_y=zero_y,
        multipliers=state.memory.add(multipliers),
        multiplier_row=row,
        multiplier_step=column,
        shift=state.scalar(step, "shift"),
        low=node.integer("low"),
        high=node.integer("high"),
        **_window(node, source, target),
    )


def _window(node: Node, source: Planes, target: Planes) -> dict[str, Word]:
    """Return the fields of a window's geometry (B6)."""
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


def _chunks(node: Node, target: Planes) -> int:
    kernel_y, kernel_x = node.pair("kernel_shape")
    work = target.size * kernel_y * kernel_x
    return spread(work, at_most=min(MOST_CHUNKS, target.height), least=CHUNK_BYTES)


HANDLERS: Mapping[str, Handler] = {"NestedAveragePool": average_pool, "MaxPool": max_pool}
