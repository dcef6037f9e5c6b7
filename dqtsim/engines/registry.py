"""EXECUTE: a plan, an engine and a picture give tensors and a status. The registry decides nothing.

Engines: `spec` is the law itself on Python ints, `native` native code for the whole network, `numba` the Numba kernels
step by step, `onnxruntime` the file's own function bodies, `torch` the trainer's exact integer path.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.model import BITS, Array
from ..planner import Plan
from .names import DEFAULT, full_name
from .result import Execute, Observer, Result, Trace

Batch = Callable[[Plan, Array, int], Iterator[Result]]


@dataclass(frozen=True)
class Entry:
    """An engine's module in this package, its function Plan -> Execute, and its function for batches, if it has one.

    Modules are imported when an engine is used, because some need packages that are extras.
    """

    module: str
    one: str
    batch: str = ""


ENGINES: Mapping[str, Entry] = {
    "native": Entry(".native.run.results", "native_engine", "native_batch"),
    "numba": Entry(".numba.table", "numba_engine"),
    "spec": Entry(".law", "law_engine"),
    "onnxruntime": Entry(".onnxruntime", "onnxruntime_engine"),
    "torch": Entry(".torch", "torch_engine"),
}


def engine(plan: Plan, name: str = DEFAULT) -> Execute:
    """Return the function that executes one sample of `plan`: (codes (1, ...), observers) -> Result.

    Raises InputError for an unknown name, and the engine's own error for a plan that it cannot run.
    """
    make: Callable[[Plan], Execute] = _function(name, "one")
    execute = make(plan)

    def checked(codes: Array, observers: Sequence[Observer]) -> Result:
        check_codes(plan, codes)
        if len(codes) != 1:
            raise InputError(f"an engine executes one sample at a time; found {len(codes)}.")
        return execute(codes, observers)

    return checked


def run(plan: Plan, codes: Array, engine_name: str = DEFAULT, threads: int = 1) -> Iterator[Result]:
    """Yield the result of every sample of `codes` uint8 (N, ...), in order; `threads` samples run side by side.

    Samples of a batch are independent: the controller decides for each sample. A single sample is shared by the threads
    if the engine supports this.
    """
    batch: Batch | None = _function(engine_name, "batch")
    if batch is not None:
        check_codes(plan, codes)
        yield from batch(plan, codes, threads)
        return
    execute = engine(plan, engine_name)
    samples = [codes[index : index + 1] for index in range(len(codes))]
    if threads <= 1 or len(samples) == 1:
        for sample in samples:
            yield execute(sample, ())
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda sample: execute(sample, ()), samples)


@cache
def _function(name: str, which: str) -> Any:
    """Return one of an engine's functions, None if it has none; cached, because imports take time."""
    entry = ENGINES.get(full_name(name))
    if entry is None:
        raise InputError(f"an engine is one of {', '.join(ENGINES)}; found '{name}'.")
    function = entry.batch if which == "batch" else entry.one
    return getattr(import_module(entry.module, __package__), function) if function else None


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
