"""Compiled functions on disk, so that a process which finds them there loads them in milliseconds and emits nothing.

A file is MAGIC, the key (32 bytes), the SHA-256 of the rest, and the rest: the length of the names (4 bytes), the names
with a line feed between them, and the object code. A file that differs from that in any bit is compiled anew. Where
nothing can be stored, nothing is, and nobody is told: `state` is for those who ask.
"""

import json
import os
import platform
import re
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .... import __version__, limits
from . import build

if TYPE_CHECKING:
    from ..isa.base import Isa

VARIABLE = "DQTSIM_CACHE"
_FAMILY = b"dqtsim kernels "
MAGIC = _FAMILY + b"1\n"
SUFFIX = ".kernels"
_ASIDE, _PART = ".dqtsim-kernels-", ".part"
# an instruction set has up to five libraries for each rounding
NEWEST = 32
HOUR = 3600
_DIGEST = 32
_LENGTH = struct.Struct("<I")
_ENTRY = re.compile(r"\w+-[0-9a-f]{16}-[0-9a-f]{64}\.kernels")


@dataclass(frozen=True)
class State:
    """What the cache holds for one instruction set: entries that can be loaded, and broken ones.

    folder is None where the computer has no place for caches. problem: why nothing can be stored, "" if it can.
    """

    folder: Path | None
    usable: int
    broken: int
    problem: str


def fingerprint(places: Iterable[Path]) -> str:
    """Return a hash of Python sources: files, and all that is under folders; "" if one has nothing to read."""
    digest = sha256()
    try:
        for place in places:
            paths = [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))
            if not paths:
                return ""
            for path in paths:
                source = path.read_bytes()
                name = path.relative_to(place.parent).as_posix()
                digest.update(f"{name} {len(source)}\n".encode() + source)
    except OSError:
        return ""
    return digest.hexdigest()


_NATIVE = Path(__file__).parent.parent
_PACKAGE = _NATIVE.parent.parent
# all that the code depends on: what is emitted, for what, how it is compiled, and the numbers of choices
_SOURCES = (
    *(_NATIVE / name for name in ("ir.py", "isa", "emit", "compile")),
    *(_PACKAGE / name for name in ("numbers.py", "spec/rules.py")),
)
# what this process runs, whatever an editor does to the files while it runs
_RUNNING = fingerprint(_SOURCES)
_LIBRARIES: dict[tuple[str, ...], Mapping[str, int]] = {}
_LOCK = RLock()


def library(emit: Callable[[Any], None], isa: "Isa", *parts: str) -> Mapping[str, int]:
    """Return the addresses of the functions that `emit` writes into a module of llvmlite.ir, compiled for `isa`.

    `parts` say what the code depends on beside `isa`, the computer and the sources of this package: the same parts
    stand for the same code. `emit` is called only where neither this process nor the cache has the code.
    """
    with _LOCK:
        name = (isa.name, *parts)
        if name not in _LIBRARIES:
            _LIBRARIES[name] = MappingProxyType(_loaded(emit, isa, parts))
        return _LIBRARIES[name]


def _loaded(emit: Callable[[Any], None], isa: "Isa", parts: Iterable[str]) -> dict[str, int]:
    place = folder()
    # without sources (in an archive) or with edited ones, nobody knows of what code a file would be
    if place is None or not _RUNNING or fingerprint(_SOURCES) != _RUNNING:
        names, code = _compiled(emit, isa)
    else:
        expected = key(isa, parts)
        path = place / f"{_prefix(isa)}{expected.hex()}{SUFFIX}"
        entry = _read(path, expected)
        if entry is None:
            entry = _compiled(emit, isa)
            _write(path, expected, *entry)
        names, code = entry
    return build.load_object(code, names)


def _compiled(emit: Callable[[Any], None], isa: "Isa") -> tuple[list[str], bytes]:
    from llvmlite import ir

    module = ir.Module("dqtsim")
    emit(module)
    names = [f.name for f in module.functions if not f.is_declaration and f.linkage != "internal"]
    return names, build.compile_module(module, isa)


def folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of the cache, which need not exist: DQTSIM_CACHE or where the platform keeps such things."""
    environment = os.environ if environment is None else environment
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    if sys.platform == "win32":
        base = environment.get("LOCALAPPDATA")
        return Path(base, "dqtsim", "Cache") if base else None
    try:
        home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    except RuntimeError:  # a user without a home
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "dqtsim"
    base = environment.get("XDG_CACHE_HOME", "")
    # the specification says that relative paths are to be ignored
    return (Path(base) if Path(base).is_absolute() else home / ".cache") / "dqtsim"


def key(isa: "Isa", parts: Iterable[str]) -> bytes:
    """Return what a file must carry to be used."""
    return sha256(json.dumps([_base(isa), *parts]).encode()).digest()


def _base(isa: "Isa") -> str:
    """Return a hash of all that every library for an instruction set depends on."""
    import llvmlite
    from llvmlite import binding

    computer = (sys.platform, platform.machine(), struct.calcsize("P"), sys.byteorder, *build.processor(isa))
    versions = (_RUNNING, __version__, llvmlite.__version__, *binding.llvm_version_info)
    return sha256(json.dumps([isa.name, *computer, *versions]).encode()).hexdigest()


def _prefix(isa: "Isa") -> str:
    return f"{isa.name}-{_base(isa)[:16]}-"


def _read(path: Path, expected: bytes) -> tuple[list[str], bytes] | None:
    """Return names and object code of a file, or None if there is no such file or it is not whole."""
    try:
        data = limits.read_bytes(path, limits.LIBRARY_BYTES)
    except OSError:
        return None
    entry = _entry(data, expected)
    if entry is not None:
        with suppress(OSError):
            os.utime(path)  # the newest are kept, and what is used is new
    return entry


def _entry(data: bytes, expected: bytes) -> tuple[list[str], bytes] | None:
    head = MAGIC + expected
    digest, rest = data[len(head) : len(head) + _DIGEST], data[len(head) + _DIGEST :]
    if not data.startswith(head) or sha256(rest).digest() != digest:
        return None
    (length,) = _LENGTH.unpack_from(rest)
    end = _LENGTH.size + length
    return rest[_LENGTH.size : end].decode().split("\n"), rest[end:]


def _write(path: Path, expected: bytes, names: Iterable[str], code: bytes) -> None:
    """Write aside and rename, so that no process sees half a file; do nothing where it does not work."""
    text = "\n".join(names).encode()
    rest = _LENGTH.pack(len(text)) + text + code
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=_ASIDE, suffix=_PART)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + expected + sha256(rest).digest() + rest)
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)
    _tidy(path.parent)


def _tidy(place: Path) -> None:
    """Delete all but the newest files, and what processes left that were killed while they wrote; nobody else's."""
    with suppress(OSError):
        entries = [path for path in place.glob(f"*{SUFFIX}") if _ours(path)]
        dated = sorted(((path.stat().st_mtime, path) for path in entries), reverse=True)
        parts = [path for path in place.glob(f"{_ASIDE}*{_PART}") if _ours(path)]
        left = [(date, path) for path in parts if (date := path.stat().st_mtime) < time.time() - HOUR]
        for _, path in [*dated[NEWEST:], *left]:
            path.unlink(missing_ok=True)


def _ours(path: Path) -> bool:
    """Return whether a file is one of a cache, of any version of it, or the beginning of one that never got a byte."""
    named = _ENTRY.fullmatch(path.name) is not None
    aside = path.name.startswith(_ASIDE) and path.name.endswith(_PART)
    try:
        found = path.lstat()
        if not (named or aside) or not stat.S_ISREG(found.st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(_FAMILY)) == _FAMILY or (aside and found.st_size == 0)
    except OSError:
        return False


def state(isa: "Isa") -> State:
    """Return what the cache holds for an instruction set, and whether it can hold more."""
    place = folder()
    if place is None:
        return State(None, 0, 0, "this computer names no folder for caches")
    usable = broken = 0
    for path in place.glob(f"{_prefix(isa)}*{SUFFIX}"):
        data = b""
        with suppress(OSError):
            data = limits.read_bytes(path, limits.LIBRARY_BYTES)
        found = data[len(MAGIC) : len(MAGIC) + _DIGEST]
        whole = path.stem.endswith(f"-{found.hex()}") and _entry(data, found) is not None
        usable, broken = usable + whole, broken + (not whole)
    return State(place, usable, broken, _problem(place))


def _problem(place: Path) -> str:
    """Return why nothing can be written into a folder, or why it could not be made; "" if it can."""
    if not _RUNNING:
        return "dqtsim's sources cannot be read"
    try:
        if place.is_dir():
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(4096))
            return ""
        parent = next(path for path in place.absolute().parents if path.exists())
        if place.exists() or not parent.is_dir():
            return "not a folder" if place.exists() else f"'{parent}' is not a folder"
        return "" if os.access(parent, os.W_OK | os.X_OK) else f"'{parent}' is not writable"
    except OSError as error:
        return (error.strerror or str(error)).lower()
