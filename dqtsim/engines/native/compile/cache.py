"""Compiled functions on disk, so that a process can load them in milliseconds instead of compiling them.

A file is MAGIC, the key (32 bytes), the SHA-256 of the rest, and the rest: the length of the names (4 bytes), the names
with a line feed between them, and the object code. If any bit of a file is wrong, its functions are compiled again.
If nothing can be stored, this is not an error; `state` reports it.
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
    """The content of the cache for one instruction set: entries that can be loaded, and broken ones.

    folder is None if the computer has no place for caches. problem: why nothing can be stored, "" if it can.
    """

    folder: Path | None
    usable: int
    broken: int
    problem: str


def fingerprint(places: Iterable[Path]) -> str:
    """Return a hash of Python sources: of files and of everything under folders; "" if one of them has no sources."""
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
# everything on which the code depends: emitters, instruction sets, compilation, and the numbers of choices
_SOURCES = (
    *(_NATIVE / name for name in ("ir.py", "isa", "emit", "compile")),
    *(_PACKAGE / name for name in ("numbers.py", "spec/rules.py")),
)
# the sources that this process runs, even if the files are edited meanwhile
_RUNNING = fingerprint(_SOURCES)
_LIBRARIES: dict[tuple[str, ...], Mapping[str, int]] = {}
_LOCK = RLock()


def library(emit: Callable[[Any], None], isa: "Isa", *parts: str) -> Mapping[str, int]:
    """Return the addresses of the functions that `emit` writes into a module of llvmlite.ir, compiled for `isa`.

    `parts` name everything on which the code depends besides `isa`, the computer and the sources of this package: equal
    parts mean equal code. `emit` is called only if neither this process nor the cache has the code.
    """
    with _LOCK:
        name = (isa.name, *parts)
        if name not in _LIBRARIES:
            _LIBRARIES[name] = MappingProxyType(_loaded(emit, isa, parts))
        return _LIBRARIES[name]


def _loaded(emit: Callable[[Any], None], isa: "Isa", parts: Iterable[str]) -> dict[str, int]:
    place = folder()
    # without sources (in an archive), or with edited ones, it is not known to which code a file belongs
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
    """Return the folder of the cache, which need not exist: DQTSIM_CACHE or the platform's folder for caches."""
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
    """Return the key that a file must have to be used."""
    return sha256(json.dumps([_base(isa), *parts]).encode()).digest()


def _base(isa: "Isa") -> str:
    """Return a hash of everything on which all libraries of an instruction set depend."""
    import llvmlite
    from llvmlite import binding

    computer = (sys.platform, platform.machine(), struct.calcsize("P"), sys.byteorder, *build.processor(isa))
    versions = (_RUNNING, __version__, llvmlite.__version__, *binding.llvm_version_info)
    return sha256(json.dumps([isa.name, *computer, *versions]).encode()).hexdigest()


def _prefix(isa: "Isa") -> str:
    return f"{isa.name}-{_base(isa)[:16]}-"


def _read(path: Path, expected: bytes) -> tuple[list[str], bytes] | None:
    """Return names and object code of a file, or None if it does not exist or is damaged."""
    try:
        data = limits.read_bytes(path, limits.LIBRARY_BYTES)
    except OSError:
        return None
    entry = _entry(data, expected)
    if entry is not None:
        with suppress(OSError):
            os.utime(path)  # only the newest files are kept, and a file that is used counts as new
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
    """Write aside and rename, so that no process sees half a file; do nothing if that fails."""
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
    """Delete all but the newest files, and the partial files of killed processes; never other files."""
    with suppress(OSError):
        entries = [path for path in place.glob(f"*{SUFFIX}") if _ours(path)]
        dated = sorted(((path.stat().st_mtime, path) for path in entries), reverse=True)
        parts = [path for path in place.glob(f"{_ASIDE}*{_PART}") if _ours(path)]
        left = [(date, path) for path in parts if (date := path.stat().st_mtime) < time.time() - HOUR]
        for _, path in [*dated[NEWEST:], *left]:
            path.unlink(missing_ok=True)


def _ours(path: Path) -> bool:
    """Return whether a file belongs to a cache of any version, or is an empty partial file of one."""
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
    """Return the content of the cache for an instruction set, and whether more can be stored."""
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
