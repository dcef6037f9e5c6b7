"""The state of lowering: facts about the plan, and the operations, buffers and constants so far."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....graph.model import Array
from ....planner import Plan, Step
from ..isa.base import Isa
from ..memory import NOWHERE, SLACK, Address, Constants, Flat, Life, Place, Planes, Spot, Word, allocate
from ..operations import words_of
from ..program import Fallback, Operation, Program, Report

# a buffer that is needed after the last operation
END = 1 << 30


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is not stored: the offset int64 of each of its elements, of `size` bytes, from `start`."""

    start: Address
    offsets: Array
    size: int


class Known:
    """The facts about a plan so far, read-only: handlers decide from them whether a step has a native form.

    places: of the tensors so far. constants: tensors that are the same for all samples. uses: the readers of a tensor.
    made_by: the step that gives it.
    keep: every tensor and accumulator is kept, and nothing is fused.
    """

    def __init__(self, plan: Plan, isa: Isa, *, keep: bool) -> None:
        self.plan, self.isa, self.keep = plan, isa, keep
        self._places: dict[str, Place] = {}
        self._folded: dict[str, Array] = {}
        self._views: dict[str, View] = {}
        self.uses: dict[str, list[Step]] = {}
        self.made_by = {step.node.outputs[0]: step for step in plan.steps}
        for step in plan.steps:
            for name in step.node.inputs:
                self.uses.setdefault(name, []).append(step)
        self.outputs = {value.name for value in plan.graph.outputs}

    @property
    def places(self) -> Mapping[str, Place]:
        """Return the place of each tensor."""
        return self._places

    @property
    def views(self) -> Mapping[str, View]:
        """Return the tensors that only moves read, and that are not stored."""
        return self._views

    def constant(self, name: str) -> Array | None:
        """Return a constant tensor, or None."""
        found = self._folded.get(name)
        return self.plan.graph.initializers.get(name) if found is None else found

    def known(self, name: str) -> Array:
        """Return a tensor that must be constant."""
        found = self.constant(name)
        assert found is not None, name
        return found

    def exists(self, name: str) -> bool:
        """Return whether a tensor has a place or is constant."""
        return name in self._places or self.constant(name) is not None

    def planes(self, name: str) -> Planes | None:
        """Return the place of a picture of codes."""
        place = self._places.get(name)
        return place if isinstance(place, Planes) else None

    def operand(self, step: Step, role: str) -> Array:
        """Return the input of a step in `role`, which must be constant."""
        return self.known(step.node.operand(role))

    def scalar(self, step: Step, role: str) -> int:
        """Return the input of a step in `role`, which must be a constant scalar."""
        return int(self.operand(step, role))

    def scalars(self, step: Step, *roles: str) -> tuple[int, ...]:
        """Return the inputs of a step in these roles, which must be constant scalars."""
        return tuple(self.scalar(step, role) for role in roles)

    def operands(self, step: Step) -> dict[str, Array]:
        """Return the constant inputs of a step by role."""
        found = {role: self.constant(name) for role, name in step.node.operands.items()}
        return {role: array for role, array in found.items() if array is not None}


