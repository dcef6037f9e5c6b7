"""Files and folders as outputs: whole or not at all, and nothing deleted that the command did not make."""

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqtsim import outputs
from dqtsim.errors import OutputError
from dqtsim.outputs import MANIFEST, Kind, check_apart, check_file, check_folder, write_file, write_folder

KIND = Kind(("maker", "files"), lambda manifest: manifest["files"])
Tree = dict[str, bytes]


def tree(root: Path) -> Tree:
    """Return all files under a folder, empty folders and links too."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or (path.is_dir() and not list(path.iterdir())):
            found[name] = b"link" if path.is_symlink() else b"folder"
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def put(folder: Path, mark: str, *names: str) -> None:
    """Write files and the manifest that names them into a folder."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(mark, encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps({"maker": mark, "files": names}), encoding="utf-8")


def made(path: Path, mark: str, *names: str) -> Tree:
    """Write a folder as a command does and return what is in it."""
    with write_folder(path, KIND) as aside:
        put(aside, mark, *names)
    return tree(path)


def refused(path: Path) -> str:
    """Return the sentence of a refusal, which comes with the check and before anything is written."""
    before = tree(path.parent)
    with pytest.raises(OutputError) as checked:
        check_folder(path, KIND)
    with pytest.raises(OutputError) as written, write_folder(path, KIND):
        raise AssertionError("the work began")
    assert str(written.value) == str(checked.value)
    assert tree(path.parent) == before
    return str(checked.value)


def holds(path: Path, name: str) -> str:
    return (
        f"the folder '{path}' cannot be written: it holds '{name}', which this command did not make; "
        "name a new or an empty folder."
    )


