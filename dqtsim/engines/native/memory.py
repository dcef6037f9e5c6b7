"""Memory of a program: places, the arena of tensors, the constants of all samples.

Nothing here is an address of this process: a program names places, and `run` gives them addresses when it is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from ...graph.model import Array

ALIGNMENT = 64
# vectors may read past the last byte of a tensor; only a vector stored to a pixel of 4 bytes may also write there
SLACK = 64
# bytes of a huge page, and the least size of an allocation: NumPy requests huge pages from 4 MiB on
HUGE = 2 << 20
SLAB = 16 << 20
WORD_BYTES = 8


def rounded(value: int, multiple: int) -> int:
    """Return the least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


# ---- words ----


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the arena: the number of a buffer, and bytes from its start."""

    buffer: int
    offset: int = 0

    def __add__(self, offset: int) -> "Spot":
        """Return the place `offset` bytes further."""
        return replace(self, offset=self.offset + offset)


@dataclass(frozen=True, slots=True)
class Constant:
    """A place in a constant: its number in the program, and bytes from its start."""

    number: int
    offset: int = 0

    def __add__(self, offset: int) -> "Constant":
        """Return the place `offset` bytes further."""
        return replace(self, offset=self.offset + offset)


@dataclass(frozen=True, slots=True)
class Function:
    """A native function by its name."""

    name: str


Address = Spot | Constant
# the value of a field of an operation or of a table; None is the place of something that does not exist
Word = Spot | Constant | Function | int | None
# the place of a tensor whose buffer does not exist yet
NOWHERE = Spot(-1)


# ---- memory of this process ----


def aligned(size: int, to: int = ALIGNMENT) -> Array:
    """Return `size` zeros uint8 that begin at a multiple of `to`."""
    memory = np.zeros(size + to, np.uint8)
    start = -memory.ctypes.data % to
    return memory[start : start + size]


class Slabs:
    """Memory allocated one after another from large pieces that begin at a multiple of HUGE.

    NumPy requests huge pages for a large array, and only memory that is touched is used. So a network needs a few huge
    pages instead of thousands of small ones, each with an address to translate. And the position of its tensors in the
    caches no longer depends on the small pages that the process happened to get.
    """

    def __init__(self) -> None:
        self._left = np.zeros(0, np.uint8)

    def take(self, size: int) -> Array:
        """Return `size` zeros uint8 that begin at a multiple of ALIGNMENT."""
        whole = rounded(size, ALIGNMENT)
        if whole > len(self._left):
            self._left = aligned(max(SLAB, rounded(whole, HUGE)), HUGE)
        taken, self._left = self._left[:size], self._left[whole:]
        return taken

    def copy(self, data: Array) -> Array:
        """Return a copy of uint8, with SLACK readable bytes after it."""
        kept = self.take(data.nbytes + SLACK)[: data.nbytes]
        kept[:] = data
        return kept


# ---- the arena ----


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena, needed from operation `first` to operation `last`, both included."""

    size: int
    first: int
    last: int
    offset: int


@dataclass
class Life:
    """A buffer that has no place yet: its bytes so far, and the first and last operation known to need it."""

    size: int
    first: int
    last: int

    def used(self, operation: int) -> None:
        """Note that an operation needs it."""
        self.first = min(self.first, operation)
        self.last = max(self.last, operation)


def allocate(lives: Sequence[Life]) -> tuple[tuple[Buffer, ...], int]:
    """Return every buffer with its offset, and the bytes of the arena. Buffers that live together do not overlap.

    The largest comes first; each is put at the lowest offset that is free during its whole life.
    """
    placed: dict[int, Buffer] = {}
    total = 0
    for number in sorted(range(len(lives)), key=lambda n: (-lives[n].size, lives[n].first)):
        life = lives[number]
        size = rounded(life.size + SLACK, ALIGNMENT)
        others = sorted(
            (o for o in placed.values() if o.first <= life.last and life.first <= o.last), key=lambda o: o.offset
        )
        at = 0
        for other in others:
            if other.offset - at >= size:
                break
            at = max(at, other.offset + rounded(other.size + SLACK, ALIGNMENT))
        placed[number] = Buffer(life.size, life.first, life.last, at)
        total = max(total, at + size)
    return tuple(placed[number] for number in range(len(lives))), total


# ---- tensors ----


