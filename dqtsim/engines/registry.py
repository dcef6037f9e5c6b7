"""EXECUTE: a plan, an engine and a picture give tensors and a status. The executor decides nothing.

Engines: `spec` is the law itself on Python ints, `jit` native code for the whole network, `numba` the Numba kernels
step by step, `onnxruntime` the file's own function bodies, `torch` the trainer's exact integer path.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..graph import BITS
from ..graph.model import Array, Widths
from ..ops import Outcome, refuse_widths
from ..planner import Plan, Step
from ..spec.mac import Flags

if TYPE_CHECKING:
    from .native import Native, Ran

ENGINES = ("jit", "numba", "spec", "onnxruntime", "torch")
Observer = Callable[[Step, Outcome], None]
Execute = Callable[[Array, Sequence[Observer]], "Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """What one sample gave.

    outputs: the graph's outputs by name. bits: (weight width, activation width) per layer. flags: per layer that
    multiplies and accumulates, the controller's included; None where the engine cannot see accumulators. macs, bitops:
    of this run, the controller's included; BitOPs are MACs times both widths.
    """

    outputs: Mapping[str, Array]
    bits: tuple[Widths, ...]
    flags: Mapping[str, Flags | None]
    macs: int
    bitops: int

    @property
    def logits(self) -> Array | None:
        """Return the int32 class scores (classes,), or None when the network has none."""
        for array in self.outputs.values():
            if array.dtype == np.int32:
                return array.reshape(-1)
        return None

    @property
    def class_index(self) -> int | None:
        """Return the argmax of the logits, the lowest index on a tie (B7)."""
        return None if self.logits is None else int(np.argmax(self.logits))


class Trace:
    """An observer that keeps every named tensor, and `<layer>.acc` for the accumulators P of every layer."""

    def __init__(self, *, accumulators: bool = True) -> None:
        self.tensors: dict[str, Array] = {}
        self._accumulators = accumulators

    def __call__(self, step: Step, outcome: Outcome) -> None:
        """Keep what `step` gave."""
        if outcome.accumulator is not None and self._accumulators:
            self.tensors[f"{step.node.name}.acc"] = outcome.accumulator.astype(np.int64)
        self.tensors[step.node.outputs[0]] = outcome.output


def engine(plan: Plan, name: str = "jit") -> Execute:
    """Return the function that executes one sample of `plan`: (codes (1, ...), observers) -> Result."""
    execute = _unchecked(plan, name)

    def checked(codes: Array, observers: Sequence[Observer]) -> Result:
        check_codes(plan, codes)
        if len(codes) != 1:
            raise InputError(f"an engine executes one sample at a time; found {len(codes)}.")
        return execute(codes, observers)

    return checked


def _unchecked(plan: Plan, name: str) -> Execute:
    if name == "onnxruntime":
        from .unbounded import onnxruntime_engine

        return onnxruntime_engine(plan)
    if name == "torch":
        from .unbounded import torch_engine

        return torch_engine(plan)
    if name == "jit":
        return _jit(plan)
    if name not in ENGINES:
        raise InputError(f"an engine is one of {', '.join(ENGINES)}; found '{name}'.")

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        return _execute(plan, codes, observers, by_law=name == "spec")

    return execute


def _jit(plan: Plan) -> Execute:
    """Return the native engine; observers see a program that keeps every tensor."""
    made = _native()(plan)

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        if not observers:
            return _finished(plan, made.execute(codes))
        values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
        flags: dict[str, Flags | None] = {}
        for step, outcome in made.trace(codes):
            values[step.node.outputs[0]] = outcome.output
            if outcome.flags is not None:
                flags[step.node.name] = outcome.flags
            for observer in observers:
                observer(step, outcome)
        return summarize(plan, values, flags)

    return execute


def _jit_batch(plan: Plan, codes: Array, threads: int) -> Iterator[Result]:
    made = _native()(plan)
    if len(codes) == 1:
        yield _finished(plan, made.execute(codes, threads))
        return
    for ran in made.batch(codes, threads):
        yield _finished(plan, ran)


@cache
def _native() -> "Callable[[Plan], Native]":
    """Return what makes the native engine of a plan, whose import costs time: once here, not at every sample."""
    from .native import native

    return native


def _finished(plan: Plan, ran: "Ran") -> Result:
    return Result(ran.outputs, ran.bits, ran.flags, plan.total_macs, ran.bitops)


def run(plan: Plan, codes: Array, engine_name: str = "jit", threads: int = 1) -> Iterator[Result]:
    """Yield the result of every sample of `codes` uint8 (N, ...), in order; `threads` samples run side by side.

    A batch means its samples' results side by side: the controller decides for each sample. A single sample is shared
    by the threads where the engine can do that.
    """
    if engine_name == "jit":
        check_codes(plan, codes)
        yield from _jit_batch(plan, codes, threads)
        return
    execute = engine(plan, engine_name)
    samples = [codes[index : index + 1] for index in range(len(codes))]
    if threads <= 1 or len(samples) == 1:
        for sample in samples:
            yield execute(sample, ())
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda sample: execute(sample, ()), samples)


def traced(plan: Plan, sample: Array, by: "str | Execute") -> tuple[Result, dict[str, Array]]:
    """Return the result of one sample and all its tensors by name: input, bits, every node's output, accumulators."""
    trace = Trace()
    result = (engine(plan, by) if isinstance(by, str) else by)(sample, [trace])
    tensors = {plan.graph.input.name: sample, **trace.tensors}
    if BITS in plan.graph.initializers:
        tensors[BITS] = plan.graph.initializers[BITS]
    return result, tensors


