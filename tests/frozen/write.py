"""Pin anew, and print what differs: `python -m tests.frozen.write`; with `--check`, print it and write nothing."""

import difflib
import json
import os
import sys
import tempfile
from pathlib import Path

from . import outputs
from .commands import ROOT, TEXTS, cases, output, prepare


def difference(old: str, new: str, name: str) -> str:
    """Return what differs, as a unified diff."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, f"{name}, pinned", f"{name}, now"))


def texts() -> dict[str, str]:
    """Return the text of every pinned command."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare(place)
        return {key: output(words, place) for key, words in cases().items()}


def main() -> int:
    """Compare, print, and write unless asked to check; return 1 if that finds a difference."""
    os.chdir(ROOT)
    old = outputs.pinned() if outputs.FILE.exists() else {"versions": {}, "outputs": {}}
    new = {"versions": outputs.versions(), "outputs": outputs.everything()}
    changed = False
    for part, entries in new.items():
        for key in sorted({*old[part], *entries}):
            if old[part].get(key) != entries.get(key):
                print(f"{key}: {old[part].get(key, 'not pinned')} -> {entries.get(key, 'gone')}")
                changed = True
    before = {path.stem: path.read_text(encoding="utf-8") for path in TEXTS.glob("*.txt")}
    after = texts()
    for name in sorted({*before, *after}):
        found = difference(before.get(name, ""), after.get(name, ""), f"cli/{name}.txt")
        print(found, end="")
        changed = changed or bool(found)
    print("what is pinned differs" if changed else "nothing differs")
    if "--check" in sys.argv:
        return int(changed)
    outputs.FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    TEXTS.mkdir(exist_ok=True)
    for name in {*before} - {*after}:
        (TEXTS / f"{name}.txt").unlink()
    for name, text in after.items():
        (TEXTS / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
