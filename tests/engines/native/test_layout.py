"""Where things lie: buffers that live together never overlap, pixels and channels are where they are said to be."""

import ctypes
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native import memory as layout
from dqtsim.engines.native import native
from dqtsim.engines.native.memory import (
    ALIGNMENT,
    HUGE,
    NOWHERE,
    SLAB,
    SLACK,
    Buffer,
    Constant,
    Constants,
    Data,
    Flat,
    Life,
    Planes,
    Slabs,
    Spot,
    aligned,
    allocate,
    constant_bytes,
    step_of,
)
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.run.loaded import Instance, readable
from dqtsim.structures import build
from tests import builders
from tests.builders import Array

Lived = tuple[int, int, int]
lives = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 12), st.integers(0, 5)), max_size=14)


def placed(found: list[Lived]) -> tuple[tuple[Buffer, ...], int]:
    """Return buffers of (size, first, further operations), placed, and the bytes of the arena."""
    lives = [Life(size, first, first + more) for size, first, more in found]
    buffers, total = allocate(lives)
    assert [(b.size, b.first, b.last) for b in buffers] == [(b.size, b.first, b.last) for b in lives]
    return buffers, total


@given(lives)
def test_each_byte_has_one_owner_at_a_time(found: list[Lived]) -> None:
    buffers, total = placed(found)
    for now in range(18):
        owners = np.zeros(total, int)
        for buffer in buffers:
            assert buffer.offset % ALIGNMENT == 0
            assert buffer.offset >= 0
            if buffer.first <= now <= buffer.last:
                # vectors may touch what is behind a tensor
                assert buffer.offset + buffer.size + SLACK <= total
                owners[buffer.offset : buffer.offset + buffer.size + SLACK] += 1
        assert not (owners > 1).any()


