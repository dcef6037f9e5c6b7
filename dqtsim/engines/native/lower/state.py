"""From a plan to operations: what runs natively, where its tensors lie, and what is left to the ordinary kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ....graph.model import Array, Widths
from ....planner import Plan, Step
from ..emit.choice import REFUSED
from ..fallback import compute
from ..ir import Record
from ..isa.base import Isa
from ..memory import Address, Buffer, Constants, Flat, Place, Planes, Spot, rounded

Words = Mapping[str, Address]


@dataclass(frozen=True)
class Native:
    """One operation of the step called `step`: its function by name and address, its record, words and chunks.

    Operations that belong to no step, such as the clearing of flags, have the name "".
    """

    step: str
    name: str
    function: int
    record: Record
    words: Words
    chunks: int


@dataclass(frozen=True)
class Ordinary:
    """A step that has no native form here: its kernel runs on copies of its inputs."""

    step: Step
    flags: bool


@dataclass(frozen=True)
class Report:
    """What is asked of every sample, in one piece.

    Two int32 extremes of each of `layers`; for each of `counted`, whose sums may leave their registers, an int64, how
    many did; if there are layers, REFUSED; then tensors at their offsets, those of widths, `chosen`, at the end.
    """

    start: Spot
    size: int
    tensors: Mapping[str, tuple[int, Flat]]
    layers: tuple[str, ...]
    counted: tuple[str, ...]
    chosen: tuple[str, ...]

    def widths(self, reports: Array) -> Array:
        """Return int64 (N, 2 * chosen) of reports uint8 (N, bytes)."""
        return reports[:, self.size - 16 * len(self.chosen) :].view(np.int64)

    def events(self, reports: Array) -> Array:
        """Return int64 (N, counted) of reports uint8 (N, bytes)."""
        begin = 8 * len(self.layers)
        return np.ascontiguousarray(reports[:, begin : begin + 8 * len(self.counted)]).view(np.int64)

    def refused(self, reports: Array) -> tuple[str, Widths] | None:
        """Return the layer and the widths of the first of reports uint8 (N, bytes) in which no variant was found."""
        begin = 8 * (len(self.layers) + len(self.counted))
        words = reports[:, begin : begin + 8 * len(REFUSED)]
        if not self.layers or not np.count_nonzero(words):
            return None
        layer, b_w, b_a = next(line for line in np.ascontiguousarray(words).view(np.int64).tolist() if line[0])
        return self.layers[layer - 1], (b_w, b_a)


@dataclass
class Lowered:
    """A plan as operations.

    places: where each tensor lies in the arena; constants: those known beforehand. flags: of the layers that run
    natively, where their extremes lie. events: where it is counted how many sums did not fit. refused: where REFUSED
    lies. sums: accumulators by layer, if they are kept. alone: the operations up to the last layer whose weights are
    fewer bytes than what it reads and writes; samples of a batch gain nothing from doing these together.
    """

    plan: Plan
    operations: list[Native | Ordinary] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    flags: dict[str, Flat] = field(default_factory=dict)
    events: dict[str, Flat] = field(default_factory=dict)
    refused: Spot | int = 0
    sums: dict[str, Flat] = field(default_factory=dict)
    report: Report = field(init=False)
    memory: Constants = field(default_factory=Constants)
    fused: set[str] = field(default_factory=set)
    alone: int = 0


class Lowering:
    """State while a plan is lowered: `keep` keeps every tensor and accumulator and fuses nothing."""

    def __init__(self, plan: Plan, isa: Isa, functions: Mapping[str, int], *, keep: bool) -> None:
        self.plan, self.isa, self.functions, self.keep = plan, isa, functions, keep
        self.out = Lowered(plan)
        self.out.constants |= plan.graph.initializers
        self.uses: dict[str, list[Step]] = {}
        for step in plan.steps:
            for name in step.node.inputs:
                self.uses.setdefault(name, []).append(step)
        self.outputs = {value.name for value in plan.graph.outputs}
        self.borders = borders(plan)
        self.index = {step.node.outputs[0]: number for number, step in enumerate(plan.steps)}
        # whose operations are being made
        self.step = ""

    @property
    def now(self) -> int:
        """Return the number of the operation that is being made."""
        return len(self.out.operations)

    def buffer(self, size: int) -> Buffer:
        """Return a new buffer, alive from now on."""
        made = Buffer(size, self.now, self.now)
        self.out.buffers.append(made)
        return made

    def touch(self, address: Address) -> Address:
        """Note that the operation that is being made uses an address; return it."""
        if isinstance(address, Spot):
            address.buffer.used(self.now)
        return address

    def add(self, function: str, record: Record, chunks: int = 1, **words: Address) -> None:
        """Append a native operation."""
        for address in words.values():
            self.touch(address)
        self.out.operations.append(Native(self.step, function, self.functions[function], record, words, chunks))

    def planes(self, name: str) -> Planes:
        """Return a place for the tensor `name` of shape (1, C, H, W), with the border that its consumers want."""
        _, channels, height, width = self.plan.types[name].shape
        border = self.borders.get(name, (0, 0, 0, 0))
        place = Planes(0, channels, height, width, border)
        return Planes(Spot(self.buffer(place.size)), channels, height, width, border)

    def flat(self, name: str) -> Flat:
        """Return a contiguous place for the tensor `name`."""
        kind = self.plan.types[name]
        size = Flat(0, kind.dtype, kind.shape).size
        return Flat(Spot(self.buffer(size)), kind.dtype, kind.shape)

    def place_of(self, name: str) -> Place:
        """Return where a tensor lies; constants are put into memory."""
        if name in self.out.places:
            return self.out.places[name]
        array = self.out.constants[name]
        return Flat(self.out.memory.add(array), array.dtype.name, array.shape)

    def new_place(self, name: str) -> Place:
        """Return a place for an output: planes for pictures of codes, else contiguous."""
        kind = self.plan.types[name]
        planes = kind.dtype == "uint8" and len(kind.shape) == 4 and kind.shape[0] == 1
        place: Place = self.planes(name) if planes else self.flat(name)
        self.out.places[name] = place
        return place

    def ordinary(self, step: Step) -> None:
        """Leave a step to its ordinary kernel."""
        for name in step.node.inputs:
            if name in self.out.places:
                self.touch(self.out.places[name].start)
        self.touch(self.new_place(step.node.outputs[0]).start)
        self.out.operations.append(Ordinary(step, bool(step.call.bounds)))

    def table(self, words: Sequence[int]) -> int:
        """Return the address of a constant table of 64-bit words."""
        return self.out.memory.add(np.array(words, np.int64))

    def flags_of(self, layer: str) -> Flat:
        """Return the place of a layer's extremes."""
        return self.out.flags[layer]


