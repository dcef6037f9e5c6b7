"""The contenders of a benchmark: dqtsim's own engine, onnxruntime in int8 and in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.registry import engine, run
from ..engines.result import Result
from ..errors import InputError
from ..graph.model import Array
from ..planner import Plan
from .measure import Contender, interleave
from .plain import Float
from .qlinear import FORMS

if TYPE_CHECKING:
    import onnx

AGAINST = ("onnxruntime", "float")
# trial runs of every int8 form, before the fastest takes part
TRIALS = 5


@dataclass(frozen=True)
class Reference:
    """The results of the engine numba, which shares no kernel with `native`, for every picture, one at a time."""

    results: tuple[Result, ...]

    def same(self, found: Sequence[Result]) -> bool:
        """Return whether `found` is bit for bit the same: outputs, widths, flags."""
        return len(found) == len(self.results) and all(map(_equal, self.results, found))

    def classes(self) -> list[int]:
        """Return the class of every picture."""
        return [-1 if result.class_index is None else result.class_index for result in self.results]

    def agreeing(self, other: "Reference") -> int | None:
        """Return the number of pictures for which `other` finds the same class, or None without classes."""
        if other.results[0].class_index is None:
            return None
        return sum(map(int.__eq__, self.classes(), other.classes()))


def _equal(a: Result, b: Result) -> bool:
    outputs = a.outputs.keys() == b.outputs.keys() and all(
        array.dtype == b.outputs[name].dtype and np.array_equal(array, b.outputs[name])
        for name, array in a.outputs.items()
    )
    return outputs and (a.bits, a.flags, a.macs, a.bitops) == (b.bits, b.flags, b.macs, b.bitops)


def reference(plan: Plan, codes: Array) -> Reference:
    """Return the results that every run of `ours` must give for `codes` uint8 (N, ...)."""
    execute = engine(plan, "numba")
    return Reference(tuple(execute(codes[index : index + 1], ()) for index in range(len(codes))))


def ours(plan: Plan, codes: Array, threads: int) -> Callable[[], list[Result]]:
    """Return dqtsim's own run of a batch."""
    return lambda: list(run(plan, codes, threads=threads))


@dataclass(frozen=True)
class Rival:
    """The same network in another runtime. form: how it is written. run: gives logits, or None without any."""

    form: str
    run: Callable[[], Array | None]

    def agreeing(self, expected: Reference) -> int | None:
        """Return the number of pictures for which it finds the same class, or None without logits."""
        logits = self.run()
        return None if logits is None else int(np.sum(logits.argmax(-1) == np.array(expected.classes())))


def require_onnxruntime(name: str) -> None:
    """Raise InputError unless onnxruntime can be imported for the contender `name`."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError(
            f'--against {name} needs the package onnxruntime; install it with pip install "dqtsim[oracle]".'
        ) from None


def fastest_int8(plan: Plan, codes: Array, threads: int) -> Rival:
    """Return the network in int8, in the fastest of its four forms: QLinear or QDQ, int8 or uint8 weights."""
    rivals = []
    for name, form in FORMS.items():
        for signed in (True, False):
            model = form(plan, len(codes), signed_weights=signed).model()
            rivals.append(Rival(f"{name}, {'int8' if signed else 'uint8'} weights", _session(model, codes, threads)))
    timings = interleave([Contender(rival.form, rival.run) for rival in rivals], TRIALS)
    return min(zip(rivals, timings, strict=True), key=lambda pair: pair[1].median)[0]


def float32(plan: Plan, codes: Array, threads: int) -> Rival:
    """Return the network in float32."""
    zero_point = plan.graph.quantization[plan.graph.input.name].zero_point
    values = codes.astype(np.float32) - np.float32(zero_point)
    return Rival("float32", _session(Float(plan, len(codes)).model(), values, threads))


def _session(model: "onnx.ModelProto", inputs: Array, threads: int) -> Callable[[], Array | None]:
    """Return a function that runs `model` in onnxruntime, with the fastest settings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # its idle threads would otherwise spin between its runs and take cores from the others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {model.graph.input[0].name: inputs}
    names = [value.name for value in model.graph.output]

    def execute() -> Array | None:
        given: list[Any] = session.run(names, feed)
        # the logits are the first output that is neither codes nor chosen widths
        return next((array for array in given if array.dtype == np.float32 and array.ndim == 2), None)

    return execute
