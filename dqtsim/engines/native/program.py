"""A program: a plan as native operations, and the places of everything in memory.

It is a value. It contains nothing of this process, neither addresses nor the CPU, so it can be printed, compared,
pickled, checked, and loaded any number of times.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, assert_never

import numpy as np

from ...graph.model import Array, Widths
from ...spec.rules import Rounding
from .emit.choice import REFUSED
from .memory import (
    Buffer,
    Constant,
    Constants,
    Flat,
    Function,
    Piece,
    Place,
    Planes,
    Spot,
    Table,
    Word,
    constant_bytes,
)
from .operations import GIVEN, words_of


@dataclass(frozen=True)
class Operation:
    """One native operation of the step called `step`: its function, its fields by name, and its number of chunks.

    Operations that belong to no step, such as the clearing of flags, have the name "".
    """

    step: str
    function: str
    words: Mapping[str, Word]
    chunks: int


@dataclass(frozen=True)
class Fallback:
    """A step that has no native form here: its fallback kernel runs on copies of its inputs."""

    step: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Report:
    """The layout of the report of a sample, one piece of memory.

    Two int32 extremes for each of `layers`; an int64 overflow count for each of `counted`, whose sums may leave their
    registers; REFUSED, if there are layers; then tensors at their offsets, last the tensors of widths, `chosen`.
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

    def overflow_counts(self, reports: Array) -> Array:
        """Return int64 (N, counted) of reports uint8 (N, bytes)."""
        begin = 8 * len(self.layers)
        return np.ascontiguousarray(reports[:, begin : begin + 8 * len(self.counted)]).view(np.int64)

    def refused(self, reports: Array) -> tuple[str, Widths] | None:
        """Return layer and widths of the first of reports uint8 (N, bytes) in which a layer had no variant."""
        begin = 8 * (len(self.layers) + len(self.counted))
        words = reports[:, begin : begin + 8 * len(REFUSED)]
        if not self.layers or not np.count_nonzero(words):
            return None
        layer, b_w, b_a = next(line for line in np.ascontiguousarray(words).view(np.int64).tolist() if line[0])
        return self.layers[layer - 1], (b_w, b_a)


@dataclass(frozen=True, eq=False)
class Program:
    """A plan as operations for one instruction set; `keep`: every tensor and accumulator stays, nothing is fused.

    graph, isa: by name. sample: shape of the input (1, ...), uint8. buffers: of the arena, which has `arena_bytes`.
    places: of the tensors in the arena. folded: tensors that depend on constants only. flags: places of the extremes of
    the layers that run natively. overflow_counts: places of the overflow counts. sums: accumulators by layer, if they
    are kept. fused: additions that convolutions compute. alone: the number of operations up to the last layer whose
    weights are fewer bytes than its inputs and outputs; samples of a batch gain nothing from doing these together.
    """

    graph: str
    isa: str
    rounding: Rounding
    keep: bool
    sample: tuple[int, ...]
    operations: tuple[Operation | Fallback, ...]
    buffers: tuple[Buffer, ...]
    arena_bytes: int
    constants: tuple[Piece, ...]
    places: Mapping[str, Place]
    folded: Mapping[str, Array]
    flags: Mapping[str, Flat]
    overflow_counts: Mapping[str, Flat]
    sums: Mapping[str, Flat]
    report: Report
    fused: frozenset[str]
    alone: int

    @property
    def constant_bytes(self) -> int:
        """Return the bytes of all constants in memory."""
        return constant_bytes(self.constants)

    @property
    def segments(self) -> tuple[tuple[Operation, ...] | Fallback, ...]:
        """Return the operations; those that follow each other without a fallback are one segment."""
        found: list[list[Operation] | Fallback] = []
        for operation in self.operations:
            if isinstance(operation, Fallback):
                found.append(operation)
            elif found and isinstance(found[-1], list):
                found[-1].append(operation)
            else:
                found.append([operation])
        return tuple(tuple(segment) if isinstance(segment, list) else segment for segment in found)

    @property
    def whole(self) -> bool:
        """Return whether one native call runs the whole program."""
        return len(self.segments) == 1 and isinstance(self.segments[0], tuple)

    @property
    def record_words(self) -> int:
        """Return the number of fields of a record; all records have the length of the longest."""
        natives = [operation for operation in self.operations if isinstance(operation, Operation)]
        return len(GIVEN) + max((len(words_of(operation.function)) for operation in natives), default=0)

    def at(self, place: Spot) -> int:
        """Return the offset of a place in the arena, in bytes."""
        return self.buffers[place.buffer].offset + place.offset

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same program, constants byte for byte."""
        if not isinstance(other, Program):
            return NotImplemented
        names = [field.name for field in fields(self) if field.name != "folded"]
        mine, its = self.folded, other.folded
        return all(getattr(self, name) == getattr(other, name) for name in names) and (
            {name: (array.dtype, array.shape, array.tobytes()) for name, array in mine.items()}
            == {name: (array.dtype, array.shape, array.tobytes()) for name, array in its.items()}
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """Show all of it, one line an operation."""
        return "\n".join(_lines(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the pickled state, with constants in memory that kernels can read."""
        constants = Constants()
        state["constants"] = tuple(constants.keep(piece) for piece in state["constants"])
        self.__dict__.update(state)


