"""The check of programs: what lowering makes passes it, and no program that passes it touches memory of others."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.check import ProgramError, check
from dqtsim.engines.native.check.check import FOOTPRINTS
from dqtsim.engines.native.check.kernels import kernels_of
from dqtsim.engines.native.check.words import Words
from dqtsim.engines.native.compile.functions import Functions, can_count
from dqtsim.engines.native.isa import AND, ISAS, XOR, Isa
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.memory import Constant, Function, Spot, Table, Word
from dqtsim.engines.native.operations import RECORDS
from dqtsim.engines.native.program import Fallback, Operation, Program
from dqtsim.engines.native.run.loaded import Instance, Library, Loaded
from dqtsim.planner import Plan
from dqtsim.spec import Overflow, Rounding
from dqtsim.structures import build
from tests.builders import Array, compiled
from tests.vectorkernels import kernels

from .mutants import plans, program_of, with_one

every_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
every_plan = pytest.mark.parametrize("name", plans())
PORTABLE = ISAS[-1]


# ---- what lowering makes ----


@every_plan
@every_isa
@pytest.mark.parametrize("keep", [False, True])
def test_what_lowering_makes_is_right(name: str, isa: Isa, keep: bool) -> None:
    check(program_of(name, isa, keep=keep))


@every_isa
@pytest.mark.parametrize("structure", ["resnet8", "resnet20", "mobilenetv2"])
def test_structures_are_right(isa: Isa, structure: str) -> None:
    how: dict[str, Any] = {"input_size": 64, "classes": 10} if structure == "mobilenetv2" else {}
    for overflow in (Overflow.ERROR, Overflow.SATURATE_EACH):
        check(lower(compiled(build(structure, **how), accumulator_width=14, overflow=overflow), isa))


def test_every_operation_is_checked_somewhere() -> None:
    assert FOOTPRINTS.keys() == RECORDS.keys()
    programs = [program_of(name, isa, keep=False) for name in plans() for isa in ISAS]
    seen = {op.function for program in programs for op in program.operations if isinstance(op, Operation)}
    assert seen == RECORDS.keys()


@pytest.mark.parametrize("name", kernels())
def test_kernels_are_those_that_are_compiled(name: str) -> None:
    isa = next(isa for isa in ISAS if isa.name == name)
    compiled_ = set(Functions(isa, Rounding.TIES_UP))
    known = {name for name in kernels_of(isa.name) if can_count(isa) or not name.startswith((AND, XOR))}
    operations = {"run", "many", "share", *RECORDS}
    assert known == {name for name in compiled_ if name not in operations and "gather" not in name}
    assert operations - compiled_ <= {"panels", "bits"}


@every_plan
@pytest.mark.parametrize("name_of_isa", kernels())
def test_nothing_is_written_that_is_not_stated(name: str, name_of_isa: str) -> None:
    """Byte by byte, an operation at a time: what the check believes is what the kernels do."""
    isa = next(isa for isa in ISAS if isa.name == name_of_isa)
    plan, program = plans()[name], program_of(name, isa, keep=True)
    instance = Instance(Loaded(plan, program, Library(isa, Functions(isa, plan.machine.rounding))))
    instance.arena[:] = np.random.default_rng(0).integers(0, 256, len(instance.arena), np.uint8)
    codes = np.random.default_rng(1).integers(0, 256, program.sample, np.uint8)
    operations = iter([None, *enumerate(program.operations)])
    before: list[Array] = [instance.arena.copy()]

    def look() -> None:
        at = next(operations)
        changed = np.flatnonzero(instance.arena != before[0])
        if at is not None:
            number, operation = at
            if isinstance(operation, Operation):
                assert set(changed.tolist()) <= written(program, isa, number, operation)
        before[0] = instance.arena.copy()

    instance.one_by_one(codes, look)
    assert next(operations, None) is None


def written(program: Program, isa: Isa, number: int, operation: Operation) -> set[int]:
    """Return the bytes of the arena that an operation may write, as the check sees it."""
    found: set[int] = set()
    for access in FOOTPRINTS[operation.function](Words(program, isa, number, operation)):
        if access.writes and isinstance(access.place, Spot):
            start = program.at(access.place)
            found |= set(range(start + access.first, start + access.last))
    return found


# ---- mistakes, one of each kind ----


def number_of(program: Program, function: str) -> int:
    return next(n for n, op in enumerate(program.operations) if isinstance(op, Operation) and op.function == function)


def with_words(function: str, **words: Word) -> Callable[[Program], Program]:
    """Return what gives the first operation of a function other words."""

    def change(program: Program) -> Program:
        number = number_of(program, function)
        operation = program.operations[number]
        assert isinstance(operation, Operation)
        return with_one(program, "operations", number, replace(operation, words={**operation.words, **words}))

    return change


def with_operation(of: str, **changes: Any) -> Callable[[Program], Program]:
    """Return what changes the first operation of a function."""

    def change(program: Program) -> Program:
        number = number_of(program, of)
        return with_one(program, "operations", number, replace(program.operations[number], **changes))

    return change


def with_table(first: str, at: int, word: Word) -> Callable[[Program], Program]:
    """Return what changes a word of the first table whose records begin with a name."""

    def change(program: Program) -> Program:
        pieces = program.constants
        number = next(n for n, piece in enumerate(pieces) if isinstance(piece, Table) and piece.names[0] == first)
        piece = pieces[number]
        assert isinstance(piece, Table)
        return with_one(
            program, "constants", number, replace(piece, words=(*piece.words[:at], word, *piece.words[at + 1 :]))
        )

    return change


CLEAR = "operation 0, clear, "
CONV = "operation 3, conv of 'stem', "
WRONG: list[tuple[Callable[[Program], Program], str]] = [
    (lambda p: replace(p, isa="mmx"), "the program is for an instruction set mmx, which there is none of."),
    (with_operation("clear", chunks=0), CLEAR + "has 0 chunks; there are 1 to 64."),
    (with_operation("clear", function="erase"), "operation 0, erase, is no operation."),
    (
        with_operation("clear", function="planes"),
        "operation 0, planes, has the words target bytes, not source row step channels height width target.",
    ),
    (with_words("clear", bytes=1 << 40), CLEAR + "takes 'bytes', a number from 0 to 2147483648; found 1099511627776."),
    (with_words("clear", bytes=None), CLEAR + "takes 'bytes', a number from 0 to 2147483648; found None."),
    (with_words("clear", target=8), CLEAR + "takes 'target', a place in memory; found 8."),
    (with_words("clear", target=Spot(99)), CLEAR + "writes target in buffer 99; there are 20."),
    (with_words("clear", target=Constant(0)), CLEAR + "writes target, constant 0, which is not for that."),
    (with_words("picture", channels=4), "operation 1, picture, reads 4 x 6 x 6 bytes of a sample (1, 3, 6, 6)."),
    (
        with_words("picture", target_row=3),
        "operation 1, picture, has pieces of 24 bytes 3 apart, by its word target_row.",
    ),
    (with_words("conv", direct=None), CONV + "reads an input that is not there."),
    (with_words("conv", target=None), CONV + "has no target."),
    (with_words("conv", matrices=1), CONV + "takes 'matrices', a number from 0 to 0; found 1."),
    (with_words("conv", pixels=1), CONV + "calls Function(name='tile_4x1') for tiles of 1 pixels, matrices 0."),
    (
        with_words("conv", low=Spot(0)),
        CONV
        + "takes 'low', a number from -9223372036854775808 to 9223372036854775807; found Spot(buffer=0, offset=0).",
    ),
    (with_words("conv", group=0), CONV + "takes 'group', a number from 1 to 2147483648; found 0."),
    (
        with_words("argmax", columns=0),
        "operation 8, argmax of 'bits.choice', takes 'columns', a number from 1 to 2147483648; found 0.",
    ),
    (with_words("gather_rows", source_rows=2), "operation 9, gather_rows of 'bits.chosen', reads rows 0 to 2 of 2."),
    (
        with_words("gather_rows", indices=Spot(0)),
        "operation 9, gather_rows of 'bits.chosen', reads rows by indices at Spot(buffer=0, offset=0), which nobody "
        "made.",
    ),
    (
        with_table("function", 0, Function("tile_9x9")),
        CONV + "calls Function(name='tile_9x9'), which is no kernel of portable.",
    ),
    (with_table("function", 0, 4096), CONV + "calls 4096, which is no kernel of portable."),
    (with_table("function", 1, 4), CONV + "loads weights at byte 4, which is no multiple of 16."),
    (
        with_table("direct", 1, Spot(0)),
        CONV + "has weights at Spot(buffer=0, offset=0) and parameters at Constant(number=4, offset=0).",
    ),
    (
        with_table("direct", 3, Constant(0)),
        CONV + "takes blocks from Constant(number=0, offset=0), where no table begins.",
    ),
    (lambda p: replace(p, alone=1000), "the first 1000 of 25 operations are done alone."),
    (lambda p: replace(p, arena_bytes=p.arena_bytes - 200), "an arena of 1080 bytes is for buffers that need 1216."),
    (
        lambda p: with_one(p, "buffers", 0, replace(p.buffers[0], offset=p.buffers[1].offset)),
        "buffers 0 and 1 live together and share memory.",
    ),
    (
        lambda p: with_one(p, "buffers", 1, replace(p.buffers[1], last=1)),
        "operation 2, nest of 'stem', writes source in buffer 1, which is there from operation 1 to 1.",
    ),
    (
        lambda p: replace(p, report=replace(p.report, size=p.report.size + 8)),
        "the program has 'report' from byte 0 on, 208 bytes of 200.",
    ),
    (
        lambda p: replace(p, places={**p.places, "x": replace(p.places["x"], start=Spot(0, 1 << 20))}),
        "the program has 'x' from byte 1048576 on, 256 bytes of 72.",
    ),
    (
        lambda p: replace(p, constants=p.constants[:-1]),
        "operation 20, conv of 'result', takes variants from Constant(number=46, offset=0); there are 46 constants.",
    ),
    (with_words("nest", n=7), "operation 2, nest of 'stem', nests codes into a copy that is not there."),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_mistake_is_told(number: int) -> None:
    change, sentence = WRONG[number]
    program = program_of("small", PORTABLE, keep=False)
    with pytest.raises(ProgramError) as caught:
        check(change(program))
    assert str(caught.value) == sentence


APART = "has pieces of {} bytes {} apart, by its word {}."
OUTSIDE = "reads {} from byte 0 to {} of {}, which has {}."
TABLE, POOL = "table.channels of 'slopes', ", "average_pool of 'mean', "
WRONG_ON_CODES: list[tuple[str, dict[str, Word], str]] = [
    ("multiply", {"target_row": 3}, "multiply of 'product', " + APART.format(112, 3, "target_row")),
    ("multiply", {"b_row": 1 << 20}, "multiply of 'product', " + OUTSIDE.format("b", 2097264, "buffer 5", 336)),
    ("table.channels", {"target_step": 1}, TABLE + APART.format(5, 1, "target_step")),
    (
        "table.channels",
        {"channels": 9},
        TABLE + OUTSIDE.format("tables", 2304, "constant 3", 1280),
    ),
    (
        "average_pool",
        {"multiplier_row": 64},
        POOL + OUTSIDE.format("multipliers", 136, "constant 1", 8),
    ),
]


@pytest.mark.parametrize(("function", "words", "sentence"), WRONG_ON_CODES)
def test_a_mistake_of_an_operation_on_codes_is_told(function: str, words: dict[str, Word], sentence: str) -> None:
    with pytest.raises(ProgramError) as caught:
        check(with_words(function, **words)(program_of("elements", PORTABLE, keep=False)))
    assert str(caught.value).partition(", ")[2] == sentence


def test_steps_left_to_a_fallback_have_their_tensors() -> None:
    program = program_of("left to a fallback", PORTABLE, keep=False)
    number = next(n for n, op in enumerate(program.operations) if isinstance(op, Fallback))
    operation = program.operations[number]
    assert isinstance(operation, Fallback)
    broken = with_one(program, "operations", number, replace(operation, output="elsewhere"))
    with pytest.raises(ProgramError) as caught:
        check(broken)
    assert str(caught.value) == (f"operation {number}, the step 'first', writes 'elsewhere', which has no place.")


def test_nothing_is_loaded_unchecked() -> None:
    plan: Plan = plans()["small"]
    made = native(plan)
    with pytest.raises(ProgramError):
        Loaded(plan, replace(made.program, arena_bytes=1), made.library)


# ---- mistakes by the thousand ----


@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded as Linux does it")
def test_a_thousand_mistakes_touch_nothing() -> None:
    """Each is refused, or runs between guard pages; one access beyond them would end the process with a signal."""
    words = [sys.executable, "-m", "tests.engines.native.mutants", "1000", "14"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout)
    assert sum(told.values()) == 1000
    assert told["refused"] > 600
    assert told["run"] > 40
