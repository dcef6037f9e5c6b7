"""Nesting of a layer's input, and the variants of a layer that an operation serves (A1-A5)."""

from ....numbers import of_nesting
from ....planner import Step
from ..memory import Address, Planes, Word
from ..proofs.variants import Variants, choices
from .state import Lowering, spread


def choose(state: Lowering, step: Step, variants: Variants) -> dict[str, Word]:
    """Return the fields CHOICE of an operation of a layer that serves the widths in `variants`."""
    return {
        "widths": state.place_of(step.node.operand("widths")).start,
        "choice": state.memory.add(choices(step.call.bounds, variants)),
        "refused": state.refused,
        "layer": 1 + list(state.flags).index(step.node.name),
    }


def nest(state: Lowering, step: Step, place: Planes, variants: Variants, *, padded: bool) -> Address | None:
    """Append the nesting of an input if widths in `variants` need it; return the place of the copy, if any."""
    machine = step.call.machine
    narrow = any(b_a != machine.n for _, b_a in variants)
    target = state.room(place.size) if narrow else None
    if narrow or padded:
        top, left, bottom, right = place.border
        state.add(
            "nest",
            spread(place.height * place.width * place.channels, at_most=8, least=1 << 16),
            **choose(state, step, variants),
            n=machine.n,
            rule=of_nesting(machine.activation_rule),
            zero=state.scalar(step, "x_zero_point"),
            **place.words(),
            target=target,
            step=place.step,
            top=top,
            left=left,
            bottom=bottom,
            right=right,
            direct=1,
        )
    return target