def check_codes(plan: Plan, codes: Array) -> None:
    """Raise InputError unless `codes` are samples for the plan's input."""
    expected = plan.graph.input
    top = (1 << plan.machine.n) - 1
    if codes.dtype != np.uint8 or codes.shape[1:] != expected.shape[1:]:
        raise InputError(
            f"the model takes codes of dtype uint8 and shape (N, {', '.join(map(str, expected.shape[1:]))}); "
            f"found {codes.dtype} {codes.shape}."
        )
    if top < 255 and codes.size and int(codes.max()) > top:
        raise InputError(f"the model takes codes of {plan.machine.n} bits, 0 to {top}; found {int(codes.max())}.")


def _execute(plan: Plan, codes: Array, observers: Sequence[Observer], *, by_law: bool) -> Result:
    values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
    flags: dict[str, Flags | None] = {}
    for step in plan.steps:
        function = step.operator.spec if by_law else step.operator.kernel
        outcome = function(step.call, step.node.operands_in(values))
        values[step.node.outputs[0]] = outcome.output
        if outcome.flags is not None:
            flags[step.node.name] = outcome.flags
        for observer in observers:
            observer(step, outcome)
    return summarize(plan, values, flags)


def summarize(plan: Plan, values: Mapping[str, Array], flags: Mapping[str, Flags | None]) -> Result:
    """Return the result of a run whose tensors are `values`; those of the widths must be among them.

    Raises ModelError where a layer ran at widths that were not planned: then the values mean nothing.
    """
    pairs: dict[str, Widths] = {}
    for step in plan.layer_steps():
        b_w, b_a = values[step.node.operand("widths")].tolist()
        pairs[step.node.name] = (b_w, b_a)
        if (b_w, b_a) not in step.call.bounds:
            refuse_widths(step.node, (b_w, b_a))
    outputs = {value.name: values[value.name] for value in plan.graph.outputs if value.name != BITS}
    bits = tuple(map(pairs.__getitem__, plan.graph.layers))
    bitops = sum([count * pairs[name][0] * pairs[name][1] for name, count in plan.macs.items()])
    return Result(outputs, bits, flags, plan.total_macs, bitops)
