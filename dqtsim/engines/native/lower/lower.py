"""From a plan to a program: which operations compute each step."""

from collections.abc import Mapping

from ....planner import Plan
from ..fallback import compute
from ..isa.base import Isa
from ..memory import Planes
from ..program import Program
from . import conv, dense, elementwise, moves, pools
from .report import place_flags, report, widths_asked
from .state import Handler, Lowering

# each checks without side effects whether a step has a native form, and returns the function that emits it; its file
# says for which operators
HANDLERS: Mapping[str, Handler] = {
    **conv.HANDLERS,
    **dense.HANDLERS,
    **elementwise.HANDLERS,
    **pools.HANDLERS,
    **moves.HANDLERS,
}


def lower(plan: Plan, isa: Isa, *, keep: bool = False) -> Program:
    """Return `plan` as a program for the instruction set `isa`, whether or not this CPU has it."""
    state = Lowering(plan, isa, keep=keep)
    place_flags(state)
    _picture(state, plan.graph.input.name)
    for step in plan.steps:
        name = step.node.outputs[0]
        if name in state.fused:
            continue
        constants = state.operands(step)
        if len(constants) == len(step.node.inputs):
            state.fold(name, compute(step, constants).output)
            continue
        state.step = step.node.name
        handler = HANDLERS.get(step.node.operator)
        emit = handler(state, step) if handler else None
        if emit is None:
            state.fallback(step)
        else:
            emit(state)
    state.step = ""
    told = report(state)
    for name in [*state.places] if keep else state.outputs | {"bits"} | widths_asked(plan):
        state.keep_to_the_end(name)
    return state.program(told)


def _picture(state: Lowering, name: str) -> None:
    """Make a place for the input; an operation copies pictures of codes into it."""
    place = state.new_place(name)
    if isinstance(place, Planes):
        state.add(
            "picture",
            # the address of the sample, which is known only at run time
            source=None,
            channels=place.channels,
            height=place.height,
            width=place.width,
            target=place.origin,
            target_row=place.row,
            step=place.step,
        )