@given(lives)
def test_no_arena_is_larger_than_one_without_reuse(found: list[Lived]) -> None:
    buffers, total = placed(found)
    assert total <= sum(-(-(buffer.size + SLACK) // ALIGNMENT) * ALIGNMENT for buffer in buffers)


def test_an_operation_has_its_inputs_and_its_output_at_once() -> None:
    # the last operation of one is the first of the other
    buffers, _ = placed([(100, 0, 3), (100, 3, 1)])
    assert len({buffer.offset for buffer in buffers}) == 2
    buffers, _ = placed([(100, 0, 2), (100, 3, 1)])
    assert len({buffer.offset for buffer in buffers}) == 1


def test_a_chain_needs_two_places_and_a_small_one_fits_between() -> None:
    _, total = placed([(1000, i, 1) for i in range(9)])
    assert total == 2 * 1088
    # the gap that the second one leaves is used
    buffers, total = placed([(640, 0, 9), (640, 0, 1), (640, 0, 9), (64, 2, 9), (64, 3, 9)])
    assert total == 3 * 704
    assert {buffers[3].offset, buffers[4].offset} == {buffers[1].offset, buffers[1].offset + 128}
    assert allocate([]) == ((), 0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_every_word_points_into_a_buffer_that_is_alive(dynamic: bool) -> None:
    plan = builders.compiled(build("resnet20", dynamic=dynamic))
    program = native(plan).program
    seen = 0
    for number, operation in enumerate(program.operations):
        assert isinstance(operation, Operation)
        for value in operation.words.values():
            if isinstance(value, Spot):
                seen += 1
                buffer = program.buffers[value.buffer]
                assert buffer.first <= number <= buffer.last
                assert 0 <= value.offset < max(buffer.size, 1)
                assert buffer.offset + buffer.size + SLACK <= program.arena_bytes
    assert seen > 100
    # memory is used again and again
    assert 4 * program.arena_bytes < sum(buffer.size for buffer in program.buffers)


BORDERS = [(0, 0, 0, 0), (1, 2, 3, 4), (0, 3, 0, 0), (2, 0, 0, 1)]


@pytest.mark.parametrize(("channels", "border"), list(product((1, 3, 4, 5, 16, 17, 33), BORDERS)))
def test_planes_say_where_every_code_is(channels: int, border: tuple[int, int, int, int]) -> None:
    height, width = 3, 5
    place = Planes(Spot(3, 64), channels, height, width, border)
    memory = np.random.default_rng(0).integers(0, 256, 192 + place.size + 10, np.uint8)
    view = place.view(memory[192:])
    assert view.shape == (1, channels, height, width)
    assert np.shares_memory(view, memory)
    for c, y, x in product(range(channels), range(height), range(width)):
        assert view[0, c, y, x] == memory[192 + place.at(y, x) + c]
    top, left, bottom, right = border
    assert place.at(-top, -left) == 0
    assert place.at(height + bottom - 1, width + right - 1) + place.step == place.size
    assert place.at(1, 0) - place.at(0, 0) == place.row
    assert place.at(0, 1) - place.at(0, 0) == place.step
    assert place.origin == Spot(3, 64 + place.at(0, 0))


def test_steps_hold_all_channels() -> None:
    assert [step_of(channels) for channels in (1, 3, 4, 5, 16, 17, 32, 33)] == [4, 4, 4, 16, 16, 32, 32, 48]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_flat_tensors(dtype: str) -> None:
    place = Flat(NOWHERE, dtype, (2, 3))
    memory = np.random.default_rng(0).integers(0, 256, 256, np.uint8)
    assert place.size == 6 * np.dtype(dtype).itemsize
    view = place.view(memory[72:])
    assert view.tobytes() == memory[72 : 72 + place.size].tobytes()
    assert np.shares_memory(view, memory)
    assert (view.shape, view.dtype.name) == ((2, 3), dtype)


def test_constants_are_aligned_copies_with_room_behind() -> None:
    constants = Constants()
    array = np.arange(24, dtype=np.int64).reshape(4, 6)[:, ::2]
    assert constants.add(array) == Constant(0)
    kept = arrays_of(constants)[0]
    assert kept.ctypes.data % ALIGNMENT == 0
    assert constant_bytes(constants.pieces) == array.nbytes + SLACK
    assert not kept.flags.writeable
    array[0, 0] = -1
    assert kept[: array.nbytes].view(np.int64)[0] == 0
    assert kept[: array.nbytes].view(np.int64)[1:].tolist() == array.reshape(-1)[1:].tolist()


def test_memory_is_aligned_and_zero() -> None:
    for size in (1, 63, 64, 65, 1000):
        memory = aligned(size)
        assert (memory.size, memory.ctypes.data % ALIGNMENT, int(memory.sum())) == (size, 0, 0)
    assert aligned(5, HUGE).ctypes.data % HUGE == 0


def assert_own(pieces: list[Array]) -> None:
    """Each is aligned and zero, and what is written into one is in no other."""
    assert_apart(pieces)
    for number, piece in enumerate(pieces):
        assert not piece.any()
        piece[:] = number % 255 + 1
    for number, piece in enumerate(pieces):
        assert (piece == number % 255 + 1).all()


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 8))
def test_pieces_of_slabs(sizes: list[int], slab: int) -> None:
    """Of slabs so small that many do not fit, and of those that fit just so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SLAB", 64 * slab)
        patch.setattr(layout, "HUGE", 64)
        slabs = Slabs()
        pieces = [slabs.take(size) for size in sizes]
    assert [piece.size for piece in pieces] == sizes
    assert_own(pieces)


def test_slabs_begin_at_huge_pages() -> None:
    slabs = Slabs()
    small = [slabs.take(100) for _ in range(3)]
    assert small[0].ctypes.data % HUGE == 0
    # they follow each other in the slab
    assert np.diff([piece.ctypes.data for piece in small]).tolist() == [128, 128]
    # larger than a slab: it gets its own, and its end is used
    large = slabs.take(SLAB + 1)
    assert (large.size, large.ctypes.data % HUGE) == (SLAB + 1, 0)
    behind = slabs.take(5)
    assert behind.ctypes.data == large.ctypes.data + SLAB + ALIGNMENT
    left = slabs.take(HUGE - 2 * ALIGNMENT)
    assert left.ctypes.data == behind.ctypes.data + ALIGNMENT
    following = slabs.take(1)
    assert following.ctypes.data % HUGE == 0
    assert_own([*small, large, behind, left, following])


def test_constants_lie_side_by_side() -> None:
    constants = Constants()
    arrays = [np.full(count, count % 255, np.uint8) for count in (1, 63, 64, 65, 3 << 20, 14 << 20, 2)]
    found = [constants.add(array) for array in arrays]
    assert [constants.add(array.copy()) for array in arrays] == found == [Constant(n) for n in range(len(arrays))]
    for array, kept in zip(arrays, arrays_of(constants), strict=True):
        assert kept.tobytes() == array.tobytes()
        # vectors may read what is behind, which no other constant is
        assert readable(kept)
        behind = (ctypes.c_uint8 * SLACK).from_address(kept.ctypes.data + kept.nbytes)
        assert not any(behind)
    assert_apart(arrays_of(constants))


def arrays_of(constants: Constants) -> list[Array]:
    return [piece.array for piece in constants.pieces if isinstance(piece, Data)]


def assert_apart(arrays: list[Array]) -> None:
    spans = sorted((int(array.ctypes.data), array.nbytes) for array in arrays)
    assert all(first + size <= second for (first, size), (second, _) in pairwise(spans))
    assert all(first % ALIGNMENT == 0 for first, _ in spans)


def test_arenas_are_apart() -> None:
    loaded = native(builders.compiled(build("resnet8", dynamic=False))).loaded
    instances = [Instance(loaded) for _ in range(3)]
    arenas = [instance.arena for instance in instances]
    assert {(arena.size, int(arena.ctypes.data) % HUGE) for arena in arenas} == {(loaded.program.arena_bytes, 0)}
    assert_apart(arenas)
