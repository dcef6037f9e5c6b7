"""Nesting of a layer's input, and the variants of a layer that an operation serves (A1-A5)."""

from collections.abc import Mapping

import numpy as np

from ....graph.model import Widths
from ....numbers import of_nesting
from ....planner import Step
from ..emit.choice import WIDTHS
from ..memory import Address, Planes, Word
from ..proofs.activations import Activations, activations_of
from ..proofs.variants import Variants, choices
from .state import Lowering, spread


def choose(state: Lowering, step: Step, variants: Mapping[Widths, object]) -> dict[str, Word]:
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
    activations = activations_of(step, state.operands(step))
    narrow = any(b_a != machine.n for _, b_a in variants)
    target = state.room(place.size) if narrow else None
    if narrow or padded:
        top, left, bottom, right = place.border
        plain = activations.plain
        state.add(
            "nest" if plain else "window_nest",
            spread(place.height * place.width * place.channels, at_most=8, least=1 << 16),
            **choose(state, step, variants),
            n=machine.n,
            rule=of_nesting(machine.activation_rule),
            zero=activations.zero,
            **place.words(),
            target=target,
            step=place.step,
            top=top,
            left=left,
            bottom=bottom,
            right=right,
            direct=1,
            **({} if plain else _windows(state, activations, place)),
        )
    return target


def _windows(state: Lowering, activations: Activations, place: Planes) -> dict[str, Word]:
    """Return the fields of nesting through windows: j of every width, and, if there is a border, a pixel of it."""
    windows = np.zeros(WIDTHS, np.int64)
    border = np.zeros((WIDTHS, place.step), np.uint8)
    for b in range(1, activations.n + 1):
        windows[b] = activations.windows[b]
        border[b, : place.channels] = activations.border(b)
    return {"windows": state.memory.add(windows), "border": state.memory.add(border) if any(place.border) else None}
