"""The law can be handed over alone: standard library, integers, and a README whose formulas run."""

import ast
import doctest
import re
import sys
from pathlib import Path

import pytest

import dqtsim.spec

FOLDER = Path(dqtsim.spec.__file__).parent
SOURCES = sorted(FOLDER.glob("*.py"))
README = FOLDER / "README.md"
EQUATIONS = [
    *(f"A{i}" for i in range(1, 7)),
    *(f"B{i}" for i in range(1, 11)),
    *("A3'", "B1'", "B2'", "B3'", "B3''"),
    *(f"C{i}" for i in range(1, 9)),
]


def violations(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"imports {name.name}" for name in node.names if name.name.split(".")[0] not in sys.stdlib_module_names
            ]
        elif isinstance(node, ast.ImportFrom):
            root = (node.module or "").split(".")[0]
            if node.level > 1 or (node.level == 0 and root not in sys.stdlib_module_names):
                found.append(f"imports from {'.' * node.level}{node.module}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append(f"holds the literal {node.value}")
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append("divides by /")
        elif isinstance(node, ast.Name) and node.id in {"float", "round", "divmod"}:
            found.append(f"uses {node.id}")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_spec_is_standard_library_and_integers_only(source: Path) -> None:
    assert violations(ast.parse(source.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    ["import numpy", "from numpy import x", "from ..graph import x", "a = 0.5", "a = b / c", "a /= b", "float(a)"],
)
def test_the_purity_check_sees_violations(text: str) -> None:
    assert len(violations(ast.parse(text))) == 1


@pytest.mark.parametrize("source", [path for path in SOURCES if path.name != "__init__.py"], ids=lambda path: path.name)
def test_every_module_of_the_law_cites_its_equations(source: Path) -> None:
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    docstrings = source.read_text(encoding="utf-8") if source.name == "rules.py" else docstring
    assert re.search(r"\b[AB][1-9]", docstrings)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_readme_numbers_every_equation(equation: str) -> None:
    assert f"({equation})" in README.read_text(encoding="utf-8")


def test_the_readme_says_what_every_module_states() -> None:
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert {f"`{path.name}`" for path in SOURCES if path.name != "__init__.py"} <= {row.split()[1] for row in rows}


def test_the_readme_runs() -> None:
    result = doctest.testfile(str(README), module_relative=False, optionflags=doctest.FAIL_FAST)
    assert result.attempted >= 20
    assert result.failed == 0