Handler = Callable[[Lowering, Step], bool]


def borders(plan: Plan) -> dict[str, tuple[int, int, int, int]]:
    """Return for each tensor the widest pads of the convolutions that read it."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for step in plan.steps:
        if step.node.operator == "NestedConv":
            name, pads = step.node.inputs[0], step.node.integers("pads")
            old = found.get(name, (0, 0, 0, 0))
            found[name] = (
                max(old[0], pads[0]), max(old[1], pads[1]), max(old[2], pads[2]), max(old[3], pads[3])
            )  # fmt: skip
    return found


def lower(
    plan: Plan, isa: Isa, functions: Mapping[str, int], handlers: Mapping[str, Handler], *, keep: bool = False
) -> Lowered:
    """Return `plan` as operations for the instruction set `isa`, whose native functions are at `functions`.

    handlers: by operator, what makes its operations; it returns whether it could.
    """
    from ..emit.picture import PICTURE

    state = Lowering(plan, isa, functions, keep=keep)
    out = state.out
    _place_flags(state)
    source = plan.graph.input
    place = state.new_place(source.name)
    if isinstance(place, Planes):
        state.add(
            "picture",
            PICTURE,
            source=0,
            channels=place.channels,
            height=place.height,
            width=place.width,
            target=place.origin,
            target_row=place.row,
            step=place.step,
        )
    for step in plan.steps:
        name = step.node.outputs[0]
        if name in out.fused:
            continue
        if all(i in out.constants for i in step.node.inputs):
            inputs = step.node.operands_in(out.constants)
            out.constants[name] = compute(step, inputs).output
            continue
        state.step = step.node.name
        if not handlers.get(step.node.operator, _cannot)(state, step):
            state.ordinary(step)
    state.step = ""
    _report(state)
    for name in state.outputs | ({"bits"} & out.places.keys()):
        _keep_to_the_end(state, name)
    for name in widths_asked(plan):
        _keep_to_the_end(state, name)
    if keep:
        for name in out.places:
            _keep_to_the_end(state, name)
    return out


def _cannot(_state: Lowering, _step: Step) -> bool:
    return False


def _report(state: Lowering) -> None:
    """Copy what is asked of every sample to one piece of memory."""
    from .moves import copy, put_in_order

    widths = [name for name in widths_asked(state.plan) if name in state.out.places]
    # each two int64, so that they follow each other without gaps; in the order of memory, for few copies
    widths.sort(key=lambda name: (_position(state, state.out.places[name]), name))
    asked = sorted(state.outputs & state.out.places.keys() - set(widths)) + widths
    flags, counted = list(state.out.flags), list(state.out.events)
    sizes = [8 * (len(flags) + len(counted) + len(REFUSED)) if flags else 0]
    flat = {name: put_in_order(state, name) for name in asked}
    sizes += [rounded(place.size, 8) for place in flat.values()]
    start = Spot(state.buffer(sum(sizes)))
    start.buffer.last = 1 << 30
    pieces = [(state.out.flags[flags[0]].start, 0, sizes[0])] if flags else []
    at = sizes[0]
    tensors = {}
    for (name, place), size in zip(flat.items(), sizes[1:], strict=True):
        pieces.append((place.start, at, place.size))
        tensors[name] = (at, place)
        at += size
    for source, at, size in joined(pieces):
        copy(state, (source, 0, 0), (start + at, 0, 0), 1, 1, size)
    chosen = tuple(widths)
    state.out.report = Report(start, sum(sizes), tensors, tuple(flags), tuple(counted), chosen)


def joined(pieces: Sequence[tuple[Address, int, int]]) -> list[tuple[Address, int, int]]:
    """Return pieces (source, target offset, bytes) with those as one that follow each other in both."""
    found: list[tuple[Address, int, int]] = []
    for source, at, size in pieces:
        if found:
            before, begin, length = found[-1]
            if before + length == source and begin + length == at:
                found[-1] = (before, begin, length + size)
                continue
        found.append((source, at, size))
    return found


def _position(state: Lowering, place: Place) -> tuple[int, int]:
    """Return where a place lies, for sorting: its buffer's number and its offset there; constants come first."""
    start = place.start
    if isinstance(start, Spot):
        return state.out.buffers.index(start.buffer), start.offset
    return -1, start


