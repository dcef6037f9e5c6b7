"""The report of every sample: extremes, overflow counts, outputs and widths, in one piece of memory."""

from collections.abc import Sequence

from ....planner import Plan
from ..emit.choice import REFUSED
from ..memory import Address, Flat, Place, Spot, rounded
from ..program import Report
from ..proofs.variants import can_overflow, is_native
from .moves import copy, put_in_order
from .state import END, Lowering


def place_flags(state: Lowering) -> None:
    """Give every layer two int32, and an overflow count if it needs one, then REFUSED; clear them all first."""
    steps = state.plan.layer_steps()
    if not steps:
        return
    counted = [step.node.name for step in steps if can_overflow(step) and is_native(step)]
    size = 8 * (len(steps) + len(counted) + len(REFUSED))
    whole = state.room(size, last=END)
    for number, step in enumerate(steps):
        state.flags[step.node.name] = Flat(whole + 8 * number, "int32", (2,))
    for number, layer in enumerate(counted, len(steps)):
        state.overflow_counts[layer] = Flat(whole + 8 * number, "int64", (1,))
    state.refused = whole + 8 * (len(steps) + len(counted))
    state.add("clear", target=whole, bytes=size)


def report(state: Lowering) -> Report:
    """Copy the report of a sample to one piece of memory."""
    widths = [name for name in widths_asked(state.plan) if name in state.places]
    # each is two int64, so they follow each other without gaps; in the order of memory, so that few copies are needed
    widths.sort(key=lambda name: (_position(state.places[name]), name))
    asked = sorted(state.outputs & state.places.keys() - set(widths)) + widths
    flags, counted = list(state.flags), list(state.overflow_counts)
    sizes = [8 * (len(flags) + len(counted) + len(REFUSED)) if flags else 0]
    flat = {name: put_in_order(state, name) for name in asked}
    sizes += [rounded(place.size, 8) for place in flat.values()]
    start = state.room(sum(sizes), last=END)
    pieces: list[tuple[Address, int, int]] = [(state.flags[flags[0]].start, 0, sizes[0])] if flags else []
    at = sizes[0]
    tensors = {}
    for (name, place), size in zip(flat.items(), sizes[1:], strict=True):
        pieces.append((place.start, at, place.size))
        tensors[name] = (at, place)
        at += size
    for source, at, size in joined(pieces):
        copy(state, (source, 0, 0), (start + at, 0, 0), 1, 1, size)
    return Report(start, sum(sizes), tensors, tuple(flags), tuple(counted), tuple(widths))


def joined(pieces: Sequence[tuple[Address, int, int]]) -> list[tuple[Address, int, int]]:
    """Return pieces (source, target offset, bytes); pieces that follow each other in source and target are merged."""
    found: list[tuple[Address, int, int]] = []
    for source, at, size in pieces:
        if found:
            before, begin, length = found[-1]
            if before + length == source and begin + length == at:
                found[-1] = (before, begin, length + size)
                continue
        found.append((source, at, size))
    return found


def widths_asked(plan: Plan) -> set[str]:
    """Return the tensors that hold the widths of the layers."""
    return {step.node.operand("widths") for step in plan.layer_steps()}


def _position(place: Place) -> tuple[int, int, int]:
    """Return the position of a place, for sorting: constants come first."""
    start = place.start
    return (1, start.buffer, start.offset) if isinstance(start, Spot) else (0, start.number, start.offset)
