"""Targets: what comes with dqtsim, what a file may say, and every violation at once."""

from pathlib import Path

import pytest

from dqtsim.errors import TargetError
from dqtsim.spec import Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode, Target, load_target, parse_target, target_names, target_text

NAMES = ["acc16-wrap", "acc20-saturate-each", "acc24-saturate", "default", "mult31"]
ACCUMULATOR = "width = 32                          # bits of the reg"
ROUNDINGS = "MODEL, TIES_UP, FLOOR, TIES_AWAY, TIES_EVEN"


def refusal(text: str) -> str:
    with pytest.raises(TargetError) as caught:
        parse_target(text, "target file 'mine.toml'")
    return str(caught.value)


def edited(*changes: tuple[str, str]) -> str:
    """Return the text of the default target with some parts replaced."""
    text = target_text("default")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_built_in_targets() -> None:
    assert target_names() == NAMES
    assert [load_target(name).name for name in NAMES] == NAMES
    assert all(load_target(name).description for name in NAMES)


@pytest.mark.parametrize(
    ("name", "accumulator", "requantizer"),
    [
        ("default", (32, Overflow.ERROR, TapOrder.CHANNEL_ROW_COLUMN, 32), (16, None)),
        ("acc16-wrap", (16, Overflow.WRAP, TapOrder.CHANNEL_ROW_COLUMN, 32), (16, Rounding.TIES_UP)),
        ("acc20-saturate-each", (20, Overflow.SATURATE_EACH, TapOrder.ROW_COLUMN_CHANNEL, 32), (16, Rounding.TIES_UP)),
        ("acc24-saturate", (24, Overflow.SATURATE, TapOrder.CHANNEL_ROW_COLUMN, 32), (16, Rounding.TIES_EVEN)),
        ("mult31", (32, Overflow.WRAP, TapOrder.CHANNEL_ROW_COLUMN, 32), (31, Rounding.TIES_AWAY)),
    ],
)
def test_what_built_in_targets_say(
    name: str, accumulator: tuple[int, Overflow, TapOrder, int], requantizer: tuple[int, Rounding | None]
) -> None:
    t = load_target(name)
    assert (t.accumulator_width, t.overflow, t.tap_order, t.bias_width) == accumulator
    assert (t.multiplier_width, t.rounding) == requantizer


def test_a_file_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        edited(('name = "default"', 'name = "mine"'), (ACCUMULATOR, "width = 48 # "),
               ('"MODEL"  ', '"FLOOR"  '), ('mode = "PARALLEL"', 'mode = "DIGIT_SERIAL"')),
        encoding="utf-8",
    )  # fmt: skip
    found = load_target(path)
    assert load_target(str(path)) == found
    assert found == Target(
        name="mine",
        description="32-bit accumulator proven or refused, 16-bit multiplier, rounding as the model states",
        accumulator_width=48,
        overflow=Overflow.ERROR,
        tap_order=TapOrder.CHANNEL_ROW_COLUMN,
        bias_width=32,
        multiplier_width=16,
        rounding=Rounding.FLOOR,
        rows=16,
        columns=16,
        mode=ArrayMode.DIGIT_SERIAL,
    )


@pytest.mark.parametrize(
    "member", [*Overflow, *TapOrder, *Rounding, *ArrayMode], ids=lambda m: f"{type(m).__name__}.{m}"
)
def test_every_choice_can_be_named(member: Overflow | TapOrder | Rounding | ArrayMode) -> None:
    old, attribute = {
        Overflow: ('"ERROR" ', "overflow"),
        TapOrder: ('"CHANNEL_ROW_COLUMN" ', "tap_order"),
        Rounding: ('"MODEL"  ', "rounding"),
        ArrayMode: ('"PARALLEL"  ', "mode"),
    }[type(member)]
    assert getattr(parse_target(edited((old, f'"{member}" ')), "t"), attribute) is member


