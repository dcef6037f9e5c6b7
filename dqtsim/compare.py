"""Comparison of two runs of one plan: every tensor by equality, in execution order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .errors import GoldenError
from .graph import BITS
from .graph.model import Array
from .planner import Plan, Step


@dataclass(frozen=True)
class Divergence:
    """The first place, in execution order, where a tensor differs from its golden one."""

    tensor: str
    operator: str
    index: tuple[int, ...]
    expected: int
    got: int
    accumulator_expected: int | None
    accumulator_got: int | None
    different: int
    elements: int

    def __str__(self) -> str:
        """Return the report of the divergence, one line."""
        at = ", ".join(map(str, self.index))
        text = f"'{self.tensor}' ({self.operator}) at [{at}]: expected {self.expected}, got {self.got}"
        if self.accumulator_expected is not None or self.accumulator_got is not None:
            text += (
                f"; accumulator before requantization: expected {_known(self.accumulator_expected)}, "
                f"got {_known(self.accumulator_got)}"
            )
        return f"{text}; {self.different} of {self.elements} elements differ"


@dataclass(frozen=True)
class Comparison:
    """How much was compared, how much of it differs, and the first place that differs."""

    tensors: int
    elements: int
    different_tensors: int
    different_elements: int
    first: Divergence | None


def compare_tensors(plan: Plan, expected: Mapping[str, Array], found: Mapping[str, Array], where: str) -> Comparison:
    """Compare all tensors that both sides have, by equality, in execution order.

    `where` names the expected side in the error for tensors of unlike shapes.
    Raises GoldenError if shapes differ.
    """
    elements = different = tensors = different_tensors = 0
    first = None
    for name, step in _in_order(plan):
        if name not in expected or name not in found:
            continue
        left, right = expected[name], found[name]
        if left.shape != right.shape:
            raise GoldenError(f"'{name}' of {where} has shape {left.shape}; the model gives {right.shape}.")
        wrong = int(np.count_nonzero(left != right))
        tensors += 1
        elements += left.size
        different += wrong
        different_tensors += wrong > 0
        if wrong and first is None:
            first = _divergence(name, step, left, right, expected, found)
    return Comparison(tensors, elements, different_tensors, different, first)


def _in_order(plan: Plan) -> Iterator[tuple[str, Step | None]]:
    if BITS in plan.graph.initializers:
        yield BITS, None
    for step in plan.steps:
        if step.call.bounds:
            yield f"{step.node.name}.acc", step
        yield step.node.outputs[0], step


def _divergence(
    name: str,
    step: Step | None,
    expected: Array,
    found: Array,
    wanted: Mapping[str, Array],
    got: Mapping[str, Array],
) -> Divergence:
    index = tuple(int(i) for i in np.argwhere(expected != found)[0])
    accumulators: list[int | None] = []
    for side in (wanted, got):
        p = side.get(f"{step.node.name}.acc") if step is not None else None
        accumulators.append(int(p[index]) if p is not None and p.shape == expected.shape else None)
    operator = (step.node.domain and f"{step.node.domain}.") + step.node.operator if step is not None else "initializer"
    if name.endswith(".acc"):
        accumulators = [None, None]
        operator += ", accumulator"
    return Divergence(
        name,
        operator,
        index,
        int(expected[index]),
        int(found[index]),
        accumulators[0],
        accumulators[1],
        int(np.count_nonzero(expected != found)),
        expected.size,
    )


def _known(value: int | None) -> str:
    return "unknown" if value is None else str(value)
