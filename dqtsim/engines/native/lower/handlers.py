"""Which function lowers which operator."""

from collections.abc import Mapping

from . import layers, moves
from .state import Handler

HANDLERS: Mapping[str, Handler] = {
    "NestedConv": layers.conv,
    "NestedGemm": layers.gemm,
    "NestedLogits": layers.gemm,
    "NestedAdd": moves.add,
    "NestedAveragePool": moves.average_pool,
    "NestedRequantize": moves.requantize,
    "MaxPool": moves.max_pool,
    "Concat": moves.concat,
    "Flatten": moves.reshape,
    "Reshape": moves.reshape,
    "Identity": moves.reshape,
    "ArgMax": moves.argmax,
    "Gather": moves.gather,
}