@dataclass(frozen=True)
class Planes:
    """A tensor (1, C, H, W) of codes as [H][W][step] with a border of pixels; `start` is its first byte."""

    start: Address
    channels: int
    height: int
    width: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def step(self) -> int:
        """Return the bytes of a pixel."""
        return step_of(self.channels)

    @property
    def row(self) -> int:
        """Return the bytes of a row, border included."""
        _, left, _, right = self.border
        return (left + self.width + right) * self.step

    @property
    def size(self) -> int:
        """Return the bytes of all, border included."""
        top, _, bottom, _ = self.border
        return (top + self.height + bottom) * self.row

    @property
    def origin(self) -> Address:
        """Return the place of pixel (0, 0)."""
        return self.start + self.at(0, 0)

    def words(self) -> dict[str, Word]:
        """Return the fields by which operations find its pixels, without the border."""
        return {
            "source": self.origin,
            "source_row": self.row,
            "source_step": self.step,
            "height": self.height,
            "width": self.width,
        }

    def at(self, y: int, x: int) -> int:
        """Return the offset of a pixel from the first byte; y and x of the border may be negative."""
        top, left, _, _ = self.border
        return (top + y) * self.row + (left + x) * self.step

    def view(self, memory: Array) -> Array:
        """Return (1, C, H, W) of memory uint8 that begins where the tensor does; no copy."""
        top, left, bottom, right = self.border
        whole = memory[: self.size].reshape(top + self.height + bottom, left + self.width + right, self.step)
        inner = whole[top : top + self.height, left : left + self.width, : self.channels]
        return inner.transpose(2, 0, 1)[None]


@dataclass(frozen=True)
class Flat:
    """A contiguous tensor."""

    start: Address
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return its bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def view(self, memory: Array) -> Array:
        """Return the tensor in memory uint8 that begins where it does; no copy."""
        view: Array = memory[: self.size].view(self.dtype).reshape(self.shape)
        return view


Place = Planes | Flat


def step_of(channels: int) -> int:
    """Return the bytes of a pixel of so many channels."""
    return 4 if channels <= 4 else rounded(channels, 16)


# ---- constants ----


@dataclass(frozen=True, eq=False)
class Data:
    """Bytes that kernels read: uint8 (bytes), read-only."""

    array: Array

    @property
    def nbytes(self) -> int:
        """Return the bytes."""
        return self.array.nbytes

    @property
    def digest(self) -> str:
        """Return the first half of their SHA-256."""
        return sha256(self.array.data).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        """Return whether it holds the same bytes."""
        return isinstance(other, Data) and np.array_equal(self.array, other.array)

    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the pickled state; the array is read-only again."""
        state["array"].flags.writeable = False
        self.__dict__.update(state)


@dataclass(frozen=True)
class Table:
    """Records that kernels read: `names` of a record's fields, and the values of all records one after another."""

    names: tuple[str, ...]
    words: tuple[Word, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes."""
        return WORD_BYTES * len(self.words)

    @property
    def records(self) -> list[tuple[Word, ...]]:
        """Return the records."""
        size = len(self.names)
        return [self.words[at : at + size] for at in range(0, len(self.words), size)]


Piece = Data | Table


class Constants:
    """Constants of a program that is being made. Equal constants are kept once."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._numbers: dict[bytes | Table, int] = {}
        self._slabs = Slabs()

    def add(self, array: Array) -> Constant:
        """Keep a copy of an array, aligned, with SLACK zeros after it; return the place where it begins."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = sha256(flat.data).digest()
        if key not in self._numbers:
            self._numbers[key] = len(self.pieces)
            self.pieces.append(self.keep(Data(flat)))
        return Constant(self._numbers[key])

    def keep(self, piece: Piece) -> Piece:
        """Return a constant of another program, with its bytes stored as `add` stores them; it gets no number here."""
        if isinstance(piece, Table):
            return piece
        kept = self._slabs.copy(piece.array)
        kept.flags.writeable = False
        return Data(kept)

    def table(self, names: Sequence[str], words: Sequence[Word]) -> Constant:
        """Keep a table of records with the fields `names`; return the place where it begins."""
        made = Table(tuple(names), tuple(words))
        if made not in self._numbers:
            self._numbers[made] = len(self.pieces)
            self.pieces.append(made)
        return Constant(self._numbers[made])


def constant_bytes(pieces: Sequence[Piece]) -> int:
    """Return the bytes of constants in memory."""
    return sum(piece.nbytes + SLACK for piece in pieces)
