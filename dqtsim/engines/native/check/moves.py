"""The memory that operations without multiply-accumulates access."""

from collections.abc import Iterator
from math import prod

import numpy as np

from .words import INT64, Access, Words, apart, hull


def picture(words: Words) -> Iterator[Access]:
    """The whole sample in the caller's memory; every row of pixels of the target."""
    if words.word("source") is not None:
        words.refuse("takes the sample from a place of its own")
    channels, height, width = words.numbers("channels", "height", "width", least=1)
    row, step = words.numbers("target_row", "step", least=1)
    if (1, channels, height, width) != words.program.sample or channels * height * width != prod(words.program.sample):
        words.refuse(f"reads {channels} x {height} x {width} bytes of a sample {words.program.sample}")
    bytes_ = width * step if channels <= 4 else (width - 1) * step + channels
    apart(words, "step", width, step, channels)
    apart(words, "target_row", height, row, bytes_)
    yield Access("target", words.place("target"), *hull(bytes_, (height, row)), writes=True)


def clear(words: Words) -> Iterator[Access]:
    """Whole words of 8 bytes."""
    size = words.number_of("bytes")
    yield Access("target", words.place("target"), 0, -(-size // INT64) * INT64, writes=True)


def copy_rows(words: Words) -> Iterator[Access]:
    """Pieces of `bytes` bytes, in rows and columns."""
    rows, columns, size = words.numbers("rows", "columns", "bytes")
    for name, writes in (("source", False), ("target", True)):
        row, step = words.numbers(f"{name}_row", f"{name}_step")
        if writes:
            apart(words, f"{name}_step", columns, step, size)
            apart(words, f"{name}_row", rows, row, (columns - 1) * step + size)
        yield Access(name, words.place(name), *hull(size, (rows, row), (columns, step)), writes=writes)


def move(words: Words) -> Iterator[Access]:
    """Pieces at the sums of two offsets each, of a pixel and of a piece; those of the target do not overlap."""
    pixels, pieces, size = words.numbers("pixels", "pieces", "bytes", least=1)
    for name, writes in (("source", False), ("target", True)):
        of_pixels, of_pieces = words.integers(f"{name}_pixels", pixels), words.integers(f"{name}_pieces", pieces)
        first, last = int(of_pixels.min()) + int(of_pieces.min()), int(of_pixels.max()) + int(of_pieces.max())
        yield Access(name, words.place(name), first, last + size, writes=writes)
        # chunks may run in any order, so no two may write one byte
        places = np.sort((of_pixels[:, None] + of_pieces).reshape(-1))
        if writes and len(places) > 1 and int(np.diff(places).min()) < size:
            words.refuse(f"writes pieces of {size} bytes that overlap")


def planes(words: Words) -> Iterator[Access]:
    """Every channel of every pixel; the target is contiguous."""
    channels, height, width = words.numbers("channels", "height", "width")
    row, step = words.numbers("row", "step")
    yield Access("source", words.place("source"), *hull(channels, (height, row), (width, step)))
    yield Access("target", words.place("target"), *hull(channels * height * width), writes=True)


def table(words: Words) -> Iterator[Access]:
    """Rows of bytes, and a table entry for each of the 256 values."""
    rows, size = words.numbers("rows", "row_bytes")
    yield Access("source", words.place("source"), *hull(size, (rows, words.number_of("source_row"))))
    yield _rows(words, "target", rows, size)
    yield Access("table", words.place("table"), 0, 256)


def add(words: Words) -> Iterator[Access]:
    """Rows of bytes of both operands and of the target."""
    rows, size = words.numbers("rows", "row_bytes")
    for name in ("a", "b"):
        yield Access(name, words.place(name), *hull(size, (rows, words.number_of(f"{name}_row"))))
    yield _rows(words, "target", rows, size)


def multiply(words: Words) -> Iterator[Access]:
    """Rows of pieces of both operands and of the target; those of `b` may be the same for all."""
    rows, columns, size = words.numbers("rows", "columns", "bytes")
    for name in ("a", "b", "target"):
        row, step = words.numbers(f"{name}_row", f"{name}_step")
        if name == "target":
            apart(words, "target_step", columns, step, size)
            apart(words, "target_row", rows, row, (columns - 1) * step + size)
        yield Access(name, words.place(name), *hull(size, (rows, row), (columns, step)), writes=name == "target")


def average_pool(words: Words) -> Iterator[Access]:
    """A window, and a multiplier for each output, or for all."""
    rows, columns = words.numbers("rows", "columns")
    row, step = words.numbers("multiplier_row", "multiplier_step")
    yield Access("multipliers", words.place("multipliers"), *hull(INT64, (rows, row), (columns, step)))
    yield from window(words)


def table_channels(words: Words) -> Iterator[Access]:
    """Pieces of a byte per channel, and a table entry of each channel for each of the 256 values."""
    rows, columns, channels = words.numbers("rows", "columns", "channels")
    for name, writes in (("source", False), ("target", True)):
        row, step = words.numbers(f"{name}_row", f"{name}_step")
        if writes:
            apart(words, "target_step", columns, step, channels)
            apart(words, "target_row", rows, row, (columns - 1) * step + channels)
        yield Access(name, words.place(name), *hull(channels, (rows, row), (columns, step)), writes=writes)
    yield Access("tables", words.place("tables"), 0, 256 * channels)


def window(words: Words) -> Iterator[Access]:
    """Pools: taps inside the picture, however large the window, in pieces of 4 bytes and more."""
    height, width, rows, columns = words.numbers("height", "width", "rows", "columns")
    size = words.number_of("channels") // 4 * 4
    words.numbers("stride_y", "stride_x", "kernel_y", "kernel_x", "top", "left")
    if words.operation.function == "max_pool":
        # the search for the first tap inside divides by them
        words.numbers("dilation_y", "dilation_x", least=1)
    row, step = words.numbers("source_row", "source_step")
    apart(words, "source_step", width, step, size)
    apart(words, "source_row", height, row, (width - 1) * step + size)
    yield Access("source", words.place("source"), *hull(size, (height, row), (width, step)))
    row, step = words.numbers("target_row", "target_step")
    apart(words, "target_step", columns, step, size)
    apart(words, "target_row", rows, row, (columns - 1) * step + size)
    yield Access("target", words.place("target"), *hull(size, (rows, row), (columns, step)), writes=True)


def argmax(words: Words) -> Iterator[Access]:
    """Rows of int32 or int64, and an int64 for each."""
    rows, columns = words.number_of("rows"), words.number_of("columns", 1)
    wide = words.number_of("wide", 0, 1)
    yield Access("source", words.place("source"), 0, rows * columns * (INT64 if wide else INT64 // 2))
    yield Access("target", words.place("target"), 0, INT64 * rows, writes=True)


def gather_rows(words: Words) -> Iterator[Access]:
    """Whole rows by their indices; `check` proves that these are rows of the source."""
    rows, size = words.numbers("rows", "bytes")
    yield Access("source", words.place("source"), 0, words.number_of("source_rows") * size)
    yield Access("indices", words.place("indices"), 0, INT64 * rows)
    yield Access("target", words.place("target"), *hull(rows * size), writes=True)


def _rows(words: Words, name: str, rows: int, size: int) -> Access:
    row = words.number_of(f"{name}_row")
    apart(words, f"{name}_row", rows, row, size)
    return Access(name, words.place(name), *hull(size, (rows, row)), writes=True)
