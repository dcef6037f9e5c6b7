"""`dqtsim info --machine` and the number of threads: what this computer is, and what a process may use of it."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dqtsim.cli import common, main
from dqtsim.engines.native.compile import build, cache
from dqtsim.engines.native.isa import ISAS

from .conftest import Command
from .test_commands import refusal
from .test_process import imported_by

PICTURES = "Pictures run side by side; a single one is shared."


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the cache, which is not yet made."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(build.VARIABLE, raising=False)
    monkeypatch.setattr(cache, "_LIBRARIES", {})
    return tmp_path / "cache"


def as_json(command: Command) -> dict[str, Any]:
    result = command("info", "--machine", "--json")
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_a_page_about_this_computer(command: Command, place: Path) -> None:
    result = command("info", "--machine")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    isa = build.choose().isa
    assert lines[:2] == [f"kernel {isa.name}: {isa.says}", "chosen because it is the best that this CPU has"]
    rows = [line[:10].rstrip() for line in lines[2:]]
    assert [row for row in rows if row not in ("has", "lacks")] == ["cpu", "cores", "versions", "cache", ""]
    has = {line[:10].strip(): line[10:].split() for line in lines if line[:10].rstrip() in ("has", "lacks")}
    assert build.missing(isa, dict.fromkeys(has.get("has", ()), True)) == []
    assert not any(build.host()[1][name] for name in has.get("lacks", ()))
    assert lines[-2].endswith(str(place))
    assert lines[-1].strip() == "nothing yet for this kernel"
    assert not place.exists()


def test_json(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.VARIABLE, "portable")
    found = as_json(command)
    assert list(found) == ["kernel", "cpu", "versions", "cache"]
    assert found["kernel"] == {
        "name": "portable",
        "is": ISAS[-1].says,
        "chosen_because": "DQTSIM_KERNEL is 'portable'",
    }
    name, features = build.host()
    assert found["cpu"]["llvm"] == name
    assert found["cpu"]["features"].items() <= features.items()
    assert {name for isa in ISAS for names in isa.needs for name in names} & set(features) == set(
        found["cpu"]["features"]
    )
    assert found["cpu"]["cores_available"] == common.available_cores()
    for package in ("dqtsim", "numpy", "numba", "llvmlite", "onnx"):
        assert found["versions"][package] == version(package)


def test_another_architecture(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "host", lambda: ("apple-m9", {"neon": True, "sve": False}))
    found = as_json(command)
    assert (found["kernel"]["name"], found["cpu"]["llvm"], found["cpu"]["features"]) == ("portable", "apple-m9", {})
    text = command("info", "--machine").stdout
    assert not {"has", "lacks"} & {line[:10].rstrip() for line in text.splitlines()}


def test_the_cache_is_told(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.engines.emit.adding import emit_add

    def said() -> tuple[int, int, str, str]:
        found = as_json(command)["cache"]
        return found["usable_entries"], found["broken_entries"], found["problem"], found["says"]

    assert said() == (0, 0, "", "nothing yet for this kernel")
    isa = build.choose().isa
    cache.library(emit_add, isa, "a")
    assert said() == (1, 0, "", "1 usable entry for this kernel")
    (first,) = place.iterdir()
    cache.library(emit_add, isa, "b")
    assert said() == (2, 0, "", "2 usable entries for this kernel")
    first.write_bytes(b"")
    assert said() == (1, 1, "", "1 usable entry for this kernel, 1 broken entry, compiled anew when needed")
    monkeypatch.setenv(build.VARIABLE, "portable")
    if isa.name != "portable":
        assert said()[:2] == (0, 0)
    monkeypatch.setenv(cache.VARIABLE, str(first))
    sentence = "nothing yet for this kernel; nothing can be stored there: not a folder"
    assert said() == (0, 0, "not a folder", sentence)
    assert sentence in command("info", "--machine").stdout


def test_a_kernel_that_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.VARIABLE, "mmx")
    assert refusal(command, "info", "--machine").startswith("DQTSIM_KERNEL is one of auto, ")


def test_a_model_and_the_computer(command: Command, files: Path) -> None:
    alone = command("info", files / "model.onnx").stdout
    both = command("info", files / "model.onnx", "--machine").stdout
    assert both == alone + command("info", "--machine").stdout


@pytest.mark.parametrize("words", [(), ("--json",), ("model.onnx", "--json"), ("model.onnx", "--machine", "--json")])
def test_words_that_do_not_go_together(command: Command, words: tuple[str, ...]) -> None:
    result = command("info", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    expected = "--json is for --machine without a MODEL." if words else "Missing argument 'MODEL'."
    assert result.stderr.splitlines()[-1] == f"Error: {expected}"


def test_it_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from dqtsim.cli import main\nmain(['info', '--machine', '--json'], standalone_mode=False)"
    assert imported_by(code) == set()


def test_threads_are_the_cores_available(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert common.available_cores() == 3
    names = set()
    whole = main.make_context("dqtsim", [], resilient_parsing=True)
    for name, entry in main.commands.items():
        for option in entry.params:
            if option.name == "threads" and getattr(option, "help", "") == PICTURES:
                names.add(name)
                # inside the main command: click keeps the first help option that it makes, names and all
                context = entry.make_context(name, [], whole, resilient_parsing=True)
                assert option.get_default(context) == 3
                assert "[default: (the cores available); x>=1]" in " ".join(command(name, "--help").stdout.split())
    assert names == {"run", "evaluate", "report", "count-ops", "plan", "quantize", "calibrate", "sensitivity"}
    monkeypatch.delattr(os, "sched_getaffinity")
    assert common.available_cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert common.available_cores() == 1


def test_threads_reach_the_engine(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dqtsim.engines import registry

    used: list[int] = []
    run = registry.run

    def spy(*arguments: Any) -> Any:
        used.append(arguments[3])
        return run(*arguments)

    monkeypatch.setattr(registry, "run", spy)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(3)), raising=False)
    words = ("run", files / "model.onnx", "--input", files / "three.npy")
    assert command(*words).exit_code == 0
    assert command(*words, "--threads", 2).exit_code == 0
    assert used == [3, 2]
