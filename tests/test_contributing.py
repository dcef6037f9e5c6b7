"""CONTRIBUTING.md is true and its recipes are complete: what neither mypy nor another test names is named here."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import dqtsim
from dqtsim import frontends, ops
from dqtsim.engines.native.lower.lower import HANDLERS
from dqtsim.engines.numba.table import KERNELS
from dqtsim.errors import ModelError
from dqtsim.graph import GraphBuilder
from dqtsim.graph.schema import DOMAIN, SCHEMAS
from dqtsim.ops import move
from dqtsim.ops.primitives import Primitive
from dqtsim.spec import Nesting, Rounding
from dqtsim.target import target_text
from dqtsim.train.rules import ACTIVATION_RULES, WEIGHT_RULES
from tests.graph.reference import Reference
from tests.networks import Sample, samples
from tests.ops.case import QUARTERS, ROUNDINGS, TIES

PACKAGE = Path(dqtsim.__file__).parent
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OF_THE_DOMAIN = {schema.operator for schema in SCHEMAS.values() if schema.domain == DOMAIN}
PATH = re.compile(r"[\w.*/-]*/[\w.*/-]*|[\w-]+\.(?:py|md|sv|toml|json)")


def readme(folder: str) -> str:
    return (PACKAGE / folder / "README.md").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def words(text: str) -> list[str]:
    """Return all words in backticks."""
    return [word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


# ---- the page ----


def missing(text: str) -> list[str]:
    """Return what a text names and the repository has not: paths, and tests as `path::name`."""
    found = []
    for word in words(text):
        path, _, test = word.partition("::")
        if not PATH.fullmatch(path):
            continue
        files = [ROOT / path] if "*" not in path else [*ROOT.glob(path)]
        if not any(file.exists() and (not test or f"def {test}(" in file.read_text("utf-8")) for file in files):
            found.append(word)
    return found


def test_all_that_is_named_is_there() -> None:
    assert len([word for word in words(TEXT) if PATH.fullmatch(word.partition("::")[0])]) > 40
    assert missing(TEXT) == []


@pytest.mark.parametrize(
    "word", ["dqtsim/none.py", "NONE.md", "tests/ops/none_*.py", "tests/test_contributing.py::none", "x tests/none"]
)
def test_what_is_not_there_is_noticed(word: str) -> None:
    assert missing(f"see `{word}`") == [word.rsplit(maxsplit=1)[-1]]


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert (ROOT / link).exists(), link


def test_there_are_five_recipes() -> None:
    assert re.findall(r"^### (.*)$", section(TEXT, "Five recipes"), re.M) == [
        "An operator",
        "A width rule (nesting)",
        "A rounding mode",
        "An instruction set",
        "A model format",
    ]


# ---- an operator ----


def test_every_operator_of_the_format_has_a_law_a_cost_and_a_kernel() -> None:
    assert set(SCHEMAS) == set(ops.operators()) == set(KERNELS)


def test_every_operator_has_a_native_form_or_is_named_as_left_to_a_fallback() -> None:
    (left,) = re.findall(r"A step without a native form \(([^)]*)\)", readme("engines/native"))
    assert {schema.operator for schema in SCHEMAS.values()} - set(HANDLERS) == set(left.split(", ")) - {"none"}


def test_the_exact_path_of_pytorch_knows_every_operator() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    exact = import_module("dqtsim.train.exact")
    assert {*exact.LAYERS, *exact._OPERATORS} == {schema.operator for schema in SCHEMAS.values()}


def test_the_reference_of_the_bodies_knows_every_operator_of_the_domain() -> None:
    assert {name for name in OF_THE_DOMAIN if not hasattr(Reference, f"op_{name}")} == set()


def test_random_networks_have_every_operator_of_the_domain() -> None:
    seen: set[str] = set()

    @settings(max_examples=150, derandomize=True, database=None, phases=[Phase.generate], deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(samples())
    def look(sample: Sample) -> None:
        seen.update(node.operator for node in sample.graph.nodes)

    look()
    assert seen >= OF_THE_DOMAIN


def test_every_primitive_has_a_row_and_every_move_is_named_where_nothing_is_counted() -> None:
    text = readme("ops")
    modules = [import_module(f"dqtsim.ops.{info.name}") for info in iter_modules(ops.__path__)]
    primitives = {value.value for module in modules for value in vars(module).values() if isinstance(value, Primitive)}
    named = {word for row in rows(text) for word in words(row[0])}
    assert primitives <= named
    assert ", ".join(sorted(operator.name for operator in move.OPERATORS)) in section(text, "What is not counted")


def test_every_equation_of_an_operator_is_in_the_law() -> None:
    law = readme("spec")
    for row in rows(readme("graph")):
        if row[0] in OF_THE_DOMAIN and len(row) == 4:
            first, *last = re.findall(r"B\d+", row[1])
            assert all(f"**({equation})" in law for equation in (first, *last)), row


def test_an_operator_of_a_later_format_is_a_change_that_users_are_told() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for schema in SCHEMAS.values():
        assert schema.since == 1 or f"`{schema.operator}`" in changes, schema.operator


# ---- a width rule, a rounding mode ----


def of_activations() -> list[str]:
    """Return the rules that the format lets activations have."""
    found = []
    for rule in Nesting:
        try:
            builder = GraphBuilder("one", activation_rule=rule)
            x = builder.input("x", (1, 4), zero_point=0, scale=1.0)
            one: dict[str, Any] = {"multiplier": 1, "shift": 0, "zero_point": 0, "scale": 1.0, "clip": (0, 255)}
            builder.output(builder.requantize("y", x, **one))
            builder.build([])
        except ModelError:
            continue
        found.append(rule.value)
    return found


def test_the_trainer_has_every_nesting_rule_of_the_format() -> None:
    assert list(WEIGHT_RULES) == [rule.value for rule in Nesting]
    assert list(ACTIVATION_RULES) == of_activations()


@pytest.mark.parametrize(
    ("key", "members"),
    [
        ("dqtsim.weight_rule", [*Nesting]),
        ("dqtsim.activation_rule", of_activations()),
        ("dqtsim.rounding", [*Rounding]),
    ],
)
def test_the_page_of_the_format_names_every_choice(key: str, members: list[str]) -> None:
    (row,) = [row for row in rows(readme("graph")) if row[0] == f"`{key}`"]
    assert re.findall(r"[A-Z_]{3,}", row[2]) == members


def test_the_law_defines_every_nesting_rule_and_every_rounding() -> None:
    law = readme("spec")
    assert re.findall(r"^\*\*\(A\d'?\) ([A-Z_]+) ", law, re.M) == [*Nesting]
    operands = " ".join(row[0] for row in rows(law.split("**(A5)")[1].split("**(")[0]))
    assert set(Nesting) <= set(re.findall(r"[A-Z_]{3,}", operands))
    assert [row[0] for row in rows(law.split("**(B4)")[1].split("**(")[0]) if row[0].isupper()] == [*Rounding]


def test_every_nesting_rule_has_its_costs_and_its_bits() -> None:
    header = next(row for row in rows(readme("ops")) if row[:2] == ["count", "definition"] and len(row) > 3)
    assert header[2:] == [*Nesting]
    bits = section(readme("engines/native"), "One bit by one bit")
    assert set(Nesting) <= set(re.findall(r"[A-Z_]{3,}", " ".join(row[0] for row in rows(bits))))


def test_every_rounding_is_in_the_proofs_and_in_the_target_that_is_copied() -> None:
    proofs = section(readme("engines/native"), "Why 32 and 64 bits are enough")
    assert set(Rounding) <= set(re.findall(r"[A-Z_]{3,}", proofs))
    (line,) = re.findall(r'^rounding = "MODEL" *# (.*)$', target_text("default"), re.M)
    assert re.findall(r"[A-Z_]{3,}", line)[:-1] == [*Rounding]


def test_case_tables_have_the_ties_of_every_rounding() -> None:
    assert list(ROUNDINGS) == list(TIES) == list(QUARTERS) == [*Rounding]


# ---- a format ----


def test_every_module_of_a_format_is_registered_and_every_format_is_on_the_page() -> None:
    shared = {"dqtsim.frontends.products"}
    modules = {f"dqtsim.frontends.{info.name}" for info in iter_modules(frontends.__path__)} - shared
    assert modules == set(frontends.FRONTENDS.values())
    first = " ".join(row[0] for row in rows(readme("frontends")))
    for name, module in frontends.FRONTENDS.items():
        assert re.search(rf"\b{name}\b", first)
        assert all(callable(getattr(import_module(module), part, None)) for part in ("detect", "load"))