@pytest.mark.parametrize(
    ("old", "low", "high", "key"),
    [
        (ACCUMULATOR, 8, 48, "accumulator.width"),
        ("width = 32                          # bits of the bias", 8, 48, "bias.width"),
        ("multiplier_width = 16 ", 2, 31, "requantize.multiplier_width"),
        ("rows = 16 ", 1, 4096, "array.rows"),
        ("columns = 16 ", 1, 4096, "array.columns"),
    ],
)
def test_limits_of_integers(old: str, low: int, high: int, key: str) -> None:
    entry = old.split(" = ", maxsplit=1)[0]
    for value in (low, high):
        parse_target(edited((old, f"{entry} = {value} #")), "t")
    for bad in (str(low - 1), str(high + 1), "-1", "true", "16.0", '"16"', "[16]"):
        shown = {"true": "True", '"16"': "'16'"}.get(bad, bad)
        assert refusal(edited((old, f"{entry} = {bad} #"))) == (
            f"target file 'mine.toml' breaks 1 rule: '{key}' must be an integer from {low} to {high}, found {shown}."
        )


def test_all_violations_at_once() -> None:
    text = """
name = ""
description = 3
colour = "red"

[accumulator]
width = 7
overflow = "MODULO"

[bias]
width = 49
sign = true

[requantize]
multiplier_width = 32
rounding = "NEAREST"

[array]
rows = 0
columns = "many"
mode = ["PARALLEL"]
"""
    assert refusal(text) == (
        "target file 'mine.toml' breaks 13 rules: 'name' must be a text, found ''; 'description' must be a "
        "text, found 3; "
        "'accumulator.width' must be an integer from 8 to 48, found 7; 'accumulator.overflow' must be one of "
        "ERROR, WRAP, "
        "SATURATE, SATURATE_EACH, found 'MODULO'; 'accumulator.tap_order' must be one of CHANNEL_ROW_COLUMN, "
        "ROW_COLUMN_CHANNEL, and is missing; 'bias.width' must be an integer from 8 to 48, found 49; "
        "'requantize.multiplier_width' must be an integer from 2 to 31, found 32; 'requantize.rounding' must be one of "
        f"{ROUNDINGS}, found 'NEAREST'; 'array.rows' must be an integer from 1 to 4096, found 0; "
        f"'array.columns' must be "
        "an integer from 1 to 4096, found 'many'; 'array.mode' must be one of PARALLEL, ACTIVATION_SERIAL, "
        "DIGIT_SERIAL, "
        "found ['PARALLEL']; 'bias.sign' is no entry of a target; 'colour' is no entry of a target."
    )


def test_an_empty_target_misses_everything() -> None:
    text = refusal("")
    assert text.startswith("target file 'mine.toml' breaks 11 rules: 'name' must be a text, and is missing; ")
    assert text.count(", and is missing") == 11


def test_a_table_that_is_a_number() -> None:
    text = refusal("accumulator = 3\n" + edited(("[accumulator]", "[register]")))
    assert text.endswith(
        "'accumulator' is no entry of a target; 'register.overflow' is no entry of a target; "
        "'register.tap_order' is no "
        "entry of a target; 'register.width' is no entry of a target."
    )


def test_not_toml() -> None:
    assert refusal("name = ") == "target file 'mine.toml' is not TOML: Invalid value (at end of document)."
    assert refusal("a = " + "[" * 20000).startswith("target file 'mine.toml' is not TOML: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    (tmp_path / "folder.toml").mkdir()
    for name, reason in (
        ("missing", "no such file or directory"),
        ("folder", "is a directory"),
        ("latin", "it is not UTF-8 text"),
    ):
        path = tmp_path / f"{name}.toml"
        with pytest.raises(TargetError) as caught:
            load_target(path)
        assert str(caught.value) == f"the target file '{path}' cannot be read: {reason}."


@pytest.mark.parametrize("name", ["acc17", "", "default.json", "../targets/default", "Default"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_target(name)
    assert str(caught.value) == f"a target is one of {', '.join(NAMES)}, or a .toml file; found '{name}'."
