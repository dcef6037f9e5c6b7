"""What matrices read and write: whatever lies behind a tensor or in a panel, and nothing outside their buffers."""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.emit.matrix import DIRECT, PANELS
from dqtsim.engines.native.isa.amx import DEPTH as DEPTH_BYTES
from dqtsim.engines.native.memory import SLACK, Constant, Data, Slabs, Spot, Word
from dqtsim.engines.native.program import Operation, Program
from dqtsim.engines.native.run.loaded import Instance, Loaded
from dqtsim.engines.registry import run
from dqtsim.planner import Plan
from dqtsim.structures import build
from tests import builders
from tests.builders import Array, compiled
from tests.engines.emit.compiled import fenced
from tests.vectorkernels import kernel

from .matrices import Layer, modes, only_amx, set_chunks, set_groups

pytestmark = only_amx
# inputs whose last bytes are the last of their buffers, and taps that end before a matrix does
LAYERS = {
    "direct": Layer(5, 20, (1, 33)),
    "direct, four bytes a pixel": Layer(3, 4, (3, 16), (2, 3)),
    "direct, with a border": Layer(20, 70, (4, 16), (3, 3), pads=(1, 1, 1, 1)),
    "direct, nested": Layer(5, 20, (1, 33), bits=(8, 4)),
    "panels": Layer(20, 20, (7, 7), (3, 3), pads=(1, 1, 1, 1)),
    "panels, four bytes a pixel": Layer(3, 4, (7, 7), (2, 3)),
    "panels, one tap": Layer(1, 1, (3, 5), strides=(2, 2)),
    "panels, nested": Layer(20, 20, (3, 5), (3, 3), bits=(4, 5)),
    "all panels": Layer(33, 70, (3, 5), (3, 3), pads=(1, 1, 1, 1)),
    "all panels, four bytes a pixel": Layer(4, 130, (5, 9), (3, 3)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split every layer, several tiles at a time."""
    set_chunks(monkeypatch)
    set_groups(monkeypatch)


def loaded_of(plan: Plan) -> Loaded:
    with kernel("amx"):
        return native(plan).loaded


def program_of(plan: Plan) -> Program:
    return loaded_of(plan).program


def fillings(size: int) -> Iterator[Array]:
    for value in (0, 255):
        yield np.full(size, value, np.uint8)
    yield np.random.default_rng(0).integers(0, 256, size, np.uint8)


def told(program: Program, report: Array) -> list[bytes]:
    """Return what a report says, without what aligns its tensors."""
    lowered = program.report
    found = [report[at : at + place.size].tobytes() for at, place in lowered.tensors.values()]
    return [*found, report[: 8 * (len(lowered.layers) + len(lowered.counted))].tobytes()]


def assert_unmoved(plan: Plan, codes: Array) -> None:
    """Whatever was in an arena before a run, also in one that has run before, its result is the law's."""
    loaded = loaded_of(plan)
    program = loaded.program
    law = next(run(plan, codes, "numba"))
    instance, seen = Instance(loaded), set()
    for turn, filling in enumerate([*fillings(program.arena_bytes)] * 2):
        instance.arena[:] = filling
        if turn % 2:
            instance.execute(255 - codes)
        instance.execute(codes)
        seen.add(tuple(told(program, instance.report())))
    assert len(seen) == 1
    (report,) = seen
    names = list(program.report.tensors)
    for name, array in law.outputs.items():
        assert report[names.index(name)] == array.tobytes()
    flags = law.flags.values()
    assert report[-1] == np.array([[f.lowest, f.highest] for f in flags if f is not None], np.int32).tobytes()


@every_layer
def test_an_arena_full_of_anything(name: str) -> None:
    layer = LAYERS[name]
    plan = compiled(layer.graph())
    assert modes(plan) == [name.split(",", maxsplit=1)[0]]
    assert_unmoved(plan, layer.codes())


@pytest.mark.parametrize("network", ["small", "resnet8"])
def test_networks_in_an_arena_full_of_anything(network: str) -> None:
    graph = builders.network(dynamic=False) if network == "small" else build("resnet8", dynamic=False)
    plan = compiled(graph)
    assert len(set(modes(plan))) > 1 or network == "small"
    assert_unmoved(plan, np.random.default_rng(1).integers(0, 256, (1, *plan.graph.input.shape[1:]), np.uint8))


# ---- which bytes ----


def words_at(program: Program, word: Word, count: int) -> list[int]:
    """Return a constant table of 64-bit words."""
    assert isinstance(word, Constant)
    piece = program.constants[word.number]
    assert isinstance(piece, Data)
    return piece.array[word.offset : word.offset + 8 * count].view(np.int64).tolist()  # type: ignore[no-any-return]


def table_of(program: Program, operation: Operation) -> tuple[list[int], int, int]:
    """Return the offsets of the pixels of all tiles; their number and size."""
    tiles, size = (int(str(operation.words[key])) for key in ("tiles", "pixels"))
    return words_at(program, operation.words["offsets"], tiles * size), tiles, size


def taps_read(program: Program, operation: Operation) -> list[tuple[int, int]]:
    """Return (first, last + 1) of all that an operation reads of its input, from the first tap of pixel (0, 0)."""
    pixels, _, _ = table_of(program, operation)
    words = operation.words
    if words["matrices"] == DIRECT:
        steps = words_at(program, words["step_offsets"], int(str(words["steps"])))
    else:
        steps = words_at(program, words["segments"], 2 * int(str(words["segment_count"])))[::2]
    return [(pixel + step, pixel + step + DEPTH_BYTES) for pixel in pixels for step in steps]


def matrix_operations(program: Program) -> Iterator[Operation]:
    for operation in program.operations:
        if isinstance(operation, Operation) and "matrices" in operation.words and operation.words["matrices"]:
            yield operation


NETWORKS = {**LAYERS, "resnet8": None, "resnet20": None, "mobilenetv2": None}


@pytest.mark.parametrize("name", NETWORKS)
def test_reads_end_inside_the_input(name: str) -> None:
    """Direct reads inside the buffer itself, which grows for them; gathering no further than the slack behind."""
    layer = NETWORKS[name]
    how: dict[str, Any] = {"input_size": 32, "classes": 10} if name == "mobilenetv2" else {}
    program = program_of(compiled(build(name, **how) if layer is None else layer.graph()))
    seen = 0
    for operation in matrix_operations(program):
        reads = taps_read(program, operation)
        room = 0 if operation.words["matrices"] == DIRECT else SLACK
        for key in ("direct", "nested"):
            at = operation.words[key]
            if isinstance(at, Spot):
                seen += 1
                assert at.offset + min(first for first, _ in reads) >= 0
                buffer = program.buffers[at.buffer]
                assert at.offset + max(last for _, last in reads) <= buffer.size + room
                assert buffer.offset + buffer.size + SLACK <= program.arena_bytes
    assert seen > 0


@every_layer
def test_rows_of_panels_lie_apart_and_inside(name: str) -> None:
    """The last line that is copied to a row ends inside it; steps do not read beyond it; chunks have their own."""
    plan = compiled(LAYERS[name].graph())
    program = program_of(plan)
    for operation in matrix_operations(program):
        words = operation.words
        if words["matrices"] == DIRECT:
            continue
        _, tiles, size = table_of(program, operation)
        row, steps, count, group = (int(str(words[k])) for k in ("row_bytes", "steps", "segment_count", "group"))
        puts = words_at(program, words["segments"], 2 * count)[1::2]
        assert puts == sorted(puts)
        assert max(puts) + DEPTH_BYTES <= row
        # no tap of a matrix is where nothing was ever copied, but for those whose weights are 0
        assert all(second - first <= DEPTH_BYTES for first, second in pairwise(puts))
        assert words_at(program, words["step_offsets"], steps) == [DEPTH_BYTES * step for step in range(steps)]
        assert DEPTH_BYTES * steps <= row
        panel = words["panel"]
        assert isinstance(panel, Spot)
        chunks = operation.chunks if modes(plan) == ["panels"] else -(-tiles // group)
        assert panel.offset == 0 and program.buffers[panel.buffer].size >= max(chunks * group, 1) * size * row


def written(program: Program, operation: Operation) -> set[tuple[int, int]]:
    """Return (first, last + 1) in the arena of all buffers that an operation of a layer may write."""
    keys = ("panel",) if operation.function == "panels" else ("panel", "target", "sums", "flags")
    spots = [spot for key in keys if isinstance(spot := operation.words.get(key), Spot)]
    buffers = [program.buffers[spot.buffer] for spot in spots]
    return {(buffer.offset, buffer.offset + buffer.size) for buffer in buffers}


@every_layer
@pytest.mark.parametrize("keep", [False, True])
def test_writes_are_into_their_own_buffers(name: str, keep: bool) -> None:
    """Byte by byte, an operation at a time: only panels, outputs, sums and extremes change, none behind its end."""
    layer = LAYERS[name]
    # a pixel of four bytes is stored with a whole vector
    beyond = 12 if layer.outputs <= 4 else 0
    plan = compiled(layer.graph())
    with kernel("amx"):
        loaded = native(plan)._load(keep=keep)
    program = loaded.program
    for filling in fillings(program.arena_bytes):
        instance = Instance(loaded)
        instance.arena[:] = filling
        before: list[Array] = [instance.arena.copy()]
        # the first look is before them
        operations = iter([None, *program.operations])

        def look(
            instance: Instance = instance, before: list[Array] = before, operations: Iterator[object] = operations
        ) -> None:
            operation = next(operations)
            if isinstance(operation, Operation) and operation.function in ("conv", "panels"):
                changed = np.flatnonzero(instance.arena != before[0])
                allowed = np.zeros(len(instance.arena), bool)
                for first, last in written(program, operation):
                    allowed[first : last + beyond] = True
                assert allowed[changed].all()
            before[0] = instance.arena.copy()

        instance.one_by_one(layer.codes(), look)
        assert next(operations, None) is None


@pytest.mark.parametrize("name", ["panels", "panels, nested", "all panels", "all panels, four bytes a pixel"])
def test_chunks_have_their_own_panels(name: str) -> None:
    """Threads that gather at the same time never write the same byte, and together they fill the rows of all pixels."""
    layer = replace(LAYERS[name], out=(9, 11), outputs=20 if name.startswith("panels") else 300)
    loaded = loaded_of(compiled(layer.graph()))
    program = loaded.program
    instance = Instance(loaded)
    instance.execute(layer.codes())
    (number,) = (k for k, operation in enumerate(program.operations) if operation in gathering(program))
    operation = program.operations[number]
    assert isinstance(operation, Operation) and operation.chunks > 1
    records = instance.segments[0]
    assert isinstance(records, tuple)
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(int(records[0][number][0]))
    panel = operation.words["panel"]
    assert isinstance(panel, Spot)
    buffer = program.buffers[panel.buffer]
    whole = instance.arena[buffer.offset : buffer.offset + buffer.size]
    writers = np.zeros(whole.size, int)
    for chunk in range(operation.chunks):
        kept = np.ones(whole.size, bool)
        for value in (0, 255):
            whole[:] = value
            function(int(records[0][number].ctypes.data), chunk)
            kept &= whole == value
        writers += ~kept
    assert writers.max() == 1
    row, taps = int(str(operation.words["row_bytes"])), layer.channels * layer.kernel[0] * layer.kernel[1]
    rows = writers.reshape(-1, row)[:, :taps].sum(1)
    _, tiles, size = table_of(program, operation)
    assert sorted(set(rows.tolist()) | {0}) == [0, taps]
    assert np.count_nonzero(rows) == tiles * size


def gathering(program: Program) -> list[Operation]:
    """Return the operations that fill panels."""
    return [
        operation
        for operation in matrix_operations(program)
        if operation.function == "panels" or operation.words["matrices"] == PANELS
    ]


class Fenced(Slabs):
    """Memory behind which nothing can be read or written."""

    def take(self, size: int) -> Array:
        return fenced(np.zeros(size, np.uint8))


@every_layer
def test_nothing_is_touched_behind_the_arena(name: str) -> None:
    for layer in (LAYERS[name], replace(LAYERS[name], outputs=LAYERS[name].outputs + 64)):
        plan = compiled(layer.graph())
        loaded = loaded_of(plan)
        instance = Instance(loaded, Fenced())
        instance.execute(layer.codes())
        law = next(run(plan, layer.codes(), "numba"))
        at, place = loaded.program.report.tensors["y"]
        assert instance.report()[at : at + place.size].tobytes() == law.outputs["y"].tobytes()
