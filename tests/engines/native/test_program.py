"""A program is a value: it prints, compares and pickles, and knows nothing of the process that made it."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.engines.native.lower import lower as driver
from dqtsim.engines.native.lower.lower import lower
from dqtsim.engines.native.lower.state import Emit, Handler, Known, Lowering
from dqtsim.engines.native.memory import Constant, Constants, Data, Spot, Table
from dqtsim.engines.native.operations import RECORDS
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.run.loaded import Instance, Loaded, readable
from dqtsim.planner import Step
from tests.builders import compiled, network, picture

from .mutants import plans, program_of

every_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
every_plan = pytest.mark.parametrize("name", plans())


@every_plan
@every_isa
def test_a_program_is_what_it_was_after_pickling(name: str, isa: Isa) -> None:
    program = program_of(name, isa, keep=False)
    copy = pickle.loads(pickle.dumps(program))
    assert copy is not program
    assert copy == program
    assert str(copy) == str(program)
    for one, other in zip(copy.constants, program.constants, strict=True):
        # kernels can read it as it is, and nobody writes it
        assert isinstance(other, Table) or (readable(one.array) and not one.array.flags.writeable)


@every_isa
def test_lowering_gives_the_same_program_again_for_any_cpu(isa: Isa) -> None:
    plan = plans()["small"]
    assert lower(plan, isa) == lower(plan, isa)
    assert lower(plan, isa) != lower(plan, isa, keep=True)
    assert lower(plan, isa) != lower(plans()["static"], isa)
    assert lower(plan, isa).__eq__(3) is NotImplemented


def test_one_bit_more_is_another_program() -> None:
    program = lower(plans()["small"], ISAS[-1])
    number, data = next((n, piece) for n, piece in enumerate(program.constants) if isinstance(piece, Data))
    array = data.array.copy()
    array[0] ^= 1
    changed = (*program.constants[:number], Data(array), *program.constants[number + 1 :])
    assert replace(program, constants=changed) != program
    assert replace(program, folded={"x": np.zeros(1)}) != program


DUMPED = """
from hashlib import sha256
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.lower.lower import lower
from tests.engines.native.mutants import plans
for name in ("small", "WRAP", "ones"):
    for isa in ISAS:
        print(sha256(str(lower(plans()[name], isa)).encode()).hexdigest())
"""


def test_its_text_is_the_same_in_every_process() -> None:
    """Whatever order sets have there."""
    texts = {
        subprocess.run(
            [sys.executable, "-c", DUMPED],
            env={**environment(), "PYTHONHASHSEED": seed},
            check=True,
            stdout=-1,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [
        sha256(str(lower(plans()[name], isa)).encode()).hexdigest()
        for name in ("small", "WRAP", "ones")
        for isa in ISAS
    ]
    assert texts == {"\n".join(here) + "\n"}


def environment() -> dict[str, str]:
    """Return this process's variables."""

    return dict(os.environ)


RUN = """
import pickle, sys
import numpy as np
from dqtsim.engines.native.compile.build import choose
from dqtsim.engines.native.compile.functions import Functions
from dqtsim.engines.native.run.loaded import Instance, Library, Loaded
from tests.builders import compiled, network, picture
plan = compiled(network())
isa = choose().isa
program = pickle.load(sys.stdin.buffer)
instance = Instance(Loaded(plan, program, Library(isa, Functions(isa, plan.machine.rounding))))
instance.execute(picture())
sys.stdout.buffer.write(instance.report().tobytes())
"""


def test_another_process_runs_it() -> None:
    loaded = native(compiled(network())).loaded
    instance = Instance(loaded)
    instance.execute(picture())
    found = subprocess.run(
        [sys.executable, "-c", RUN], input=pickle.dumps(loaded.program), check=True, stdout=-1
    ).stdout
    report = loaded.program.report
    for at, place in report.tensors.values():
        assert found[at : at + place.size] == instance.report()[at : at + place.size].tobytes()
    assert len(found) == report.size


