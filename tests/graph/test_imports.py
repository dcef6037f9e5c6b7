"""The modules of `graph` build on each other in one direction: the file on the graph, never the graph on the file."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dqtsim.graph

ROOT = Path(dqtsim.graph.__file__).parent


def imported(source: Path, root: Path) -> set[str]:
    """Return the modules below `root` that a file imports, as paths without suffix."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = source.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            if module.with_suffix(".py").is_file() and root in module.parents:
                found.add(str(module.relative_to(root)))
    return found


def modules(root: Path) -> dict[str, set[str]]:
    """Return what each module below `root` imports of the others; packages' own files only collect names."""
    sources = [source for source in root.rglob("*.py") if source.name != "__init__.py"]
    return {str(source.relative_to(root).with_suffix("")): imported(source, root) for source in sources}


def test_there_is_no_circle() -> None:
    assert len(list(TopologicalSorter(modules(ROOT)).static_order())) >= 8


def test_only_the_file_knows_the_file() -> None:
    knowing = {name for name, others in modules(ROOT).items() if any(other.startswith("file/") for other in others)}
    assert knowing == {"file/bodies", "file/reader", "file/writer"}


def test_the_rule_notices(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "model.py").write_text("from .file.bodies import DOMAIN\n", encoding="utf-8")
    (tmp_path / "file" / "bodies.py").write_text("from ..model import Graph\n", encoding="utf-8")
    assert modules(tmp_path) == {"model": {"file/bodies"}, "file/bodies": {"model"}}
    with pytest.raises(CycleError):
        TopologicalSorter(modules(tmp_path)).prepare()
