"""Programs with a mistake: each is refused by the check, or runs between guard pages and touches nothing else.

`python -m tests.engines.native.mutants COUNT SEED` makes so many and prints how many were refused, run, and of
instruction sets that this CPU lacks. It is a process of its own, so that a mistake of the check ends it with a signal.
"""

import ctypes
import faulthandler
import json
import mmap
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np

from dqtsim.engines.native.check import ProgramError, check
from dqtsim.engines.native.check.kernels import kernels_of
from dqtsim.engines.native.compile.functions import Functions
from dqtsim.engines.native.isa import AND, ISAS, Isa
from dqtsim.engines.native.lower import layer, one_bit, tiles
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.memory import Constant, Data, Function, Slabs, Spot, Table, Word, rounded
from dqtsim.engines.native.operations import RECORDS
from dqtsim.engines.native.program import Operation, Program
from dqtsim.engines.native.run.loaded import Instance, Library, Loaded
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.planner import Plan
from dqtsim.spec import Overflow
from dqtsim.structures import build
from tests import builders
from tests.builders import Array, compiled, network
from tests.vectorkernels import kernels

from .ones import ones

PAGE = mmap.PAGESIZE
RESERVE = 4 << 20


def unproven() -> Graph:
    """Return two convolutions, the first of which lacks a proof."""
    random = np.random.default_rng(5)
    b = GraphBuilder("unproven", candidates=((4, 4), (8, 8)))
    ways: dict[str, Any] = {"bias": [[0] * 8], "multiplier": [[1 << 15] * 8], "shift": [[24] * 8], "row_widths": (8,)}
    ways |= {"zero_point": 128, "scale": 1.0, "clip": (0, 255), "pads": (1, 1, 1, 1)}
    x = b.input("x", (1, 8, 6, 6), zero_point=128, scale=1.0)
    for name in ("first", "second"):
        x = b.conv(name, x, weight=random.integers(0, 256, (8, 8, 3, 3), np.uint8), **ways)
    b.output(x)
    return builders.unproven(b.build([(4, 8), (8, 4)]))


def elements() -> Graph:
    """Return a network of pools, grids and an addition, without a layer."""
    b = GraphBuilder("elements", candidates=((2, 2),))
    one: dict[str, Any] = {"zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    x = b.input("x", (1, 5, 6, 7), zero_point=0, scale=1.0)
    other = b.requantize("grid", x, multiplier=3 << 13, shift=15, **one)
    total = b.add("sum", x, other, multiplier_a=3, multiplier_b=5, shift=3, **one)
    most = b.max_pool("most", total, kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1))
    mean = b.average_pool("mean", total, kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1), multiplier=9, shift=6, **one)
    far = b.add("far", most, mean, multiplier_a=40000, multiplier_b=30000, shift=31, **one)
    product = b.multiply("product", most, far, multiplier=40000, shift=23, **one)
    gate = b.max_pool("gate", product, kernel=(3, 7), strides=(1, 1))
    gated = b.multiply("gated", far, gate, multiplier=1, shift=7, **one)
    own = b.average_pool("own", gated, kernel=(2, 2), strides=(1, 1), pads=(1, 0, 0, 1), shift=8,
                         multiplier=np.arange(21).reshape(3, 7), **one)  # fmt: skip
    slopes = b.table("slopes", own, np.arange(5 * 256).reshape(5, 256) % 251, zero_point=0, scale=1.0)
    b.output(b.concat("both", [most, slopes]))
    return b.build()


def moved() -> Graph:
    """Return a channel shuffle, an exchange of rows and columns, a crop, and halves side by side."""
    arrays = builders.constants(apart=[1, 2, 3, 5, 4], back=[1, 6, 5, 4], from_=[1], to=[4], axes=[2], steps=[1])
    nodes = [
        builders.node("Reshape", ["x", "apart"], "apart.x", allowzero=0),
        builders.node("Transpose", ["apart.x"], "shuffled", perm=(0, 2, 1, 4, 3)),
        builders.node("Reshape", ["shuffled", "back"], "square", allowzero=0),
        builders.node("Slice", ["square", "from_", "to", "axes", "steps"], "cut"),
        builders.node("Concat", ["cut", "square"], "y", axis=2),
    ]
    return builders.plain((6, 5, 4), nodes, (1, 6, 8, 4), arrays=arrays)