def test_a_program_is_loaded_as_often_as_one_likes() -> None:
    """With addresses of its own each time; the program does not change."""
    made = native(compiled(network()))
    text = str(made.program)
    again = Loaded(made.plan, made.program, made.library)
    assert again.addresses.starts != made.loaded.addresses.starts
    reports = []
    for loaded in (made.loaded, again):
        instance = Instance(loaded)
        instance.execute(picture())
        reports.append(instance.report().tobytes())
    assert reports[0] == reports[1]
    assert str(made.program) == text


def test_its_text_names_every_operation_word_and_place() -> None:
    program = lower(plans()["small"], ISAS[-1])
    lines = str(program).splitlines()
    assert lines[0] == (
        f"program of small for portable, TIES_UP: {len(program.operations)} operations, the first {program.alone} by "
        f"each sample alone; arena of {program.arena_bytes} bytes; {len(program.constants)} constants, "
        f"{program.constant_bytes} bytes"
    )
    assert lines[1].startswith("   0 - clear chunks=1 target=arena+")
    conv = next(n for n, op in enumerate(program.operations) if isinstance(op, Operation) and op.function == "conv")
    line = lines[1 + conv]
    assert [word.split("=")[0] for word in line.split()[4:]] == list(RECORDS["conv"].names[2:])
    target = program.operations[conv].words["target"]  # type: ignore[union-attr]
    assert isinstance(target, Spot)
    assert f" target=arena+{program.at(target)}[{target.buffer}+{target.offset}] " in line
    assert " residual=none " in line
    assert " choice=const#" in line
    assert lines.index("tensors") < lines.index("buffers") < lines.index("constants")
    assert sum(line.startswith("  [") for line in lines) == len(program.buffers)
    assert sum(line.startswith("  const#") for line in lines) == len(program.constants)


def test_words_that_are_missing_or_unknown_are_refused() -> None:
    state = Lowering(plans()["small"], ISAS[-1], keep=False)
    with pytest.raises(ValueError, match=r"^words \['bytes', 'size'\] of clear are missing or unknown$"):
        state.add("clear", target=state.room(8), size=8)


def test_constants_that_are_equal_are_kept_once() -> None:
    constants = Constants()
    weights = constants.add(np.arange(4))
    assert constants.table(("place", "count"), (weights, 3)) == Constant(1)
    assert constants.table(("place", "count"), (weights, 3)) == Constant(1)
    assert constants.table(("place", "count"), (weights + 8, 3)) == Constant(2)
    assert weights + 8 == Constant(0, 8)
    # equal bytes of other words are something else
    assert constants.table(("place", "count"), (Spot(0), 3)) != constants.table(("place", "count"), (Constant(0), 3))


# ---- handlers ----


def snapshot(state: Lowering) -> object:
    """Return all that a handler could have changed."""
    made = (len(state.operations), len(state.memory.pieces), dict(state.places), len(state.lives))
    return (*made, pickle.dumps([state.lives, state.flags, state.sums, sorted(state.fused), state.alone, state.step]))


@every_plan
@pytest.mark.parametrize("keep", [False, True])
def test_a_handler_looks_before_anything_is_made(name: str, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it has a native form, a step has left no trace before it is emitted."""
    seen: set[bool] = set()

    def watched(handler: Handler) -> Handler:
        def match(known: Known, step: Step) -> Emit | None:
            assert isinstance(known, Lowering)
            before = snapshot(known)
            found = handler(known, step)
            assert snapshot(known) == before
            seen.add(found is not None)
            return found

        return match

    monkeypatch.setattr(driver, "HANDLERS", {key: watched(value) for key, value in driver.HANDLERS.items()})
    for isa in ISAS:
        lower(plans()[name], isa, keep=keep)
    assert True in seen


def test_handlers_that_say_no_leave_no_trace() -> None:
    """Each of them, for steps of all kinds whose tensors do not exist yet, or are of another kind."""
    refused = 0
    for plan in plans().values():
        state = Lowering(plan, ISAS[-1], keep=False)
        for step in plan.steps:
            handler = driver.HANDLERS.get(step.node.operator)
            if handler is not None and step.node.inputs[0] not in plan.graph.initializers:
                before = snapshot(state)
                refused += handler(state, step) is None
                assert snapshot(state) == before
    assert refused > 50
