"""Files and folders that a command writes: whole or not at all, and nothing is deleted that dqtsim did not make.

Output is first written beside its final place, under a name that no other process has, and is renamed at the end.
A folder is replaced whole, and only if it is empty or holds nothing but `manifest.json` and the files that it names.
The new folder is complete before the old one is moved away; the old one is deleted last, file by file.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import limits
from .errors import OutputError

MANIFEST = "manifest.json"
# Other writers may put their own folder into the place again and again.
_TRIES = 100
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True)
class Kind:
    """A kind of folder: the keys by which its manifest is known, and the files that such a manifest names.

    `files` gives paths relative to the folder, with '/'; KeyError or TypeError means that the manifest is not of this
    kind.
    """

    keys: Collection[str]
    files: Callable[[Any], Iterable[str]]


def check_file(path: Path) -> None:
    """Raise OutputError, before long work, if its result could not be written to the file `path`."""
    with _sentence(f"'{path}'"):
        folder = _real(path).parent
        for each in (path.parent, folder):
            if not each.is_dir():
                raise OutputError(f"'{path}' cannot be written: '{each}' is no folder.")
        if path.is_dir():
            raise OutputError(f"'{path}' cannot be written: is a directory.")
        if path.exists() and not path.is_file():
            raise OutputError(f"'{path}' cannot be written: it is no regular file.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"'{path}' cannot be written: permission denied.")


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` at the end, or leave nothing if anything fails.

    An existing file is replaced; a link stays, and the file that it points to is replaced. Raises OutputError.
    """
    check_file(path)
    target = _real(path)
    aside = _beside(target, "part")
    try:
        with _sentence(f"'{path}'"):
            yield aside
            aside.replace(target)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def check_folder(path: Path, kind: Kind) -> None:
    """Raise OutputError, before long work, if `write_folder` could not write its result to `path`."""
    cannot = f"the folder '{path}' cannot be written"
    with _sentence(f"the folder '{path}'"):
        if path.is_symlink():
            raise OutputError(f"{cannot}: it is a link.")
        if not path.parent.is_dir():
            raise OutputError(f"{cannot}: '{path.parent}' is no folder.")
        if Path.cwd().is_relative_to(_real(path)):
            raise OutputError(f"{cannot}: it is replaced whole, and this command runs in it.")
        _check_contents(path, kind)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{cannot}: permission denied.")


def check_apart(file: Path, folder: Path) -> None:
    """Raise OutputError if `file`, an output too, would lie in `folder`, which `write_folder` replaces."""
    if _real(file).is_relative_to(_real(folder)):
        raise OutputError(f"'{file}' must lie outside the folder '{folder}', which is replaced whole.")


@contextmanager
def write_folder(path: Path, kind: Kind) -> Iterator[Path]:
    """Yield a new folder beside `path` to write to; put it in the place of `path` at the end, or leave nothing.

    The caller writes MANIFEST there; `kind` says which files it names. If several processes write at once, the last to
    finish wins, and the folder is wholly its own. Raises OutputError where `path` holds anything else (see module).
    """
    check_folder(path, kind)
    aside = _beside(path, "part")
    with _sentence(f"the folder '{path}'"):
        aside.mkdir()
        try:
            yield aside
            old = _exchange(aside, path, kind)
        finally:
            # made here under a unique name: everything in it is ours
            shutil.rmtree(aside, ignore_errors=True)
    for each in old:
        _delete(each, path, kind)


@contextmanager
def _sentence(what: str) -> Iterator[None]:
    """Turn an error of the system into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {_reason(error)}.") from None


def _real(path: Path) -> Path:
    """Return where a path leads, through all links."""
    return Path(os.path.realpath(path))


def _beside(path: Path, ending: str) -> Path:
    """Return a path in the same folder that nobody else uses."""
    return path.with_name(f".dqtsim-{os.getpid()}-{secrets.token_hex(8)}.{ending}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _exchange(aside: Path, path: Path, kind: Kind) -> list[Path]:
    """Rename `aside` to `path`; return where the folders that were there before are now."""
    old: list[Path] = []
    try:
        for _ in range(_TRIES):
            old.append(_beside(path, "old"))
            try:
                path.replace(old[-1])
            except FileNotFoundError:
                old.pop()
            else:
                _refuse_foreign(old[-1], path, kind)  # something may have come into it since the check
            try:
                aside.replace(path)
                return old
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
    except BaseException:
        _put_back(old, path)
        raise
    raise OutputError(f"the folder '{path}' cannot be written: other processes keep writing it.")


def _put_back(old: list[Path], path: Path) -> None:
    moved = [each for each in old if os.path.lexists(each)]
    if moved:
        try:
            moved[-1].replace(path)
        except OSError:
            raise OutputError(
                f"the folder '{path}' cannot be written; what was there is now in '{moved[-1]}'."
            ) from None


def _check_contents(path: Path, kind: Kind) -> None:
    """Refuse foreign files in `path`; look again if another process has replaced it meanwhile."""
    for _ in range(_TRIES):
        try:
            seen = path.stat().st_ino
        except FileNotFoundError:
            return
        try:
            _refuse_foreign(path, path, kind)
            return
        except (OutputError, FileNotFoundError):
            if path.exists() and path.stat().st_ino == seen:
                raise


def _refuse_foreign(place: Path, path: Path, kind: Kind) -> None:
    """Raise OutputError, which names `path`, if the folder at `place` holds anything but the files of its manifest."""
    if place.is_symlink() or not place.is_dir():
        raise OutputError(f"the folder '{path}' cannot be written: it is no folder.")
    own = _own(place, kind)
    for name, _, is_own in _walk(place, own):
        if not is_own:
            raise OutputError(
                f"the folder '{path}' cannot be written: it holds '{name}', which this command did not make; "
                "name a new or an empty folder."
            )


def _own(folder: Path, kind: Kind) -> set[str]:
    """Return the manifest of a folder and the files that it names; none if it has no manifest of that kind."""
    path = folder / MANIFEST
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > limits.MANIFEST_BYTES:
            return set()
        manifest = limits.json_tree(limits.read_text(path, limits.MANIFEST_BYTES))
        known = isinstance(manifest, dict) and all(key in manifest for key in kind.keys)
        return {*kind.files(manifest), MANIFEST} if known else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _walk(folder: Path, own: set[str], inside: str = "") -> Iterator[tuple[str, bool, bool]]:
    """Yield (name, is folder, is own) for the entries of a folder, by name; a subfolder comes after its own entries.

    Links are files, and never own. Folders that hold nothing of `own` are not searched.
    """
    with os.scandir(folder / inside) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{inside}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder:
            is_own = any(each.startswith(f"{name}/") for each in own)
            if is_own:
                yield from _walk(folder, own, f"{name}/")
        else:
            is_own = name in own and entry.is_file(follow_symlinks=False)
        yield name, is_folder, is_own


def _delete(folder: Path, path: Path, kind: Kind) -> None:
    """Delete an old folder, now aside, if it holds only its manifest's files; the manifest goes last."""
    try:
        _refuse_foreign(folder, folder, kind)
        own = _own(folder, kind)
        for name, is_folder, is_own in list(_walk(folder, own)):
            if is_own and name != MANIFEST:
                (folder / name).rmdir() if is_folder else (folder / name).unlink()
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.rmdir()
    except (OSError, OutputError) as error:
        reason = _reason(error) if isinstance(error, OSError) else "it holds more than this command made"
        raise OutputError(
            f"the folder '{path}' is written, but what it held before is still in '{folder}': {reason}."
        ) from None
