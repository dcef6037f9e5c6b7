"""No branch takes a member of a closed choice silently, so that the type checker names each place that a new one needs.

Members may be met in `match` statements alone, and these end in `case _: assert_never(...)`; where the choice is not
closed, they end in an error. A comparison, a membership
test or a table of members would take a new member as the last of the old ones, or stop only when it runs.
Numbers (`dqtsim/numbers.py`) are compared in the Numba kernels only, where a chain of branches ends in `assert_never`.
"""

import ast
from pathlib import Path

import pytest

import dqtsim
from dqtsim import numbers
from dqtsim.spec import Nesting, Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode

ROOT = Path(dqtsim.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
CHOICES = {choice.__name__: choice for choice in (Nesting, Rounding, Overflow, TapOrder, ArrayMode)}
# the trainer spells nesting rules as texts; the words of other choices are no texts anywhere
TEXTS = {member.value for member in Nesting}
NUMBERS = {name for name, value in vars(numbers).items() if isinstance(value, int)}


def is_member(node: ast.expr) -> bool:
    """Return whether an expression names a member of a choice, or spells one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(is_member(entry) for entry in node.elts)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id in CHOICES
    return isinstance(node, ast.Constant) and node.value in TEXTS


def is_number(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in NUMBERS and not is_member(node)


# what is matched there is open on purpose: operators of the standard, which are copied or need nothing more, and ways
# of its Resize, of which the caller refuses those that are unknown
OPEN = {"bench/standard.py", "train/exact.py", "train/onnx/moves.py"}


def never(body: list[ast.stmt]) -> bool:
    """Return whether statements are one call of `assert_never`."""
    call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "assert_never"


def faults(tree: ast.Module) -> list[str]:
    """Return what is wrong, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(is_member(part) for part in (node.left, *node.comparators)):
            found.append(f"{node.lineno}: a member is compared")
        elif isinstance(node, ast.Dict) and any(key is not None and is_member(key) for key in node.keys):
            found.append(f"{node.lineno}: a table has members for keys")
        elif isinstance(node, ast.Match):
            last = node.cases[-1]
            rest = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
            if not (rest and (never(last.body) or isinstance(last.body[0], ast.Raise))):
                found.append(f"{node.lineno}: a match does not end in assert_never")
        elif isinstance(node, ast.FunctionDef):
            compared = [
                part
                for inner in ast.walk(node)
                if isinstance(inner, ast.Compare)
                for part in (inner.left, *inner.comparators)
                if is_number(part)
            ]
            stops = any(isinstance(inner, ast.Expr) and never([inner]) for inner in ast.walk(node))
            if compared and not stops:
                found.append(f"{node.lineno}: numbers of a choice are compared, and no branch is assert_never")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_no_branch_takes_a_member_silently(source: Path) -> None:
    found = faults(ast.parse(source.read_text(encoding="utf-8")))
    assert len(found) == 1 if str(source.relative_to(ROOT)) in OPEN else not found, found


@pytest.mark.parametrize(
    "text",
    [
        "x = 1 if rounding == Rounding.FLOOR else 2",
        "x = rule in (Nesting.TIES_UP, Nesting.FLOOR)",
        "x = mode is not ArrayMode.PARALLEL",
        "x = rule == 'TIES_UP'",
        "x = {Overflow.WRAP: 1}[overflow]",
        "match rounding:\n    case Rounding.FLOOR:\n        x = 1",
        "match rounding:\n    case Rounding.FLOOR:\n        x = 1\n    case _:\n        x = 2",
        "match rule:\n    case 'FLOOR':\n        x = 1\n    case _ if x:\n        assert_never(rule)",
        "def f(rounding):\n    return 1 if rounding == FLOOR else 2",
    ],
)
def test_silent_branches_are_noticed(text: str) -> None:
    assert len(faults(ast.parse(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "match rounding:\n    case Rounding.FLOOR:\n        x = 1\n    case _:\n        assert_never(rounding)",
        "def f(rounding):\n    if rounding == FLOOR:\n        return 1\n    assert_never(rounding)",
        "x = Arithmetic(rounding=Rounding.FLOOR)",
        "x = size == 3 or name in ('a', 'b')",
    ],
)
def test_other_branches_are_let_through(text: str) -> None:
    assert faults(ast.parse(text)) == []
