"""The engine `onnxruntime`: the stock runtime executes the function bodies that the model file carries.

Nothing of dqtsim's own arithmetic takes part. Accumulators are unbounded and the rounding is the model's own, so a plan
that asks for anything else is refused instead of giving other bits.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..graph import to_onnx
from ..graph.model import Array
from ..ops import Outcome
from ..planner import Plan
from .result import Execute, Observer, Result, summarize
from .unbounded import refuse_narrowing


def onnxruntime_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`. Raises TargetError if onnxruntime cannot give the target's bits."""
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
    # no graph optimization: the bodies of the file run as they are
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [step.node.outputs[0] for step in plan.steps]

    def execute(codes: Array, observers: Sequence[Observer]) -> Result:
        values: dict[str, Array] = {**plan.graph.initializers, plan.graph.input.name: codes}
        values |= dict(zip(names, session.run(names, {plan.graph.input.name: codes}), strict=True))
        # before any value is shown: the bodies would compute at any widths
        result = summarize(plan, values, {step.node.name: None for step in plan.layer_steps()})
        for step in plan.steps:
            for observer in observers:
                observer(step, Outcome(values[step.node.outputs[0]]))
        return result

    return execute