def failing(monkeypatch: pytest.MonkeyPatch, name: str, calls: tuple[int, ...], error: BaseException) -> None:
    """Let calls of a method of Path fail, counted from 1."""
    honest: Callable[..., Any] = getattr(Path, name)
    count = 0

    def method(self: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count in calls:
            raise error
        return honest(self, *arguments, **options)

    monkeypatch.setattr(Path, name, method)


def test_a_new_folder(tmp_path: Path) -> None:
    assert set(made(tmp_path / "v", "new", "a", "sub/b")) == {"a", "sub/b", MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    with_umask = tmp_path / "plain"
    with_umask.mkdir()
    assert (tmp_path / "v").stat().st_mode == with_umask.stat().st_mode


def test_a_folder_of_the_same_command_is_replaced_whole(tmp_path: Path) -> None:
    made(tmp_path / "v", "old", "a", "gone", "stale/b")
    assert set(made(tmp_path / "v", "new", "a", "sub/b")) == {"a", "sub/b", MANIFEST}
    assert (tmp_path / "v" / "a").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_an_empty_folder_is_taken_and_missing_files_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    assert set(made(tmp_path / "v", "old", "a", "sub/b")) == {"a", "sub/b", MANIFEST}
    (tmp_path / "v" / "sub" / "b").unlink()
    assert set(made(tmp_path / "v", "new", "c")) == {"c", MANIFEST}


def removed(path: Path) -> Path:
    """Return a path from which a file or folder was taken away."""
    path.rename(path.parent.parent / "removed")
    return path


FOREIGN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a text": ("notes.txt", lambda v: (v / "notes.txt").touch()),
    "a hidden file": (".hidden", lambda v: (v / ".hidden").touch()),
    "a folder": ("mine", lambda v: (v / "mine" / "deep").mkdir(parents=True)),
    "a file in a folder of ours": ("sub/notes", lambda v: (v / "sub" / "notes").touch()),
    "a folder in a folder of ours": ("sub/deep", lambda v: (v / "sub" / "deep").mkdir()),
    "a link in the place of a file": ("a", lambda v: removed(v / "a").symlink_to(v / MANIFEST)),
    "a folder in the place of a file": ("a", lambda v: removed(v / "a").mkdir()),
    "a file in the place of a folder": ("sub", lambda v: removed(v / "sub").touch()),
    "no manifest": ("a", lambda v: removed(v / MANIFEST)),
    "a link as manifest": ("a", lambda v: removed(v / MANIFEST).symlink_to("../removed")),
    "a pipe as manifest": ("a", lambda v: os.mkfifo(removed(v / MANIFEST))),
    "a manifest of other keys": ("a", lambda v: (v / MANIFEST).write_text('{"files": ["a", "sub/b"]}')),
    "a manifest of other types": ("a", lambda v: (v / MANIFEST).write_text('{"maker": 1, "files": 5}')),
    "a manifest of nothing hashable": ("a", lambda v: (v / MANIFEST).write_text('{"maker": 1, "files": [{}]}')),
    "a list": ("a", lambda v: (v / MANIFEST).write_text('["maker", "files"]')),
    "no JSON": ("a", lambda v: (v / MANIFEST).write_text("{")),
    "no text": ("a", lambda v: (v / MANIFEST).write_bytes(b"\xff")),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_anything_else_in_it_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "v"
    made(path, "old", "a", "sub/b")
    name, change = FOREIGN[case]
    change(path)
    assert refused(path) == holds(path, name)


def test_a_manifest_alone_of_another_program_is_foreign(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.mkdir()
    (path / MANIFEST).write_text('{"name": "an extension", "files": []}', encoding="utf-8")
    assert refused(path) == holds(path, MANIFEST)


def test_a_manifest_cannot_name_what_is_outside(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    made(tmp_path / "v", "old", "a")
    (tmp_path / "v" / MANIFEST).write_text(
        json.dumps({"maker": "", "files": ["a", "../mine", str(tmp_path / "mine"), "."]}), encoding="utf-8"
    )
    made(tmp_path / "v", "new", "b")
    assert set(tree(tmp_path)) == {"mine", "v/b", f"v/{MANIFEST}"}


def test_places_that_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "v", "old", "a")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("v")
    (tmp_path / "nowhere").symlink_to("gone")
    for name, reason in (
        ("file", "it is no folder"),
        ("link", "it is a link"),
        ("nowhere", "it is a link"),
        ("no/v", f"'{tmp_path / 'no'}' is no folder"),
        ("file/v", f"'{tmp_path / 'file'}' is no folder"),
        ("x" * 300, "file name too long"),
    ):
        with pytest.raises(OutputError) as caught:
            check_folder(tmp_path / name, KIND)
        assert str(caught.value) == f"the folder '{tmp_path / name}' cannot be written: {reason}."
    (tmp_path / "v" / "in").mkdir()
    monkeypatch.chdir(tmp_path / "v" / "in")
    for path in (Path(), Path(".."), tmp_path, Path("/")):
        with pytest.raises(OutputError) as caught:
            check_folder(path, KIND)
        reason = "it is replaced whole, and this command runs in it"
        assert str(caught.value) == f"the folder '{path}' cannot be written: {reason}."


def test_permissions_are_asked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert refused(tmp_path / "v") == f"the folder '{tmp_path / 'v'}' cannot be written: permission denied."
    with pytest.raises(OutputError) as caught:
        check_file(tmp_path / "f")
    assert str(caught.value) == f"'{tmp_path / 'f'}' cannot be written: permission denied."


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_work_that_fails_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    before = made(tmp_path / "v", "old", "a")
    with pytest.raises((OutputError, KeyboardInterrupt)) as caught, write_folder(tmp_path / "v", KIND) as aside:
        put(aside, "new", "b")
        raise error
    if isinstance(error, OSError):
        assert str(caught.value) == f"the folder '{tmp_path / 'v'}' cannot be written: no space left on device."
    assert tree(tmp_path / "v") == before
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", [1, 2])
def test_a_rename_that_fails_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    before = made(tmp_path / "v", "old", "a")
    failing(monkeypatch, "replace", (step,), error)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        made(tmp_path / "v", "new", "b")
    assert tree(tmp_path / "v") == before
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_where_the_old_folder_is_if_it_cannot_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(tmp_path / "v", "old", "a")
    failing(monkeypatch, "replace", (2, 3), PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(OutputError) as caught:
        made(tmp_path / "v", "new", "b")
    (left,) = tmp_path.iterdir()
    assert str(caught.value) == f"the folder '{tmp_path / 'v'}' cannot be written; what was there is now in '{left}'."
    assert tree(left) == before


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_deletion_that_fails_deletes_no_more_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    made(tmp_path / "v", "old", "a", "b")
    failing(monkeypatch, "unlink", (step,), PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(OutputError) as caught:
        made(tmp_path / "v", "new", "c")
    (left,) = (path for path in tmp_path.iterdir() if path.name != "v")
    assert str(caught.value) == (
        f"the folder '{tmp_path / 'v'}' is written, but what it held before is still in '{left}': permission denied."
    )
    assert set(tree(tmp_path / "v")) == {"c", MANIFEST}
    assert set(tree(left)) == {*("a", "b")[step - 1 :], MANIFEST}


def test_what_comes_into_the_folder_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "v"
    made(path, "old", "a")
    with pytest.raises(OutputError) as caught, write_folder(path, KIND) as aside:
        put(aside, "new", "b")
        (path / "notes").touch()
    assert str(caught.value) == holds(path, "notes")
    assert set(tree(tmp_path)) == {"v/a", "v/notes", f"v/{MANIFEST}"}


def test_what_comes_after_the_renames_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v"
    made(path, "old", "a")
    honest = outputs._exchange

    def late(aside: Path, path: Path, kind: Kind) -> list[Path]:
        old = honest(aside, path, kind)
        (old[0] / "notes").touch()
        return old

    monkeypatch.setattr(outputs, "_exchange", late)
    with pytest.raises(OutputError) as caught:
        made(path, "new", "b")
    (left,) = (found for found in tmp_path.iterdir() if found != path)
    assert str(caught.value) == (
        f"the folder '{path}' is written, but what it held before is still in '{left}': "
        "it holds more than this command made."
    )
    assert set(tree(left)) == {"a", "notes", MANIFEST}


def test_a_writer_in_between_is_replaced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "v", "old", "a")
    honest = Path.replace
    others = iter(["one", "two"])

    def replace(self: Path, target: Path) -> Path:
        other = next(others, "") if self.suffix == ".part" else ""
        if other:
            (tmp_path / "v").mkdir()
            put(tmp_path / "v", other, other)
        return honest(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert set(made(tmp_path / "v", "new", "b")) == {"b", MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def writer(path: Path, mark: str, start: Any) -> None:
    start.wait()
    for index in range(100):
        with write_folder(path, KIND) as aside:
            put(aside, mark, *(f"{mark}{index}/{number}" for number in range(5)))


def test_processes_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=writer, args=(tmp_path / "v", mark, start)) for mark in "xy"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    manifest = json.loads((tmp_path / "v" / MANIFEST).read_text(encoding="utf-8"))
    found = tree(tmp_path / "v")
    assert set(found) == {MANIFEST, *manifest["files"]}
    assert {found[name] for name in manifest["files"]} == {manifest["maker"].encode()}
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_file_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    for mark in ("old", "new"):
        with write_file(path) as aside:
            aside.write_text(mark, encoding="utf-8")
    assert tree(tmp_path) == {"f": b"new"}
    for error in (PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            failing(patch, "replace", (1,), error)
            with pytest.raises((OutputError, KeyboardInterrupt)) as caught, write_file(path) as aside:
                aside.touch()
        assert tree(tmp_path) == {"f": b"new"}
        if isinstance(error, OSError):
            assert str(caught.value) == f"'{path}' cannot be written: permission denied."


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in/f")
    with write_file(tmp_path / "link") as aside:
        aside.write_text("new", encoding="utf-8")
    assert tree(tmp_path) == {"in/f": b"new", "link": b"link"}


def test_two_writers_of_a_file_have_names_of_their_own(tmp_path: Path) -> None:
    with write_file(tmp_path / "f") as one, write_file(tmp_path / "f") as two:
        assert one != two
        one.write_text("one", encoding="utf-8")
        two.write_text("two", encoding="utf-8")
    assert tree(tmp_path) == {"f": b"one"}


def test_places_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "astray").symlink_to("no/f")
    for name, reason in (
        ("folder", "is a directory"),
        ("pipe", "it is no regular file"),
        ("no/f", f"'{tmp_path / 'no'}' is no folder"),
        ("file/f", f"'{tmp_path / 'file'}' is no folder"),
        ("astray", f"'{tmp_path / 'no'}' is no folder"),
        ("x" * 300, "file name too long"),
    ):
        with pytest.raises(OutputError) as caught, write_file(tmp_path / name):
            raise AssertionError("the work began")
        assert str(caught.value) == f"'{tmp_path / name}' cannot be written: {reason}."


def test_a_file_lies_outside_the_folder_that_is_replaced(tmp_path: Path) -> None:
    check_apart(tmp_path / "v.onnx", tmp_path / "v")
    (tmp_path / "link").symlink_to("v")
    for file in (tmp_path / "v", tmp_path / "v" / "f", tmp_path / "link" / "f", tmp_path / "w" / ".." / "v" / "f"):
        with pytest.raises(OutputError) as caught:
            check_apart(file, tmp_path / "v")
        assert str(caught.value) == (
            f"'{file}' must lie outside the folder '{tmp_path / 'v'}', which is replaced whole."
        )
