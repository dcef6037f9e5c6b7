"""The engine `torch`: the trainer's exact integer path executes the nodes of the model.

Nothing of dqtsim's own arithmetic takes part. Accumulators are unbounded and the rounding is the model's own, so a plan
that asks for anything else is refused instead of giving other bits.
"""

from collections.abc import Sequence

from ..errors import InputError
from ..graph.model import Array, Node, Widths
from ..ops import Outcome, refuse_widths
from ..planner import Plan
from ..spec.mac import Flags
from .result import Execute, Observer, Result, summarize
from .unbounded import refuse_narrowing


def torch_engine(plan: Plan) -> Execute:
    """Return the engine for `plan`. Raises TargetError if the trainer's path cannot give the target's bits."""
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
