"""The check of a whole program: its buffers, then every operation, then the tensors and reports that are read."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import NoReturn

import numpy as np

from ..emit.choice import REFUSED
from ..isa import AND, Isa, named
from ..memory import SLACK, Address, Constant, Flat, Place, Planes, Spot, Table
from ..program import Fallback, Program
from . import layers, moves
from .words import FARTHEST, INT64, Access, ProgramError, Words

# bytes by which an arena may exceed its buffers: their ends are aligned, and there is slack after the last
ROOM = 256
FOOTPRINTS: Mapping[str, Callable[[Words], Iterator[Access]]] = {
    "add": moves.add,
    "add.narrow": moves.add,
    "argmax": moves.argmax,
    "average_pool": moves.average_pool,
    "bits": layers.bits,
    "centroid": layers.centroid,
    "centroid_logits": layers.centroid,
    "clear": moves.clear,
    "columns": layers.columns,
    "conv": layers.conv,
    "copy_rows": moves.copy_rows,
    "each": layers.each,
    "each_depth": layers.each,
    "each_logits": layers.each,
    "gather_rows": moves.gather_rows,
    "max_pool": moves.window,
    "move": moves.move,
    "multiply": moves.multiply,
    "narrow": layers.narrow,
    "narrow_logits": layers.narrow,
    "nest": layers.nest,
    "panels": layers.panels,
    "picture": moves.picture,
    "planes": moves.planes,
    "table": moves.table,
    "table.channels": moves.table_channels,
    "window_nest": layers.window_nest,
}


def check(program: Program) -> None:
    """Raise ProgramError unless everything that `program` reads and writes lies inside its buffers and constants.

    All chunks of every operation are checked, at every pair of widths that it serves. Vectors may read SLACK bytes past
    the end of a buffer or a constant. Codes of a pixel of 4 bytes are stored with a whole vector, whose rest may lie
    past the end of a buffer, too.
    """
    isa = named(program.isa)
    if isa is None:
        _refuse(f"the program is for an instruction set {program.isa}, which there is none of")
    _check_buffers(program)
    indices = _Indices()
    for number, operation in enumerate(program.operations):
        if isinstance(operation, Fallback):
            _check_fallback(program, number, operation)
            made = program.places[operation.output]
            indices.forget(Access("output", made.start, 0, made.size, writes=True))
            continue
        words = Words(program, isa, number, operation)
        if not _has(isa, operation.function):
            words.refuse(f"is no operation of {isa.name}")
        for access in FOOTPRINTS[operation.function](words):
            words.allow(access)
            if access.writes:
                indices.forget(access)
        words.finish()
        indices.follow(words)
    _check_end(program)


def _refuse(sentence: str) -> NoReturn:
    raise ProgramError(f"{sentence}.")


def _has(isa: Isa, function: str) -> bool:
    """Return whether an instruction set has an operation: some need matrices or the counting of bits."""
    return (function != "panels" or isa.matrices is not None) and (function != "bits" or AND in isa.dots)


def _check_buffers(program: Program) -> None:
    """Refuse buffers outside the arena, and buffers that overlap while both live."""
    rows = [(b.offset, b.size, b.first, b.last) for b in program.buffers]
    needed = max((offset + size + SLACK for offset, size, _, _ in rows), default=0)
    if not needed <= program.arena_bytes <= min(needed + ROOM, FARTHEST):
        _refuse(f"an arena of {program.arena_bytes} bytes is for buffers that need {needed}")
    for number, row in enumerate(rows):
        offset, size, first, last = row
        if min(row) < 0 or first > last:
            _refuse(f"buffer {number}, {size} bytes at {offset}, lives from operation {first} to {last}")
    if not rows:
        return
    offset, size, first, last = np.array(rows, np.int64).T
    end = offset + size + SLACK
    both = (first[:, None] <= last) & (first <= last[:, None]) & (offset[:, None] < end) & (offset < end[:, None])
    np.fill_diagonal(both, val=False)
    if both.any():
        one, other = np.argwhere(both)[0].tolist()
        _refuse(f"buffers {one} and {other} live together and share memory")


class _Indices:
    """The int64 of the arena that are known to lie in 0 .. number - 1, because "argmax" wrote them."""

    def __init__(self) -> None:
        # (buffer, first byte, last byte) and the number
        self._known: dict[tuple[int, int, int], int] = {}

    def forget(self, access: Access) -> None:
        """Forget indices that are overwritten."""
        place = access.place
        assert isinstance(place, Spot)
        first, last = place.offset + access.first, place.offset + access.last
        for span in [s for s in self._known if s[0] == place.buffer and s[1] < last and first < s[2]]:
            del self._known[span]

    def follow(self, words: Words) -> None:
        """Record the indices that an operation writes; refuse rows whose index has no proven bound."""
        operation = words.operation
        if operation.function == "argmax":
            target, rows = operation.words["target"], words.number_of("rows")
            if isinstance(target, Spot):
                span = (target.buffer, target.offset, target.offset + INT64 * rows)
                self._known[span] = words.number_of("columns")
        if operation.function == "gather_rows":
            rows = words.number_of("rows")
            lowest, highest = self._bounds(words, words.place("indices"), rows)
            if rows and not -words.number_of("source_rows") <= lowest <= highest < words.number_of("source_rows"):
                words.refuse(f"reads rows {lowest} to {highest} of {operation.words['source_rows']}")

    def _bounds(self, words: Words, place: Address, rows: int) -> tuple[int, int]:
        if not rows:
            return 0, 0
        if isinstance(place, Constant):
            found = words.integers("indices", rows, place)
            return int(found.min()), int(found.max())
        first, last = place.offset, place.offset + INT64 * rows
        most = [
            most
            for (buffer, begin, end), most in self._known.items()
            if buffer == place.buffer and begin <= first and last <= end and (first - begin) % INT64 == 0
        ]
        if not most:
            words.refuse(f"reads rows by indices at {place}, which nobody made")
        return 0, min(most) - 1


def _check_fallback(program: Program, number: int, operation: Fallback) -> None:
    """Refuse a step whose tensors do not exist."""
    for name in (*operation.inputs, operation.output):
        if name in program.places:
            _check_place(
                program, f"operation {number}, the step '{operation.step}'", name, program.places[name], number
            )
    if operation.output not in program.places:
        _refuse(f"operation {number}, the step '{operation.step}', writes '{operation.output}', which has no place")


def _check_place(program: Program, who: str, name: str, place: Place, number: int | None = None) -> None:
    """Refuse a tensor outside its buffer, or outside the buffer's life."""
    start = place.start
    if not isinstance(start, Spot) or not 0 <= start.buffer < len(program.buffers):
        _refuse(f"{who} has '{name}' at {start}; there are {len(program.buffers)} buffers")
    shape = place.shape if isinstance(place, Flat) else (place.channels, place.height, place.width, *place.border)
    if min(shape, default=0) < 0 or (isinstance(place, Planes) and place.channels < 1):
        _refuse(f"{who} has '{name}' of shape {shape}")
    buffer = program.buffers[start.buffer]
    if not 0 <= start.offset <= buffer.size - place.size:
        _refuse(f"{who} has '{name}' from byte {start.offset} on, {place.size} bytes of {buffer.size}")
    if number is not None and not buffer.first <= number <= buffer.last:
        _refuse(f"{who} has '{name}' in a buffer that is there from operation {buffer.first} to {buffer.last}")


def _check_end(program: Program) -> None:
    """Refuse tensors and reports at invalid places, tables with invalid places, and a wrong count of operations."""
    tensors = chain(program.places.items(), program.sums.items())
    for name, place in chain(tensors, program.flags.items(), program.overflow_counts.items()):
        _check_place(program, "the program", name, place)
    report = program.report
    _check_place(program, "the program", "report", Flat(report.start, "uint8", (report.size,)))
    told = INT64 * (len(report.layers) + len(report.counted) + (len(REFUSED) if report.layers else 0))
    ends = [at + place.size for at, place in report.tensors.values()]
    starts = [at for at, _ in report.tensors.values()]
    if report.size % INT64 or max([told, *ends]) > report.size or min([told, *starts]) < 0:
        _refuse(f"the report, of {report.size} bytes, tells what lies behind it")
    if not 0 <= program.alone <= len(program.operations):
        _refuse(f"the first {program.alone} of {len(program.operations)} operations are done alone")
    for number, piece in enumerate(program.constants):
        if isinstance(piece, Table) and any(isinstance(word, Spot) for word in piece.words):
            _refuse(f"constant {number} names a place in the arena")
