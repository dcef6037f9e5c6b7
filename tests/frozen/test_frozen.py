"""What a user sees is what is pinned: IR, model files, commands and what they write, public names.

`python -m tests.frozen.write` pins anew what was meant to change.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from . import outputs, places
from .commands import ROOT, TEXTS, cases, output, prepare
from .write import difference

CASES = cases()
PINNED: Mapping[str, Any] = outputs.pinned()["outputs"]
VERSIONS: Mapping[str, str] = outputs.pinned()["versions"]


def pinned(*starts: str) -> dict[str, Any]:
    return {key: value for key, value in PINNED.items() if key.startswith(starts)}


def different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)]


def skip_under_other(packages: Sequence[str]) -> None:
    """Skip, and say so, where an output differs and was pinned under other versions of what takes part in it."""
    others = [f"{name} {VERSIONS[name]}" for name in packages if version(name) != VERSIONS[name]]
    if others:
        pytest.skip(f"differs, but was pinned with {', '.join(others)}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("frozen")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield folder


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    """Emission makes a million small objects at a time; looking for cycles among them takes a third of the time."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("nothing_collected")
@pytest.mark.parametrize("isa", places.instruction_sets())
def test_emitted_ir(isa: str) -> None:
    changed = different(outputs.ir(isa), pinned(f"ir/{isa}/"))
    if changed:
        skip_under_other(outputs.IR_NEEDS)
    assert changed == []


def test_emitted_ir_does_not_depend_on_hashes_of_strings() -> None:
    code = "import json; from tests.frozen.outputs import ir; print(json.dumps(ir('avx2', ['TIES_EVEN'])))"
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
        found.append(json.loads(run.stdout))
    assert found[0] == found[1]
    assert len(found[0]) == 8


def test_programs_print_as_they_did() -> None:
    assert different(outputs.programs(), pinned("program/")) == []


def test_libraries_of_every_instruction_set() -> None:
    assert different(outputs.libraries(), pinned("libraries/")) == []


def test_function_bodies() -> None:
    changed = different(outputs.bodies(), pinned("body/"))
    if changed:
        skip_under_other(outputs.ONNX_NEEDS)
    assert changed == []


@pytest.mark.parametrize("name", sorted(outputs.models()))
def test_a_model_is_written_as_it_was_read(name: str) -> None:
    path = outputs.models()[name]
    assert places.written(path) == path.read_bytes()


@pytest.mark.parametrize("name", sorted(pinned("models/")))
def test_a_committed_model_is_written_as_ever(name: str) -> None:
    assert outputs.model(ROOT / name) == PINNED[name]


def test_public_names() -> None:
    found = outputs.public()
    assert {key: found.get(key) for key in different(found, pinned("public/"))} == {}


def test_every_key_is_compared() -> None:
    starts = [f"ir/{isa}/" for isa in places.instruction_sets()]
    assert set(PINNED) == set(pinned(*starts, "libraries/", "program/", "body/", "models/", "public/"))
    assert {path.stem for path in TEXTS.glob("*.txt")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_command_prints_and_writes(name: str, place: Path) -> None:
    path = TEXTS / f"{name}.txt"
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    changed = difference(expected, output(CASES[name], place), f"cli/{name}.txt")
    if changed:
        skip_under_other(outputs.CLI_NEEDS)
        pytest.fail(changed, pytrace=False)