def _lines(program: Program) -> Iterator[str]:
    """Yield a program's lines: what it is for, operations, tensors, buffers, constants."""
    count = len(program.operations)
    yield (
        f"program of {program.graph} for {program.isa}, {program.rounding}{', everything kept' * program.keep}: "
        f"{count} operations, the first {program.alone} by each sample alone; arena of {program.arena_bytes} bytes; "
        f"{len(program.constants)} constants, {program.constant_bytes} bytes"
    )
    for number, operation in enumerate(program.operations):
        yield f"{number:4} {_operation(program, operation)}"
    yield "tensors"
    for name, place in program.places.items():
        yield f"  {name}: {_tensor(program, place)}"
    for what, places in (
        ("extremes", program.flags),
        ("overflow count", program.overflow_counts),
        ("sums", program.sums),
    ):
        for layer, place in places.items():
            yield f"  {what} of {layer}: {_tensor(program, place)}"
    report = program.report
    yield f"  report: {_word(program, report.start)}, {report.size} bytes"
    for name, (at, place) in report.tensors.items():
        yield f"    +{at} {name}: {place.dtype} {place.shape}{' widths' * (name in report.chosen)}"
    yield from (f"  joined: {name}" for name in sorted(program.fused))
    yield from (f"  known: {name} {array.dtype} {array.shape}" for name, array in program.folded.items())
    yield "buffers"
    for number, buffer in enumerate(program.buffers):
        yield (f"  [{number}] arena+{buffer.offset}, {buffer.size} bytes, operations {buffer.first} to {buffer.last}")
    yield "constants"
    for number, piece in enumerate(program.constants):
        if isinstance(piece, Table):
            yield f"  const#{number}: {len(piece.records)} x ({', '.join(piece.names)})"
            for record in piece.records:
                yield f"    {' '.join(_word(program, word) for word in record)}"
        else:
            yield f"  const#{number}: {piece.nbytes} bytes, sha256 {piece.digest}"


def _operation(program: Program, operation: Operation | Fallback) -> str:
    if isinstance(operation, Fallback):
        return f"{operation.step} fallback {', '.join(operation.inputs)} -> {operation.output}"
    words = " ".join(f"{name}={_word(program, word)}" for name, word in operation.words.items())
    return f"{operation.step or '-'} {operation.function} chunks={operation.chunks} {words}"


def _word(program: Program, word: Word) -> str:
    match word:
        case Spot(number, offset):
            # invalid programs can be printed, too
            known = 0 <= number < len(program.buffers)
            return f"arena+{program.at(word) if known else '?'}[{number}+{offset}]"
        case Constant(number, offset):
            return f"const#{number}+{offset}"
        case Function(name):
            return name
        case None:
            return "none"
        case int():
            return str(word)
        case _:
            assert_never(word)


def _tensor(program: Program, place: Place) -> str:
    shape = f"{place.dtype} {place.shape}" if isinstance(place, Flat) else _planes(place)
    return f"{_word(program, place.start)}, {shape}"


def _planes(place: Planes) -> str:
    border = f", border {place.border}" if any(place.border) else ""
    return f"[{place.height}][{place.width}][{place.step}] of {place.channels} channels{border}"
