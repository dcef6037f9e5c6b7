"""The independent oracles: engines in which nothing of dqtsim's own arithmetic takes part.

`onnxruntime`: the stock runtime executes the function bodies that the model file carries. `torch`: the trainer's exact
integer path executes the file's nodes. Both have unbounded accumulators and the model's own rounding, so they refuse a
plan that asks for anything else instead of giving other bits.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import InputError, TargetError
from ..graph import to_onnx
from ..graph.model import Array, Node, Widths
from ..ops import Outcome, refuse_widths
from ..planner import Plan
from ..spec.mac import Flags
from .registry import Execute, Observer, Result, summarize


def onnxruntime_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`. Raises TargetError where onnxruntime cannot give the target's bits."""
    refuse_narrowing(plan, "onnxruntime runs the file's bodies, which", 32)
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            'the engine onnxruntime needs the package of that name; install it with pip install "dqtsim[oracle]".'
        ) from None
    from onnx import helper

    model = to_onnx(plan.graph)
    outputs = {value.name for value in model.graph.output}
    for step in plan.steps:
        name = step.node.outputs[0]
        if name not in outputs:
            dtype = helper.np_dtype_to_tensor_dtype(np.dtype(step.call.type.dtype))
            model.graph.output.append(helper.make_tensor_value_info(name, dtype, step.call.type.shape))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # no rewriting: what runs is what the file says
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [step.node.outputs[0] for step in plan.steps]

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        values: dict[str, Array] = dict(plan.graph.initializers)
        values |= dict(zip(names, session.run(names, {plan.graph.input.name: codes}), strict=True))
        # before anyone sees a value: the bodies compute at any widths
        result = summarize(plan, values, {step.node.name: None for step in plan.layer_steps()})
        for step in plan.steps:
            for observer in observers:
                observer(step, Outcome(values[step.node.outputs[0]]))
        return result

    return execute


def torch_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`. Raises TargetError where the trainer's path cannot give the target's bits."""
    refuse_narrowing(plan, "torch runs the trainer's path, which", 53)
    try:
        from ..train.exact import run_graph
    except ImportError:
        raise InputError('the engine torch needs PyTorch; install it with pip install "dqtsim[train]".') from None

    planned = {step.node.name: step.call.bounds for step in plan.layer_steps()}

    def allow(node: Node, pair: Widths) -> None:
        if pair not in planned[node.name]:
            refuse_widths(node, pair)

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        values = {**plan.graph.initializers, **run_graph(plan.graph, codes, allow)}
        flags: dict[str, Flags | None] = {}
        for step in plan.steps:
            accumulator = values.get(f"{step.node.name}.acc")
            if accumulator is not None:
                flags[step.node.name] = Flags(0, 0, min(0, int(accumulator.min())), max(0, int(accumulator.max())))
            for observer in observers:
                observer(step, Outcome(values[step.node.outputs[0]], accumulator))
        return summarize(plan, values, flags)

    return execute


def refuse_narrowing(plan: Plan, subject: str, exact: int) -> None:
    """Raise TargetError unless an unbounded accumulator gives the bits of the plan's target.

    `subject` begins the sentence; `exact` is the width in bits in which the engine itself adds.
    """
    graph, machine = plan.graph, plan.machine
    if machine.rounding != graph.arithmetic.rounding:
        raise TargetError(
            f"{subject} round {graph.arithmetic.rounding}; target '{machine.target}' rounds {machine.rounding}."
        )
    for step in plan.layer_steps():
        name = step.node.name
        for pair, bound in step.call.bounds.items():
            if bound.unproven(min(machine.accumulator_width, exact)).size:
                raise TargetError(
                    f"{subject} never overflow; layer '{name}' at widths {pair} may "
                    f"need {bound.bits} bits, and target '{machine.target}' has {machine.accumulator_width}."
                )
        if plan.saturated_biases[name]:
            raise TargetError(
                f"{subject} never saturate; layer '{name}' has "
                f"{plan.saturated_biases[name]} biases outside the {machine.bias_width}-bit bias register of target "
                f"'{machine.target}'."
            )
