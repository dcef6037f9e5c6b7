"""The second way to count: watch the law execute.

The `spec` engine runs unchanged under a profiling hook that sees every call of a function of `spec` with its arguments.
It counts what was executed, not what shapes promise; both ways must agree exactly. Functions that several operators
call are counted here; a function that only one operator calls is counted as that operator's file in `ops` says. A
function of the law that is neither counted nor known to be part of a counted one stops the count.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import assert_never

from .. import spec
from ..engines.registry import engine
from ..engines.result import Result
from ..graph.model import Array
from ..ops import operators
from ..ops.nested import spec_weights
from ..ops.operator import Outcome, Watch
from ..ops.primitives import (
    ACTIVATION_CLIP,
    ACTIVATION_INCREMENT,
    ACTIVATION_SHIFT,
    ALIGN_SHIFT,
    BIAS_ADD,
    COLUMN_ADD,
    HALF_SHIFT,
    HALF_SUBTRACT,
    REQUANTIZE_ADD,
    REQUANTIZE_CLIP,
    REQUANTIZE_MULTIPLY,
    REQUANTIZE_SHIFT,
    WEIGHT_CLIP,
    WEIGHT_INCREMENT,
    WEIGHT_OR,
    WEIGHT_SHIFT,
    Cost,
    Primitive,
)
from ..planner import Plan, Step
from ..spec.rules import Nesting, Rounding
from .counts import NodeCount

_LAW = str(Path(spec.__file__).parent)
# addresses, control and status, and the functions that counted functions consist of
_PART_OF_OTHERS = {
    "nest",
    "nest_window",
    "nest_zero_point",
    "exponent",
    "half",
    "takes_half",
    "master_zero_point_of_weights",
    "narrow",
    "limits",
    "wrap",
    "saturate",
    "accumulate_saturating",
    "gather",
    "positions",
    "output_size",
}


class UncountedError(RuntimeError):
    """The law executed a function that has no count: a fault of dqtsim, never of a model."""


def count_by_execution(plan: Plan, sample: Array) -> tuple[Result, dict[str, Cost]]:
    """Return the result of one sample and the cost of every node of `plan`, counted while the law executes it."""
    counter = _Counter()
    costs: dict[str, Cost] = {}

    def observe(step: Step, _outcome: Outcome) -> None:
        costs[step.node.name] = counter.take()

    execute = engine(plan, "spec")
    previous = sys.getprofile()
    sys.setprofile(counter)
    try:
        result = execute(sample, [observe])
    finally:
        sys.setprofile(previous)
    return result, costs


def different_nodes(promised: Iterable[NodeCount], executed: Mapping[str, Cost]) -> list[str]:
    """Return the nodes whose counts from shapes and from execution differ; a missing count equals 0."""
    return [
        item.name
        for item in promised
        if +item.cost.macs != +executed[item.name].macs or +item.cost.primitives != +executed[item.name].primitives
    ]


class _Counter:
    """A profiling hook that counts calls of the law's functions."""

    def __init__(self) -> None:
        self._cost = Cost()
        self._widths = (0, 0)
        self._hooks: dict[CodeType, Callable[[FrameType], None]] = {
            function.__code__: hook
            for function, hook in (
                (spec.operand, self._operand),
                (spec.window_operand, self._window_operand),
                (spec.select_row, self._select_row),
                (spec.select_pair_row, self._select_row),
                (spec.dot, self._dot),
                (spec.align, self._align),
                (spec.add_up, self._add_up),
                (spec.take_half, self._take_half),
                (spec.add_bias, self._add_bias),
                (spec.requantize, self._requantize),
                (spec.shift_right, self._shift_right),
                (spec.clip, self._clip),
            )
        }
        for operator in operators().values():
            for function, watch in operator.watched:
                self._hooks[function.__code__] = partial(self._watched, watch)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        hook = self._hooks.get(code)
        if hook is not None:
            hook(frame)
        elif code.co_filename.startswith(_LAW) and code.co_name not in _PART_OF_OTHERS and code.co_name[0] not in "<_":
            raise UncountedError(f"the law executed '{code.co_name}', which has no count.")

    def take(self) -> Cost:
        """Return the counts since the last call, and start again from 0."""
        cost, self._cost = self._cost, Cost()
        return cost

    def _count(self, primitive: Primitive, count: int = 1) -> None:
        self._cost.primitives[primitive] += count

    def _select_row(self, frame: FrameType) -> None:
        self._widths = (frame.f_locals["b_w"], frame.f_locals["b_a"])

    def _operand(self, frame: FrameType) -> None:
        values = frame.f_locals
        if values["b"] == values["n"]:
            return
        weights = _weights_are_nested(frame)
        self._count(WEIGHT_SHIFT if weights else ACTIVATION_SHIFT)
        rule: Nesting = values["rule"]
        match rule:
            case Nesting.TIES_UP:
                self._count(WEIGHT_INCREMENT if weights else ACTIVATION_INCREMENT)
                self._count(WEIGHT_CLIP if weights else ACTIVATION_CLIP)
            case Nesting.FLOOR:
                pass
            case Nesting.MIDPOINT | Nesting.CENTROID:
                self._count(WEIGHT_OR)
            case _:
                assert_never(rule)

    def _window_operand(self, frame: FrameType) -> None:
        values = frame.f_locals
        if values["b"] == values["n"]:
            return
        self._count(ACTIVATION_SHIFT)
        self._count(ACTIVATION_CLIP)  # of the window, which includes that of A1
        rule: Nesting = values["rule"]
        match rule:
            case Nesting.TIES_UP:
                self._count(ACTIVATION_INCREMENT)
            case Nesting.FLOOR | Nesting.MIDPOINT | Nesting.CENTROID:
                pass
            case _:
                assert_never(rule)

    def _dot(self, frame: FrameType) -> None:
        self._cost.macs[self._widths] += len(frame.f_locals["taps"])

    def _align(self, frame: FrameType) -> None:
        if frame.f_locals["e_w"] + frame.f_locals["e_a"] > 0:
            self._count(ALIGN_SHIFT)

    def _add_up(self, frame: FrameType) -> None:
        self._count(COLUMN_ADD, len(frame.f_locals["taps"]))

    def _take_half(self, _frame: FrameType) -> None:
        self._count(HALF_SHIFT)
        self._count(HALF_SUBTRACT)

    def _add_bias(self, _frame: FrameType) -> None:
        self._count(BIAS_ADD)

    def _requantize(self, _frame: FrameType) -> None:
        self._count(REQUANTIZE_MULTIPLY)
        self._count(REQUANTIZE_ADD)  # of the zero point

    def _shift_right(self, frame: FrameType) -> None:
        self._count(REQUANTIZE_SHIFT)
        rounding: Rounding = frame.f_locals["rounding"]
        match rounding:
            case Rounding.FLOOR:
                pass
            case Rounding.TIES_UP | Rounding.TIES_AWAY | Rounding.TIES_EVEN:
                self._count(REQUANTIZE_ADD)  # of the half
            case _:
                assert_never(rounding)

    def _clip(self, _frame: FrameType) -> None:
        self._count(REQUANTIZE_CLIP)

    def _watched(self, watch: Watch, frame: FrameType) -> None:
        self._cost.primitives.update(watch(frame.f_locals))


def _weights_are_nested(frame: FrameType) -> bool:
    """Return whether the law nests weights: `spec_weights` is among the callers."""
    caller = frame.f_back
    while caller is not None and caller.f_code is not spec_weights.__code__:
        caller = caller.f_back
    return caller is not None
