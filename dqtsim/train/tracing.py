"""A network, exported by torch.export, as a list of steps; the error names any part without a nested counterpart."""

from torch import nn
from torch.export import ExportedProgram

from dqtsim.train.reading import layers, moves, outputs, pads, pointwise, pools, transposed
from dqtsim.train.reading.export import exported, opened
from dqtsim.train.reading.reader import Handler, Reader, Reading

HANDLERS: dict[str, Handler] = {
    **layers.HANDLERS, **moves.HANDLERS, **outputs.HANDLERS, **pads.HANDLERS, **pointwise.HANDLERS, **pools.HANDLERS,
    **transposed.HANDLERS,
}  # fmt: skip
_KNOWN = (
    "convolutions (also transposed), Linear, batch norm, pools, pointwise functions of one tensor, sums and products "
    "of two, cat, and what moves or rearranges numbers"
)


def trace(model: nn.Module | ExportedProgram, shape: tuple[int, ...]) -> Reading:
    """The steps of `model` for pictures of `shape` (C, H, W), and the graph they were read from, in float64.

    A module must be on the CPU, in float64 and in eval mode; exporting calls it, which may change its state. Raises
    ModelError with the name of an unknown module or operator.
    """
    found = opened(model, shape) if isinstance(model, ExportedProgram) else exported(model, shape)
    return Reader(found, HANDLERS, _KNOWN).read()