def windows() -> Graph:
    """Return a convolution with windows and padding codes, and one with windows alone."""
    random = np.random.default_rng(5)
    b = GraphBuilder("windows", candidates=((4, 4), (8, 8)))
    ways: dict[str, Any] = {"bias": [[0] * 6], "multiplier": [[1 << 15] * 6], "shift": [[23] * 6], "row_widths": (8,)}
    ways |= {"zero_point": 128, "scale": 1.0, "clip": (0, 255), "windows": [0, 3, 6, 0, 2, 1, 0, 1, 0]}
    x = b.input("x", (1, 3, 5, 6), zero_point=77, scale=1.0)
    weight = random.integers(0, 256, (6, 3, 3, 3), np.uint8)
    first = b.conv("first", x, weight=weight, pads=(1, 0, 2, 1), padding=np.array([9, 70, 255]), **ways)
    second = b.conv("second", first, weight=random.integers(0, 256, (6, 6, 1, 1), np.uint8), **ways)
    b.output(second)
    return b.build([(4, 4), (4, 4)])


def halves() -> Graph:
    """Return layers whose weights stand for the mean of their codes: plain, grouped, depthwise, and logits."""
    random = np.random.default_rng(5)
    b = GraphBuilder("halves", weight_rule="CENTROID", candidates=((4, 4), (8, 8)))
    ways: dict[str, Any] = {"bias": [[0] * 6], "multiplier": [[1 << 15] * 6], "shift": [[23] * 6], "row_widths": (8,)}
    ways |= {"zero_point": 128, "scale": 1.0, "clip": (0, 255), "pads": (1, 0, 1, 1)}
    x = b.input("x", (1, 3, 4, 5), zero_point=77, scale=1.0)
    for group, channels in ((1, 3), (2, 6), (6, 6)):
        weight = random.integers(0, 256, (6, channels // group, 3, 3), np.uint8)
        x = b.conv(f"of {group}", x, weight=weight, group=group, **ways)
    weight = random.integers(0, 256, (3, 6 * 4 * 2), np.uint8)
    flat = b.flatten("flat", x)
    b.output(b.logits("last", flat, weight=weight, bias=[[5, 6, 7]], row_widths=(8,)), classes=True)
    return b.build([(4, 8), (4, 4), (8, 4), (2, 8)])


@cache
def plans() -> dict[str, Plan]:
    """Return small networks with every kind of operation between them."""
    random = np.random.default_rng(1)
    wide = random.integers(-128, 128, (130, 9, 2, 2))
    few = random.integers(-128, 128, (3, 5, 3, 3))
    found = {
        "small": compiled(network()),
        "static": compiled(network(dynamic=False)),
        "ones": compiled(ones("TIES_UP")),
        "depthwise": compiled(build("mobilenetv2", input_size=32, classes=10)),
        "left to a fallback": compiled(unproven()),
        "blocks": compiled(builders.conv((9, 3, 4), wide, bits=(4, 4))),
        "few channels": compiled(builders.conv((5, 9, 9), few, bits=(4, 4), pads=(1, 1, 1, 1))),
        "elements": compiled(elements()),
        "moved": compiled(moved()),
        "windows": compiled(windows()),
        "halves": compiled(halves()),
        "vector": compiled(builders.dense(np.arange(-30, 30).reshape(4, 15), logits=True)),
    }
    apart = builders.conv((8, 6, 5), random.integers(-128, 128, (8, 1, 3, 3)), group=8, pads=(1, 1, 1, 1))
    found["apart"] = compiled(apart, accumulator_width=12, overflow=Overflow.SATURATE_EACH)
    for overflow in (Overflow.WRAP, Overflow.SATURATE_EACH):
        found[f"{overflow.name}"] = compiled(network(dynamic=False), accumulator_width=12, overflow=overflow)
    return found


@cache
def program_of(name: str, isa: Isa, *, keep: bool) -> Program:
    """Return a network's program, in as many chunks as it can have, and with counted bits whatever the CPU."""
    with (
        patch.object(layer, "CHUNK_MACS", 1),
        patch.object(tiles, "LEAST_EIGHTHS", 0),
        patch.object(one_bit, "can_count", lambda isa: AND in isa.dots),
    ):
        return lower(plans()[name], isa, keep=keep)


# ---- mistakes ----


class Mutator:
    """Random mistakes, each in one place of a program."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one_of(self, values: Sequence[Any]) -> Any:
        """Return one of some values."""
        return values[int(self.random.integers(len(values)))]

    def number(self, value: int, *, within: int = 64) -> int:
        """Return another number: a near one, a limit, or any."""
        near = [value + int(self.random.integers(-within, within + 1)), value + 1, value - 1, 2 * value, -value]
        limits = [0, 1, -1, 255, 1 << 31, (1 << 31) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63)]
        return max(-(1 << 63), min((1 << 63) - 1, int(self.one_of([*near, *near, *limits]))))

    def word(self, program: Program, word: Word) -> Word:
        """Return another word, mostly of the same kind."""
        kind = int(self.random.integers(8))
        if kind == 0:
            return self.one_of([None, 0, 1, Spot(0), Constant(0), Function("conv")])  # type: ignore[no-any-return]
        if isinstance(word, Spot):
            if kind < 3:
                return replace(word, buffer=int(self.random.integers(-1, len(program.buffers) + 1)))
            return replace(word, offset=self.number(word.offset))
        if isinstance(word, Constant):
            if kind < 3:
                return replace(word, number=int(self.random.integers(-1, len(program.constants) + 1)))
            return replace(word, offset=self.number(word.offset))
        if isinstance(word, Function):
            return Function(self.one_of([*kernels_of(program.isa), "none", "conv"]))
        return self.number(word) if isinstance(word, int) else Spot(0, self.number(0))

    def operation(self, program: Program) -> Program:
        """Change a word, the chunks or the function of an operation."""
        number = self.one_of([n for n, op in enumerate(program.operations) if isinstance(op, Operation)])
        operation = program.operations[number]
        assert isinstance(operation, Operation)
        what = int(self.random.integers(12))
        if what == 0:
            operation = replace(operation, chunks=self.number(operation.chunks))
        elif what == 1:
            operation = replace(operation, function=self.one_of([*RECORDS, "run", "tile_1x1"]))
        else:
            name = self.one_of(list(operation.words))
            words = {**operation.words, name: self.word(program, operation.words[name])}
            operation = replace(operation, words=words)
        return with_one(program, "operations", number, operation)

    def constant(self, program: Program) -> Program:
        """Change an entry, or the length, of a constant."""
        number = int(self.random.integers(len(program.constants)))
        piece = program.constants[number]
        what = int(self.random.integers(4))
        if isinstance(piece, Table):
            at = int(self.random.integers(len(piece.words)))
            new = (self.word(program, piece.words[at]),) if what else ()
            changed: Data | Table = replace(piece, words=(*piece.words[:at], *new, *piece.words[at + 1 :]))
        elif what == 0 or piece.nbytes < 8:
            changed = Data(piece.array[: int(self.random.integers(piece.nbytes + 1))])
        elif what == 1:
            array = piece.array.copy()
            array[int(self.random.integers(len(array)))] = self.random.integers(256)
            changed = Data(array)
        else:
            array = piece.array.copy()
            entries = array[: len(array) // 8 * 8].view(np.int64)
            at = int(self.random.integers(len(entries)))
            entries[at] = self.number(int(entries[at]), within=4096)
            changed = Data(array)
        return with_one(program, "constants", number, changed)

    def buffer(self, program: Program) -> Program:
        """Change a buffer."""
        number = int(self.random.integers(len(program.buffers)))
        buffer = program.buffers[number]
        name = self.one_of([field.name for field in fields(buffer)])
        changed = replace(buffer, **{name: self.number(getattr(buffer, name))})
        return with_one(program, "buffers", number, changed)

    def rest(self, program: Program) -> Program:
        """Change what belongs to no operation."""
        name = self.one_of(["arena_bytes", "alone", "sample", "report", "places", *["flags"] * bool(program.flags)])
        if name in ("arena_bytes", "alone"):
            return with_field(program, name, self.number(getattr(program, name)))
        if name == "sample":
            at = int(self.random.integers(len(program.sample)))
            return with_one(program, "sample", at, self.number(program.sample[at]))
        if name == "report":
            what = self.one_of([{"size": self.number(program.report.size)}, {"start": self.spot(program)}])
            return replace(program, report=replace(program.report, **what))
        places = dict(getattr(program, name))
        key = self.one_of(list(places))
        places[key] = replace(places[key], start=self.spot(program))
        return with_field(program, name, places)

    def spot(self, program: Program) -> Spot:
        """Return any place."""
        return Spot(int(self.random.integers(len(program.buffers))), self.number(0))

    def mutant(self, program: Program) -> Program:
        """Return a program with one mistake or two."""
        made = program
        kinds: list[Callable[[Program], Program]] = [
            *[self.operation] * 5,
            *[self.constant] * 3,
            self.buffer,
            self.rest,
        ]
        for _ in range(int(self.random.integers(1, 3))):
            made = self.one_of(kinds)(made)
        return made


def with_one(program: Program, name: str, number: int, value: object) -> Program:
    """Return a program of which one of a row is another."""
    row = getattr(program, name)
    return with_field(program, name, (*row[:number], value, *row[number + 1 :]))


def with_field(program: Program, name: str, value: object) -> Program:
    """Return a program one field of which is another."""
    changes: dict[str, Any] = {name: value}
    return replace(program, **changes)


# ---- guards ----


class Guarded(Slabs):
    """Memory between pages that nobody may touch; `front`: it begins, otherwise it ends, where such a page does."""

    def __init__(self, *, front: bool) -> None:
        super().__init__()
        self.front = front
        self._protect = ctypes.CDLL(None).mprotect
        self._protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._reserve(PAGE)

    def _reserve(self, least: int) -> None:
        self._memory = mmap.mmap(-1, max(RESERVE, least))
        self._start, self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)), 0
        self._guard()

    def _guard(self) -> None:
        """Let nobody touch the page at hand, and go on behind it."""
        assert self._protect(self._start + self._at, PAGE, 0) == 0
        self._at += PAGE

    def take(self, size: int) -> Array:
        """Return zeros uint8 (size)."""
        whole = rounded(max(size, 1), 64)
        pages = rounded(whole, PAGE)
        if self._at + pages + PAGE > len(self._memory):
            self._reserve(pages + 2 * PAGE)
        begin = self._at if self.front else self._at + pages - whole
        self._at += pages
        self._guard()
        array: Array = np.frombuffer(self._memory, np.uint8, size, begin)
        return array


@cache
def library(name: str) -> Library:
    """Return the functions of an instruction set."""
    isa = next(isa for isa in ISAS if isa.name == name)
    return Library(isa, Functions(isa, builders.compiled(network()).machine.rounding))


def run(plan: Plan, program: Program) -> None:
    """Run a program between guards, one sample and a batch, over an arena that is full of anything."""
    shape = plan.graph.input.shape[1:]
    codes = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    for front in (False, True):
        try:
            loaded = Loaded(plan, program, library(program.isa), Guarded(front=front))
            instance = Instance(loaded, Guarded(front=front))
        except (MemoryError, ValueError):
            # more than there is, or places of tensors that make no array
            return
        instance.arena[:] = np.random.default_rng(1).integers(0, 256, len(instance.arena), np.uint8)
        sample = Guarded(front=front).take(codes[0].size).reshape(1, *shape)
        sample[:] = codes[:1]
        # what Python itself refuses touches nothing
        with suppress(Exception):
            instance.execute(sample)
            instance.report()
        if not front and loaded.whole:
            loaded.idle.append(instance)
            with suppress(Exception):
                loaded.execute_many(codes)


def main(count: int, seed: int) -> dict[str, int]:
    """Return how many mutants were refused, run, and of instruction sets that are not here."""
    faulthandler.enable()
    mutator = Mutator(seed)
    names = [(name, isa) for name in plans() for isa in ISAS]
    told = {"refused": 0, "run": 0, "elsewhere": 0}
    for number in range(count):
        name, isa = names[number % len(names)]
        mutant = mutator.mutant(program_of(name, isa, keep=number // len(names) % 4 == 0))
        try:
            check(mutant)
        except ProgramError:
            told["refused"] += 1
            continue
        if isa.name not in kernels():
            told["elsewhere"] += 1
            continue
        print(f"mutant {number} of {name} for {isa.name}", file=sys.stderr, flush=True)
        run(plans()[name], mutant)
        told["run"] += 1
    return told


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