def widths_asked(plan: Plan) -> set[str]:
    """Return the tensors that hold the widths of the layers."""
    return {step.node.inputs[-1] for step in plan.layer_steps()}


def _keep_to_the_end(state: Lowering, name: str) -> None:
    if name in state.out.places:
        state.touch(state.out.places[name].start)


def _place_flags(state: Lowering) -> None:
    """Give every layer its two int32, and its count where it needs one, then REFUSED; clear them all first."""
    from ..emit.clear import CLEAR
    from ..proofs.variants import can_overflow, is_native

    steps = state.plan.layer_steps()
    if not steps:
        return
    counted = [step.node.name for step in steps if can_overflow(step) and is_native(step)]
    whole = state.buffer(8 * (len(steps) + len(counted) + len(REFUSED)))
    whole.last = 1 << 30
    for number, step in enumerate(steps):
        state.out.flags[step.node.name] = Flat(Spot(whole, 8 * number), "int32", (2,))
    for number, layer in enumerate(counted, len(steps)):
        state.out.events[layer] = Flat(Spot(whole, 8 * number), "int64", (1,))
    state.out.refused = Spot(whole, 8 * (len(steps) + len(counted)))
    state.add("clear", CLEAR, target=Spot(whole), bytes=whole.size)


def spread(total: int, *, at_most: int, least: int = 1) -> int:
    """Return into how many chunks `total` units of work go."""
    return max(1, min(at_most, total // max(1, least)))
