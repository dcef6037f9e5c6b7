"""Compiled functions on disk: a cache that is never believed too much, and that is missed by nobody who has none."""

import multiprocessing
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import dqtsim
from dqtsim.engines.native.compile import build, cache
from dqtsim.engines.native.isa import ISAS, Isa
from tests.test_architecture import imports

from .adding import called, emit_add

HERE = [isa for isa in ISAS if not build.missing(isa, build.host()[1])]


def never(_module: Any) -> None:
    raise AssertionError("the code was emitted although the cache has it")


def adds(library: Mapping[str, int]) -> bool:
    assert list(library) == ["add"]
    return called(library["add"], 40, 2) == 42 and called(library["add"], -(1 << 62), 1) == 1 - (1 << 62)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of the cache, which is new and not yet made; forget what this process has loaded."""
    folder = tmp_path / "new" / "cache"
    monkeypatch.setenv(cache.VARIABLE, str(folder))
    monkeypatch.delenv(build.VARIABLE, raising=False)
    monkeypatch.setattr(cache, "_LIBRARIES", {})
    yield folder
    assert not list(tmp_path.rglob("*.part"))


def again(monkeypatch: pytest.MonkeyPatch, emit: Any, isa: Isa = HERE[0], *parts: str) -> Mapping[str, int]:
    """Return the library as a new process would."""
    monkeypatch.setattr(cache, "_LIBRARIES", {})
    return cache.library(emit, isa, *parts)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_what_is_cached_is_not_emitted_again(place: Path, monkeypatch: pytest.MonkeyPatch, isa: Isa) -> None:
    first = cache.library(emit_add, isa, "sums")
    assert adds(first)
    assert cache.library(never, isa, "sums") is first
    (file,) = files(place)
    assert file.name.startswith(f"{isa.name}-")
    second = again(monkeypatch, never, isa, "sums")
    assert adds(second)
    assert second != first  # loaded, not remembered
    assert files(place) == [file]


def test_other_parts_are_other_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in ((), ("a",), ("b",), ("a", "b"), ("ab",), ("b", "a")):
        with pytest.raises(AssertionError):
            again(monkeypatch, never, HERE[0], *parts)
        again(monkeypatch, emit_add, HERE[0], *parts)
    assert len(files(place)) == 6


def test_every_instruction_set_is_remembered_apart(place: Path) -> None:
    found = [cache.library(emit_add, isa) for isa in HERE]
    assert len({library["add"] for library in found}) == len(files(place)) == len(HERE)


def test_a_failure_is_not_remembered(place: Path) -> None:
    with pytest.raises(AssertionError):
        cache.library(never, HERE[0])
    assert not place.exists()
    assert adds(cache.library(emit_add, HERE[0]))


def test_the_key_is_of_everything_that_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite
    from llvmlite import binding

    isa = HERE[0]
    name, features = build.host()
    keys = {cache.key(isa, ("x",)), *(cache.key(other, ("x",)) for other in HERE[1:])}
    assert len(keys) == len(HERE)
    changes: list[tuple[Any, str, Any]] = [
        (build, "host", lambda: (name + "x", features)),
        (build, "host", lambda: (name, {**features, "avx9000": True})),
        (build, "host", lambda: (name, {**features, "avx9000": False})),
        (cache, "__version__", "9.9"),
        (cache, "_RUNNING", "of other sources"),
        (llvmlite, "__version__", "9.9"),
        (binding, "llvm_version_info", (99, 1, 0)),
        (sys, "platform", "plan9"),
        (sys, "byteorder", "big"),
        (platform, "machine", lambda: "pdp11"),
        (struct, "calcsize", lambda _format: 4),
    ]
    expected = len(keys) + len(changes) - 3 * (not isa.needs)
    for module, attribute, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(module, attribute, value)
            keys.add(cache.key(isa, ("x",)))
    assert len(keys) == expected
    assert cache.key(isa, ("x",)) in keys


def test_the_fingerprint_is_of_every_source(tmp_path: Path) -> None:
    assert cache.fingerprint([tmp_path / "none"]) == ""
    (tmp_path / "part").mkdir()
    places = [tmp_path / "a.py", tmp_path / "part"]
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert cache.fingerprint(places) == ""
    (tmp_path / "part" / "b.py").write_text("y = 1\n", encoding="utf-8")
    seen = {cache.fingerprint(places)}
    (tmp_path / "part" / "b.py").write_text("y = 2\n", encoding="utf-8")
    seen.add(cache.fingerprint(places))
    (tmp_path / "part" / "b.py").rename(tmp_path / "part" / "c.py")
    seen.add(cache.fingerprint(places))
    (tmp_path / "part" / "d.py").touch()
    seen.add(cache.fingerprint(places))
    assert len(seen) == 4
    (tmp_path / "part" / "notes.txt").touch()
    (tmp_path / "beside.py").touch()
    assert cache.fingerprint(places) in seen
    (tmp_path / "part" / "gone.py").symlink_to(tmp_path / "nowhere")
    assert cache.fingerprint(places) == ""


# imported by the sources of the fingerprint, and nothing that the code depends on
NO_CODE = {
    ("dqtsim", "errors"): "how DQTSIM_KERNEL is refused",
    ("dqtsim", "__version__"): "it is in the key itself",
    ("dqtsim", "limits"): "how large a cached file may be",
    ("dqtsim", "target"): "the numbers of a circuit's modes, which nothing emitted sees",
}


def test_the_fingerprint_covers_all_that_the_code_depends_on() -> None:
    package = Path(dqtsim.__file__).parent
    sources = [path for place in cache._SOURCES for path in ([place] if place.suffix else place.rglob("*.py"))]
    names = {path.name for path in sources}
    assert {"ir.py", "amx.py", "build.py", "cache.py", "tile.py", "numbers.py"} <= names
    assert {path.name for path in sources if "native" not in path.parts} == {"numbers.py", "rules.py"}
    found = {name for source in sources for name in imports(source) if name[0] == "dqtsim"} - NO_CODE.keys()
    for name in found:
        place = package.joinpath(*name[1:])
        assert place.with_suffix(".py") in sources or place / "__init__.py" in sources or place == cache._NATIVE, name


def test_an_edited_source_is_compiled(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "emit.py").write_text("one\n", encoding="utf-8")
    monkeypatch.setattr(cache, "_SOURCES", [sources])
    monkeypatch.setattr(cache, "_RUNNING", cache.fingerprint([sources]))
    cache.library(emit_add, HERE[0])
    again(monkeypatch, never)
    (sources / "emit.py").write_text("two\n", encoding="utf-8")
    # a process that began before the edit runs the old code: it neither takes nor leaves any
    with pytest.raises(AssertionError):
        again(monkeypatch, never)
    (old,) = files(place)
    old.rename(tmp_path / "old")
    assert adds(again(monkeypatch, emit_add))
    assert files(place) == []
    (tmp_path / "old").rename(old)
    monkeypatch.setattr(cache, "_RUNNING", cache.fingerprint([sources]))
    assert adds(again(monkeypatch, emit_add))
    assert len(files(place)) == 2


def test_without_sources_there_is_no_cache(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SOURCES", [tmp_path / "archive.zip"])
    monkeypatch.setattr(cache, "_RUNNING", "")
    assert adds(cache.library(emit_add, HERE[0]))
    assert not place.exists()
    assert cache.state(HERE[0]).problem == "dqtsim's sources cannot be read"


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "short by a byte": lambda data: data[:-1],
    "longer by a byte": lambda data: data + b"\0",
    "in its header": lambda data: data[: len(cache.MAGIC) + 40],
    "magic": lambda data: flipped(data, 3),
    "key": lambda data: flipped(data, len(cache.MAGIC) + 31),
    "hash": lambda data: flipped(data, len(cache.MAGIC) + 32),
    "length": lambda data: flipped(data, len(cache.MAGIC) + 64),
    "name": lambda data: data.replace(b"add", b"dad", 1),
    "code": lambda data: flipped(data, len(data) - 200),
    "last byte": lambda data: flipped(data, len(data) - 1),
    "something else": lambda data: bytes(range(256)) * 9,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_file_is_compiled_anew(place: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    cache.library(emit_add, HERE[0])
    (file,) = files(place)
    whole = file.read_bytes()
    broken = DAMAGES[damage](whole)
    assert broken != whole
    file.write_bytes(broken)
    loaded: list[bytes] = []
    load = build.load_object

    def spy(code: bytes, names: Iterable[str]) -> dict[str, int]:
        loaded.append(code)
        return load(code, names)

    monkeypatch.setattr(build, "load_object", spy)
    assert cache.state(HERE[0]) == cache.State(place, 0, 1, "")
    assert adds(again(monkeypatch, emit_add))
    assert [whole.endswith(code) for code in loaded] == [True]
    assert file.read_bytes() == whole
    assert adds(again(monkeypatch, never))
    assert cache.state(HERE[0]) == cache.State(place, 1, 0, "")


def test_the_file_of_another_key_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.library(emit_add, HERE[0], "a")
    (a,) = files(place)
    cache.library(emit_add, HERE[0], "b")
    (b,) = set(files(place)) - {a}
    b.write_bytes(a.read_bytes())
    assert cache.state(HERE[0]) == cache.State(place, 1, 1, "")
    with pytest.raises(AssertionError):
        again(monkeypatch, never, HERE[0], "b")


@pytest.mark.parametrize("problem", ["file", "under a file", "folder in the file's place", "gone"])
def test_folders_that_take_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    chosen = {"file": tmp_path / "file", "under a file": tmp_path / "file" / "cache"}.get(problem, place)
    monkeypatch.setenv(cache.VARIABLE, str(chosen))
    if problem == "folder in the file's place":
        cache.library(emit_add, HERE[0])
        (file,) = files(place)
        file.unlink()
        (file / "full").mkdir(parents=True)
    if problem == "gone":
        monkeypatch.delenv(cache.VARIABLE)
        monkeypatch.setattr(cache, "folder", lambda: None)
    for _ in range(2):
        assert adds(again(monkeypatch, emit_add))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert capfd.readouterr() == ("", "")
    said = {"file": "not a folder", "under a file": f"'{tmp_path / 'file'}' is not a folder"}
    said["gone"] = "this computer names no folder for caches"
    assert cache.state(HERE[0]).problem == said.get(problem, "")


@pytest.mark.parametrize("call", ["mkdir", "mkstemp", "write", "replace"])
def test_a_write_that_fails_is_silent(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    class Full:
        def __init__(self, descriptor: int, _mode: str) -> None:
            self.descriptor = descriptor

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_exception: object) -> None:
            os.close(self.descriptor)

        write = full

    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr(os, "fdopen", Full)
        else:
            patch.setattr(tempfile if call == "mkstemp" else Path, call, full)
        assert adds(cache.library(emit_add, HERE[0]))
    assert capfd.readouterr() == ("", "")
    assert not place.exists() or files(place) == []
    assert adds(again(monkeypatch, emit_add))
    assert len(files(place)) == 1


def test_a_read_only_folder(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o500)
    try:
        with suppress(PermissionError):
            (place / "x").touch()
            pytest.skip("nothing is read-only for this user")
        assert adds(cache.library(emit_add, HERE[0]))
        assert (files(place), cache.state(HERE[0]).problem) == ([], "permission denied")
    finally:
        place.chmod(0o700)


def test_a_folder_that_refuses_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.state(HERE[0]) == cache.State(place, 0, 0, "")
    assert not place.parent.exists()  # to ask makes nothing
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert cache.state(HERE[0]).problem == f"'{place.parent.parent}' is not writable"
    place.mkdir(parents=True)

    def denied(**_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    assert cache.state(HERE[0]).problem == "permission denied"


def test_only_the_newest_are_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)
    foreign = {"notes.txt": b"", ".other.part": b"", ".dqtsim-kernels-x.part": b"mine", "mine.kernels": cache.MAGIC}
    foreign[f"avx2-{'0' * 16}-{'0' * 64}.kernels"] = b"mine"
    for name, data in foreign.items():
        (place / name).write_bytes(data)
        os.utime(place / name, (1e7, 1e7))
    for number in range(cache.NEWEST + 3):
        cache.library(emit_add, HERE[0], str(number))
        (newest,) = [file for file in files(place) if file.suffix == cache.SUFFIX and file.stat().st_mtime > 1e9]
        os.utime(newest, (1e8 + number, 1e8 + number))
    stale, begun, young = (place / f".dqtsim-kernels-{name}.part" for name in ("stale", "begun", "young"))
    stale.touch()
    begun.write_bytes(cache.MAGIC + bytes(9))
    young.touch()
    for path in (stale, begun):
        os.utime(path, (1e8, 1e8))
    again(monkeypatch, never, HERE[0], "3")  # the oldest that is left; used, therefore new
    again(monkeypatch, emit_add, HERE[0], "one more")
    assert sum(cache._ours(file) for file in place.glob("*.kernels")) == cache.NEWEST
    for name in ("3", "5", "one more"):
        again(monkeypatch, never, HERE[0], name)
    with pytest.raises(AssertionError):
        again(monkeypatch, never, HERE[0], "4")
    assert (stale.exists(), begun.exists(), young.exists()) == (False, False, True)
    assert {name: (place / name).read_bytes() for name in foreign} == foreign
    for path in place.glob(".*.part"):
        path.unlink()


def child(start: Any, rounds: int, out: Any) -> None:
    """Load a library again and again, as other processes do at the same time."""
    start.wait()
    good = 0
    for index in range(rounds):
        cache._LIBRARIES.clear()
        good += adds(cache.library(emit_add, HERE[0], str(index % 3)))
    out.put(good)


def test_processes_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(2), context.Queue()
    rounds = 12
    children = [context.Process(target=child, args=(start, rounds, out)) for _ in range(2)]
    for process in children:
        process.start()
    assert [out.get(timeout=120) for _ in children] == [rounds, rounds]
    for process in children:
        process.join()
    assert [process.exitcode for process in children] == [0, 0]
    assert len(files(place)) == 3
    for index in range(3):
        assert adds(again(monkeypatch, never, HERE[0], str(index)))


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("linux", {"HOME": "/home/x"}, "/home/x/.cache/dqtsim"),
        ("linux", {"HOME": "/home/x", "XDG_CACHE_HOME": "/big/c"}, "/big/c/dqtsim"),
        ("linux", {"HOME": "/home/x", "XDG_CACHE_HOME": "relative"}, "/home/x/.cache/dqtsim"),
        ("linux", {"HOME": "/home/x", "XDG_CACHE_HOME": ""}, "/home/x/.cache/dqtsim"),
        ("darwin", {"HOME": "/Users/x", "XDG_CACHE_HOME": "/big/c"}, "/Users/x/Library/Caches/dqtsim"),
        ("win32", {"LOCALAPPDATA": "/local", "HOME": "/h"}, "/local/dqtsim/Cache"),
        ("win32", {"HOME": "/h"}, None),
        ("linux", {"HOME": "/home/x", "DQTSIM_CACHE": "/here"}, "/here"),
        ("win32", {"DQTSIM_CACHE": "/here"}, "/here"),
        ("linux", {"HOME": "/home/x", "DQTSIM_CACHE": ""}, "/home/x/.cache/dqtsim"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, system: str, environment: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert cache.folder(environment) == (None if expected is None else Path(expected))


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache.folder({}) is None
