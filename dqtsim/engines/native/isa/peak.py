"""The widest dot product of an instruction set, as `bench` times it: a loop over accumulators that stay in registers.

Every step multiplies an accumulator's own bits, so that a compiler cannot move the product out of the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ir import I32, Emitter, constant, vector

# enough to hide the latency of a multiplication, and few enough for 16 vector registers
ACCUMULATORS = 12
Step = Callable[[Emitter, Any, Any], Any]


@dataclass(frozen=True)
class Peak:
    """A burst of multiply-accumulates.

    instruction: its name. lanes: int32 in an accumulator. macs: products of one step into one accumulator.
    accumulators: how many there are. burst: (emitter, steps, operand) -> the sum of all lanes of all accumulators,
    int32 and wrapped, after `steps` steps of each; the int32 operand, no byte of which is 0, is in every lane of the
    other factor. Accumulator k starts with k + 1 in every lane, or all of them with 0.
    """

    instruction: str
    lanes: int
    macs: int
    burst: Callable[[Emitter, Any, Any], Any]
    accumulators: int = ACCUMULATORS


def of_vectors(instruction: str, lanes: int, macs: int, step: Step) -> Peak:
    """Return the peak of an instruction on vectors; step: (emitter, accumulators, factor) -> accumulators."""

    def burst(e: Emitter, steps: Any, operand: Any) -> Any:
        b, kind = e.builder, vector(I32, lanes)
        factor = e.splat(operand, lanes)
        sums = [e.slot(kind, constant(kind, number + 1)) for number in range(ACCUMULATORS)]
        with e.loop(steps):
            for place in sums:
                b.store(step(e, b.load(place), factor), place)
        whole = b.load(sums[0])
        for place in sums[1:]:
            whole = b.add(whole, b.load(place))
        total = constant(I32, 0)
        for lane in range(lanes):
            total = b.add(total, b.extract_element(whole, constant(I32, lane)))
        return total

    return Peak(instruction, lanes, macs, burst)
