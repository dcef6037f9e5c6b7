"""The README of the format says what the code does: its tables are compared, its example runs."""

import doctest
import re
from pathlib import Path

import pytest

import dqtsim.graph
from dqtsim.graph import to_onnx
from dqtsim.graph.file.bodies import functions
from dqtsim.graph.file.helpers import helpers
from dqtsim.graph.model import Arithmetic
from dqtsim.graph.schema import FORMATS, SCHEMAS, Schema
from dqtsim.spec import Nesting

from .networks import tiny

README = Path(dqtsim.graph.__file__).with_name("README.md")
TEXT = README.read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.title)
def test_the_inputs_of_every_operator(schema: Schema) -> None:
    (row,) = [row for row in ROWS if row[0] == schema.operator and len(row) == 4]
    inputs = row[2] if schema.domain else row[1]
    assert names(inputs) == [role.name for role in schema.inputs]


def test_every_operator_that_multiplies_or_adds_has_a_bound() -> None:
    bounded = " ".join(row[0] for row in ROWS if "2^63" in row[1] or "2^31" in row[1])
    for schema in (schema for schema in SCHEMAS.values() if schema.domain):
        large = any(role.name.endswith(("multiplier", "bias")) for role in schema.inputs)
        assert bool(re.search(rf"\b{schema.operator}\b", bounded)) == large, schema.operator


def test_what_each_format_lacks() -> None:
    (row,) = [row for row in ROWS if row[0] == "operators"]
    for version, cell in zip(FORMATS, row[1:], strict=True):
        later = [schema.operator for schema in SCHEMAS.values() if schema.since > version]
        assert re.findall(r"Nested\w+", cell) == later


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS.values() if schema.domain], ids=lambda s: s.title)
def test_the_attributes_of_the_domain(schema: Schema) -> None:
    domain = {s.operator for s in SCHEMAS.values() if s.domain}
    found: dict[str, str] = {}
    for row in (row for row in ROWS if len(row) == 4 and row[0].startswith("`")):
        clipped = sorted(domain - {"NestedLogits", "NestedTable"})
        holders = row[1].replace("all but NestedLogits and NestedTable", ", ".join(clipped))
        if schema.operator in holders:
            found |= dict.fromkeys(names(row[0]), row[2])
    expected = {
        name: "required" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"
        for name, value in schema.attributes.items()
    }
    assert found == expected


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.title)
def test_the_parts_of_the_forms(schema: Schema) -> None:
    stated = [row for row in ROWS if len(row) == 6 and schema.operator in row[1].split(", ")]
    assert [(*names(row[0]), *names(row[3]), *names(row[4]), row[5]) for row in stated] == [
        (part.name, part.input.name, *([part.replaces] if part.replaces else []), str(part.since))
        for part in schema.parts
    ]


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS.values() if not schema.domain], ids=lambda s: s.title)
def test_the_attributes_of_standard_operators(schema: Schema) -> None:
    (row,) = [row for row in ROWS if row[0] == schema.operator]
    stated = dict(re.findall(r"`(\w+)`(?: \(([^)]*)\))?", row[2]))
    assert stated == {
        name: "" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in schema.attributes.items()
    }


def test_the_metadata_keys() -> None:
    stated = [name for row in ROWS if len(row) == 3 for name in names(row[0]) if name[:7] == "dqtsim."]
    assert stated == [entry.key for entry in to_onnx(tiny()).metadata_props]


def test_the_function_bodies_are_named() -> None:
    section = TEXT.split("## Function bodies")[1].split("\n## ")[0]
    first, later = section.split("In format 2")
    named = r"\b(Nest(?!ed)\w+|Align|Select\w*Row|Requantize|Border|Ones|TakeHalf)\b"
    assert {f.name for f in functions(Arithmetic())} - {s.operator for s in SCHEMAS.values()} == set(
        re.findall(named, first)
    )
    everything = {name for rule in Nesting for name in helpers(Arithmetic(weight_rule=rule))}
    assert everything == set(re.findall(named, first + later))


def test_the_example_runs() -> None:
    result = doctest.testfile(str(README), module_relative=False, optionflags=doctest.FAIL_FAST)
    assert result.attempted >= 10
    assert result.failed == 0
