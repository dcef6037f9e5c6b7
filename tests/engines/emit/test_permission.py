"""The matrix registers of AMX have to be asked for; where they are refused, the kernel counts as missing."""

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from llvmlite import binding

from dqtsim.cli import main
from dqtsim.engines.native.compile import build
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.isa.amx import permitted as matrices_permitted
from dqtsim.errors import InputError
from tests.vectorkernels import kernels

AMX, NEXT = ISAS[0], ISAS[1]
(NEEDS,) = AMX.needs


class Library:
    """A C library whose system calls give `answer`; `asked` are their arguments."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.asked: list[tuple[int, ...]] = []

    def syscall(self, *words: int) -> int:
        self.asked.append(words)
        return self.answer


def no_library(_name: object) -> Any:
    raise OSError("no C library")


def never(_name: object) -> Any:
    raise AssertionError("the system was asked")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ask this CPU in the test, and again afterwards."""
    monkeypatch.delenv(build.VARIABLE, raising=False)
    build.host.cache_clear()
    yield
    monkeypatch.undo()
    build.host.cache_clear()


@pytest.fixture
def modern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU have all that the kernel needs, on Linux."""
    features = dict.fromkeys((*NEEDS, "avx2"), True)
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "modern")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(build, "architecture", lambda: AMX.architecture[0])


@pytest.mark.parametrize("answer", [0, -1, 1, 22])
def test_linux_is_asked_for_the_registers(answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(answer)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library if name is None else never(name))
    assert matrices_permitted() == (answer == 0)
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    assert library.asked == [(158, 0x1023, 18)]


@pytest.mark.parametrize("name", ["darwin", "win32", "freebsd14", "cygwin"])
def test_no_other_system_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", name)
    monkeypatch.setattr(ctypes, "CDLL", never)
    assert not matrices_permitted()


@pytest.mark.parametrize("open_library", [no_library, lambda _name: object()], ids=["no library", "no system calls"])
def test_a_system_that_cannot_be_asked(open_library: Callable[[object], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", open_library)
    assert not matrices_permitted()


def test_a_cpu_without_them_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"avx2": True, "amx-tile": False})
    monkeypatch.setattr(ctypes, "CDLL", never)
    assert build.host()[1] == {"avx2": True, "amx-tile": False}


@pytest.mark.usefixtures("modern")
@pytest.mark.parametrize("permitted", [False, True])
def test_what_is_refused_is_missing(permitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library(0 if permitted else -1))
    assert build.host() == ("modern", {**dict.fromkeys((*NEEDS, "avx2"), True), "amx-tile": permitted})
    assert build.choose({}).isa is (AMX if permitted else NEXT)
    assert build.missing(AMX, build.host()[1]) == ([] if permitted else ["amx-tile"])
    if permitted:
        assert build.choose({build.VARIABLE: "amx"}).isa is AMX
        return
    with pytest.raises(InputError) as caught:
        build.choose({build.VARIABLE: "amx"})
    assert str(caught.value) == (
        "DQTSIM_KERNEL names a kernel that the CPU can run; found 'amx', but this CPU lacks amx-tile for amx."
    )


@pytest.mark.usefixtures("modern")
@pytest.mark.parametrize("how", ["refused", "no library", "another system"])
def test_the_page_about_a_computer_that_refuses(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "another system":
        monkeypatch.setattr(sys, "platform", "freebsd14")
    else:
        monkeypatch.setattr(ctypes, "CDLL", no_library if how == "no library" else lambda _name: Library(-1))
    result = CliRunner().invoke(main, ["info", "--machine", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["kernel"]["name"]) == (0, NEXT.name)
    assert found["kernel"]["chosen_because"] == "it is the best that this CPU has"
    assert {name for name, has in found["cpu"]["features"].items() if not has} == {"amx-tile"}
    result = CliRunner().invoke(main, ["info", "--machine"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[0].rstrip()) == (0, f"kernel {NEXT.name}: {NEXT.says}")
    assert [line.split() for line in lines if line.startswith("lacks")] == [["lacks", "amx-tile"]]
    monkeypatch.setenv(build.VARIABLE, "amx")
    result = CliRunner().invoke(main, ["info", "--machine"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("this CPU lacks amx-tile for amx.\n")
    assert result.stderr.count("\n") == 1


def test_asking_twice_is_no_harm() -> None:
    first, second = matrices_permitted(), matrices_permitted()
    assert first == second
    # a CPU with the kernel is one that permits it
    assert first or "amx" not in kernels()
