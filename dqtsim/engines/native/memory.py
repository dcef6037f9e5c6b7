"""Memory of a program: constants that all its instances share, and one arena each for tensors, reused by liveness."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from ...graph.model import Array

ALIGNMENT = 64
# vectors may read past the last byte of a tensor; only those that hold one pixel of 4 bytes also write there
SLACK = 64
# bytes of a huge page, and of the least that is asked for at once: NumPy wants huge pages from 4 MiB on
HUGE = 2 << 20
SLAB = 16 << 20


def rounded(value: int, multiple: int) -> int:
    """Return the least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def aligned(size: int, to: int = ALIGNMENT) -> Array:
    """Return `size` zeros uint8 that begin at a multiple of `to`."""
    memory = np.zeros(size + to, np.uint8)
    start = -memory.ctypes.data % to
    return memory[start : start + size]


class Slabs:
    """Memory handed out in a row from large pieces that begin at a multiple of HUGE.

    NumPy asks the system for huge pages where an array is large, and only memory that is touched is taken. A network
    then needs a few of them instead of thousands of small pages, whose addresses have to be looked up one by one, and
    where its tensors lie in the caches no longer depends on which small pages the process happened to get.
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


@dataclass(eq=False)
class Buffer:
    """A piece of the arena, needed from operation `first` to operation `last`, both included."""

    size: int
    first: int
    last: int
    offset: int = -1

    def used(self, operation: int) -> None:
        """Note that an operation needs it."""
        self.first = min(self.first, operation)
        self.last = max(self.last, operation)


@dataclass(frozen=True)
class Spot:
    """An address in an arena that does not exist yet."""

    buffer: Buffer
    offset: int = 0

    def __add__(self, offset: int) -> "Spot":
        """Return the address `offset` bytes further."""
        return Spot(self.buffer, self.offset + offset)


Address = Spot | int


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
        """Return the address of pixel (0, 0)."""
        return self.start + self.at(0, 0)

    def words(self) -> dict[str, Address]:
        """Return the words by which operations find its pixels, without the border."""
        return {
            "source": self.origin,
            "source_row": self.row,
            "source_step": self.step,
            "height": self.height,
            "width": self.width,
        }

    def at(self, y: int, x: int) -> int:
        """Return the offset of a pixel from the first byte; pixels of the border have negative places."""
        top, left, _, _ = self.border
        return (top + y) * self.row + (left + x) * self.step

    def view(self, memory: Array) -> Array:
        """Return (1, C, H, W) of an arena; no copy."""
        assert isinstance(self.start, Spot)
        begin = self.start.buffer.offset + self.start.offset
        top, left, bottom, right = self.border
        whole = memory[begin : begin + self.size].reshape(
            top + self.height + bottom, left + self.width + right, self.step
        )
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
        """Return the tensor in an arena; no copy."""
        assert isinstance(self.start, Spot)
        begin = self.start.buffer.offset + self.start.offset
        view: Array = memory[begin : begin + self.size].view(self.dtype).reshape(self.shape)
        return view


Place = Planes | Flat


def step_of(channels: int) -> int:
    """Return the bytes of a pixel of so many channels."""
    return 4 if channels <= 4 else rounded(channels, 16)


@dataclass
class Constants:
    """Arrays that live as long as the program."""

    arrays: list[Array] = field(default_factory=list)
    known: dict[bytes, int] = field(default_factory=dict)
    slabs: Slabs = field(default_factory=Slabs)

    def add(self, array: Array) -> int:
        """Keep an aligned copy and return its address; what is there already is not kept twice."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = sha256(flat.data).digest()
        if key not in self.known:
            kept = self.slabs.take(flat.nbytes + SLACK)
            kept[: flat.nbytes] = flat
            self.arrays.append(kept)
            self.known[key] = int(kept.ctypes.data)
        return self.known[key]

    @property
    def size(self) -> int:
        """Return the bytes of all."""
        return sum(array.nbytes for array in self.arrays)


def allocate(buffers: Sequence[Buffer]) -> int:
    """Give every buffer its offset, so that none that live together overlap; return the bytes of the arena.

    The largest first, each at the lowest place that is free all its life.
    """
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = rounded(buffer.size + SLACK, ALIGNMENT)
        others = sorted(
            (o for o in placed if o.first <= buffer.last and buffer.first <= o.last), key=lambda o: o.offset
        )
        at = 0
        for other in others:
            if other.offset - at >= size:
                break
            at = max(at, other.offset + rounded(other.size + SLACK, ALIGNMENT))
        buffer.offset = at
        placed.append(buffer)
        total = max(total, at + size)
    return total
