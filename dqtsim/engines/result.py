"""The result of a sample, and the values that observers see while it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph.model import Array, Widths
from ..graph.results import results, scores
from ..ops import Outcome, refuse_widths
from ..planner import Plan, Step
from ..spec.mac import Flags

Observer = Callable[[Step, Outcome], None]
Execute = Callable[[Array, Sequence[Observer]], "Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one sample.

    outputs: the graph's outputs by name, without the widths. scores: the output that classifies, "" if none does.
    bits: (weight width, activation width) per layer. flags: per layer that multiplies and accumulates, the
    controller's included; None where the engine cannot see accumulators. macs, bitops: of this run, the controller's
    included; BitOPs are MACs times both widths.
    """

    outputs: Mapping[str, Array]
    scores: str
    bits: tuple[Widths, ...]
    flags: Mapping[str, Flags | None]
    macs: int
    bitops: int

    @property
    def logits(self) -> Array | None:
        """Return the int32 class scores (classes,), or None when the network has none."""
        array = self.outputs.get(self.scores)
        return None if array is None or array.dtype != np.int32 else array.reshape(-1)

    @property
    def class_index(self) -> int | None:
        """Return the argmax of the class scores, the lowest index on a tie (B7), or None when the network has none."""
        return int(np.argmax(self.outputs[self.scores])) if self.scores else None


class Trace:
    """An observer that keeps every named tensor, and `<layer>.acc` for the accumulators P of every layer."""

    def __init__(self, *, accumulators: bool = True) -> None:
        self.tensors: dict[str, Array] = {}
        self._accumulators = accumulators

    def __call__(self, step: Step, outcome: Outcome) -> None:
        """Keep the outcome of `step`."""
        if outcome.accumulator is not None and self._accumulators:
            self.tensors[f"{step.node.name}.acc"] = outcome.accumulator.astype(np.int64)
        self.tensors[step.node.outputs[0]] = outcome.output


def summarize(plan: Plan, values: Mapping[str, Array], flags: Mapping[str, Flags | None]) -> Result:
    """Return the result of a run whose tensors are `values`; those of the widths must be among them.

    Raises ModelError if a layer ran at widths that were not planned: the values are then wrong.
    """
    pairs: dict[str, Widths] = {}
    for step in plan.layer_steps():
        b_w, b_a = values[step.node.operand("widths")].tolist()
        pairs[step.node.name] = (b_w, b_a)
        if (b_w, b_a) not in step.call.bounds:
            refuse_widths(step.node, (b_w, b_a))
    outputs = {value.name: values[value.name] for value in results(plan.graph)}
    bits = tuple(map(pairs.__getitem__, plan.graph.layers))
    bitops = sum([count * pairs[name][0] * pairs[name][1] for name, count in plan.macs.items()])
    return Result(outputs, scores(plan.graph), bits, flags, plan.total_macs, bitops)