class Lowering(Known):
    """A program that is being made."""

    def __init__(self, plan: Plan, isa: Isa, *, keep: bool) -> None:
        super().__init__(plan, isa, keep=keep)
        self.memory = Constants()
        self.lives: list[Life] = []
        self.operations: list[Operation | Fallback] = []
        self.flags: dict[str, Flat] = {}
        self.overflow_counts: dict[str, Flat] = {}
        # the place where an operation without a variant writes layer and widths
        self.refused: Spot | None = None
        self.sums: dict[str, Flat] = {}
        self.fused: set[str] = set()
        self.alone = 0
        self.borders = borders(plan)
        # the step whose operations are being made
        self.step = ""

    @property
    def now(self) -> int:
        """Return the number of the operation that is being made."""
        return len(self.operations)

    def room(self, size: int, *, last: int = 0) -> Spot:
        """Return a new buffer, alive from now on, at least until operation `last`."""
        self.lives.append(Life(size, self.now, max(self.now, last)))
        return Spot(len(self.lives) - 1)

    def enlarge(self, address: Address | None, size: int) -> None:
        """Enlarge a buffer to at least `size` bytes from an address on."""
        if isinstance(address, Spot):
            life = self.lives[address.buffer]
            life.size = max(life.size, address.offset + size)

    def touch(self, word: Word) -> None:
        """Note that the operation that is being made uses a place."""
        if isinstance(word, Spot):
            self.lives[word.buffer].used(self.now)

    def add(self, function: str, chunks: int = 1, **words: Word) -> None:
        """Append a native operation. Exactly its fields must be given."""
        names = words_of(function)
        if set(words) != set(names):
            raise ValueError(f"words {sorted(set(words) ^ set(names))} of {function} are missing or unknown")
        for word in words.values():
            self.touch(word)
        self.operations.append(Operation(self.step, function, {name: words[name] for name in names}, chunks))

    def fallback(self, step: Step) -> None:
        """Append a step that runs on its fallback kernel."""
        for name in step.node.inputs:
            if name in self.places:
                self.touch(self.places[name].start)
        output = step.node.outputs[0]
        self.touch(self.new_place(output).start)
        self.operations.append(Fallback(step.node.name, tuple(step.node.inputs), output))

    def fold(self, name: str, array: Array) -> None:
        """Record a tensor that depends on constants only."""
        self._folded[name] = array

    def see(self, name: str, view: View) -> None:
        """Record a tensor that is not stored."""
        self._views[name] = view

    def put(self, name: str, place: Place) -> None:
        """Record the place of a tensor."""
        self._places[name] = place

    def place_of(self, name: str) -> Place:
        """Return the place of a tensor; a constant is added to the program's constants."""
        if name in self.places:
            return self.places[name]
        array = self.known(name)
        return Flat(self.memory.add(array), array.dtype.name, array.shape)

    def new_planes(self, name: str) -> Planes:
        """Return a place for the tensor `name` of shape (1, C, H, W), with the border that its consumers need."""
        _, channels, height, width = self.plan.types[name].shape
        border = self.borders.get(name, (0, 0, 0, 0))
        place = Planes(NOWHERE, channels, height, width, border)
        made = Planes(self.room(place.size), channels, height, width, border)
        self.put(name, made)
        return made

    def new_flat(self, name: str) -> Flat:
        """Return a contiguous place for the tensor `name`."""
        kind = self.plan.types[name]
        size = Flat(NOWHERE, kind.dtype, kind.shape).size
        made = Flat(self.room(size), kind.dtype, kind.shape)
        self.put(name, made)
        return made

    def new_place(self, name: str) -> Place:
        """Return a place for an output: planes for pictures of codes, else contiguous."""
        kind = self.plan.types[name]
        planes = kind.dtype == "uint8" and len(kind.shape) == 4 and kind.shape[0] == 1
        return self.new_planes(name) if planes else self.new_flat(name)

    def keep_to_the_end(self, name: str) -> None:
        """Extend the life of a tensor, if it has a place, to the current operation."""
        if name in self.places:
            self.touch(self.places[name].start)

    def program(self, report: Report) -> Program:
        """Return the finished program."""
        last = len(self.operations)
        for life in self.lives:
            life.last = min(life.last, last)
        buffers, arena_bytes = allocate(self.lives)
        return Program(
            graph=self.plan.graph.name,
            isa=self.isa.name,
            rounding=self.plan.machine.rounding,
            keep=self.keep,
            sample=(1, *self.plan.graph.input.shape[1:]),
            operations=tuple(self.operations),
            buffers=buffers,
            arena_bytes=arena_bytes + SLACK,
            constants=tuple(self.memory.pieces),
            places=dict(self.places),
            folded=dict(self._folded),
            flags=self.flags,
            overflow_counts=self.overflow_counts,
            sums=self.sums,
            report=report,
            fused=frozenset(self.fused),
            alone=self.alone,
        )


# the result of a handler: a function that emits the step, or None if the step has no native form
Emit = Callable[[Lowering], None]
Handler = Callable[[Known, Step], Emit | None]


def borders(plan: Plan) -> dict[str, tuple[int, int, int, int]]:
    """Return for each tensor the widest pads of the convolutions that read it."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for step in plan.steps:
        if step.node.operator == "NestedConv":
            name, pads = step.node.operand("x"), step.node.integers("pads")
            old = found.get(name, (0, 0, 0, 0))
            found[name] = (
                max(old[0], pads[0]), max(old[1], pads[1]), max(old[2], pads[2]), max(old[3], pads[3])
            )  # fmt: skip
    return found


def spread(total: int, *, at_most: int, least: int = 1) -> int:
    """Return the number of chunks for `total` units of work."""
    return max(1, min(at_most, total // max(1, least)))
