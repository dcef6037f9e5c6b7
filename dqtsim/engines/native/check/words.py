"""The fields of an operation while they are checked: each is read as what it must be, a number, a place, a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeGuard

import numpy as np

from ....graph.model import Array
from ..isa.base import Isa
from ..memory import SLACK, Address, Constant, Data, Spot, Table, Word
from ..operations import words_of
from ..program import Operation, Program

# every count, size or distance of a program is smaller; the product of two fits 64 bits
MOST = 1 << 31
# every arena, and every offset in it, is smaller
FARTHEST = 1 << 40
# no operation has so many chunks
MOST_CHUNKS = 64
# other numbers may have any value that fits 64 bits
WORD = 1 << 63
INT64 = 8


class ProgramError(Exception):
    """A program would access memory that is not its own: a mistake of the engine, or a damaged program."""


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes that an operation accesses, named by their field: `first` to before `last`, counted from `place`.

    beyond: the number of bytes past the end of a buffer that it may write. align: the address must be a multiple of it.
    """

    word: str
    place: Address
    first: int
    last: int
    writes: bool = False
    beyond: int = 0
    align: int = 1


class Words:
    """The fields of operation `number` of `program`."""

    def __init__(self, program: Program, isa: Isa, number: int, operation: Operation) -> None:
        self.program, self.isa, self.number, self.operation = program, isa, number, operation
        try:
            names = words_of(operation.function)
        except KeyError:
            self.refuse("is no operation")
        if tuple(operation.words) != names:
            self.refuse(f"has the words {' '.join(operation.words)}, not {' '.join(names)}")
        self._seen: set[str] = set()
        if not _is_int(operation.chunks) or not 1 <= operation.chunks <= MOST_CHUNKS:
            self.refuse(f"has {operation.chunks} chunks; there are 1 to {MOST_CHUNKS}")

    def refuse(self, what: str) -> NoReturn:
        """Raise ProgramError; `what` completes a sentence about this operation."""
        step = f" of '{self.operation.step}'" if self.operation.step else ""
        raise ProgramError(f"operation {self.number}, {self.operation.function}{step}, {what}.")

    def word(self, name: str) -> Word:
        """Return a field, which then counts as checked."""
        self._seen.add(name)
        return self.operation.words[name]

    def number_of(self, name: str, least: int = 0, most: int = MOST) -> int:
        """Return a field that must be a number from `least` to `most`."""
        word = self.word(name)
        if not _is_int(word) or not least <= word <= most:
            self.refuse(f"takes '{name}', a number from {least} to {most}; found {word}")
        return word

    def numbers(self, *names: str, least: int = 0) -> list[int]:
        """Return several fields that must be numbers."""
        return [self.number_of(name, least) for name in names]

    def place(self, name: str) -> Address:
        """Return a field that must be a place."""
        word = self.word(name)
        if not isinstance(word, Spot | Constant) or abs(word.offset) > FARTHEST:
            self.refuse(f"takes '{name}', a place in memory; found {word}")
        return word

    def optional(self, name: str) -> Address | None:
        """Return a field that must be a place or nothing."""
        return None if self.word(name) is None else self.place(name)

    def finish(self) -> None:
        """Refuse fields that were not checked, unless they are numbers."""
        for name in [name for name in self.operation.words if name not in self._seen]:
            self.number_of(name, -WORD, WORD - 1)

    # ---- constants ----

    def data(self, name: str, place: Word, size: int) -> Array:
        """Return uint8 (size): bytes of a constant from `place` on; all must lie inside it."""
        piece = self._piece(name, place)
        if not isinstance(piece, Data) or not isinstance(place, Constant):
            self.refuse(f"takes {name} from {place}, which is a table")
        if not 0 <= place.offset <= piece.nbytes - size:
            self.refuse(
                f"reads {name} from byte {place.offset} to {place.offset + size} of constant {place.number}, which has "
                f"{piece.nbytes}"
            )
        return piece.array[place.offset : place.offset + size]

    def integers(self, name: str, count: int, place: Word = None) -> Array:
        """Return int64 (count), at least one: the constant to which a field, or `place`, points."""
        if count < 1:
            self.refuse(f"reads {count} entries of {name}")
        found = self.place(name) if place is None else place
        array: Array = self.data(name, found, INT64 * count).view(np.int64)
        return array

    def table(self, name: str, place: Word, names: Sequence[str], count: int | None = None) -> list[tuple[Word, ...]]:
        """Return the first `count` records of a table; the place must be the beginning of the table."""
        piece = self._piece(name, place)
        if not isinstance(piece, Table) or not isinstance(place, Constant) or place.offset:
            self.refuse(f"takes {name} from {place}, where no table begins")
        if piece.names != tuple(names) or len(piece.words) % len(names):
            self.refuse(f"takes {name} from a table of ({', '.join(piece.names)})")
        records = piece.records
        if len(records) < (count or 1):
            self.refuse(f"takes {count or 1} records of {name} from a table of {len(records)}")
        return records[:count]

    def _piece(self, name: str, place: Word) -> Data | Table:
        pieces = self.program.constants
        if not isinstance(place, Constant) or not 0 <= place.number < len(pieces) or abs(place.offset) > FARTHEST:
            self.refuse(f"takes {name} from {place}; there are {len(pieces)} constants")
        return pieces[place.number]

    def entry(self, name: str, word: Word, least: int = 0, most: int = MOST) -> int:
        """Return a field of a table that must be a number from `least` to `most`."""
        if not _is_int(word) or not least <= word <= most:
            self.refuse(f"takes '{name}' of a table, a number from {least} to {most}; found {word}")
        return word

    # ---- accesses ----

    def allow(self, access: Access) -> None:
        """Refuse an access outside its constant, or outside its buffer or the buffer's life."""
        place, program = access.place, self.program
        first, last = place.offset + access.first, place.offset + access.last
        does = "writes" if access.writes else "reads"
        if access.first >= access.last:
            return
        if isinstance(place, Constant):
            piece = self._piece(access.word, place)
            if access.writes or not isinstance(piece, Data):
                self.refuse(f"{does} {access.word}, constant {place.number}, which is not for that")
            where, size, start = f"constant {place.number}", piece.nbytes, 0
        else:
            if not 0 <= place.buffer < len(program.buffers):
                self.refuse(f"{does} {access.word} in buffer {place.buffer}; there are {len(program.buffers)}")
            buffer = program.buffers[place.buffer]
            if not buffer.first <= self.number <= buffer.last:
                self.refuse(
                    f"{does} {access.word} in buffer {place.buffer}, which is there from operation {buffer.first} to "
                    f"{buffer.last}"
                )
            where, size, start = f"buffer {place.buffer}", buffer.size, buffer.offset
        if first < 0 or last > size + (access.beyond if access.writes else SLACK):
            self.refuse(f"{does} {access.word} from byte {first} to {last} of {where}, which has {size}")
        if (start + first) % access.align:
            self.refuse(f"{does} {access.word} at byte {first} of {where}, which is no multiple of {access.align}")


def _is_int(word: object) -> TypeGuard[int]:
    return isinstance(word, int) and not isinstance(word, bool)


def hull(size: int, *counts: tuple[int, int]) -> tuple[int, int]:
    """Return (first, last) of pieces of `size` bytes at all sums of k * distance, 0 <= k < count; (0, 0) of none.

    counts: (count, distance).
    """
    if size <= 0 or any(count <= 0 for count, _ in counts):
        return 0, 0
    ends = [(count - 1) * distance for count, distance in counts]
    return sum(min(0, end) for end in ends), sum(max(0, end) for end in ends) + size


def apart(words: Words, name: str, count: int, distance: int, size: int) -> None:
    """Refuse pieces of `size` bytes that overlap, and endless loops over no pieces."""
    if count > 1 and distance < max(size, 1):
        words.refuse(f"has pieces of {size} bytes {distance} apart, by its word {name}")
