"""What `--bits` may say, what it makes of a graph, and every refusal in full."""

import json
from pathlib import Path
from typing import Any

import pytest

from dqtsim.errors import WidthError
from dqtsim.graph import BITS
from dqtsim.widths import apply_bits, carried_policy, rows_of
from tests.builders import compiled, network, picture, run

# stem is pinned at (8, 8); left, right and result are free
DYNAMIC, STATIC = network(), network(dynamic=False)
LAYERS = "stem, left, right, result"
EXPECTED = "expected a width such as 4, or a pair such as w4a8"


def refusal(spec: str) -> str:
    with pytest.raises(WidthError) as caught:
        apply_bits(DYNAMIC, spec)
    return str(caught.value)


def written(folder: Path, name: str, content: Any) -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_nothing_said_is_what_the_model_carries() -> None:
    assert apply_bits(DYNAMIC, None) == (DYNAMIC, "dynamic")
    assert apply_bits(STATIC, None) == (STATIC, "static")
    assert (carried_policy(DYNAMIC), carried_policy(STATIC)) == ("dynamic", "static")


def test_dynamic_is_the_controllers() -> None:
    assert apply_bits(DYNAMIC, "dynamic") == (DYNAMIC, "dynamic")
    with pytest.raises(WidthError) as caught:
        apply_bits(STATIC, "dynamic")
    assert str(caught.value) == "dynamic widths need a controller; model 'small' has none."


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ("4", [(8, 8), (4, 4), (4, 4), (4, 4)]),
        ("1", [(8, 8), (1, 1), (1, 1), (1, 1)]),
        ("8", [(8, 8)] * 4),
        (" 3 ", [(8, 8), (3, 3), (3, 3), (3, 3)]),
        ("w4a8", [(8, 8), (4, 8), (4, 8), (4, 8)]),
        ("w1a7", [(8, 8), (1, 7), (1, 7), (1, 7)]),
        ("4,4,4,4", [(4, 4)] * 4),  # a list names every layer, pinned ones too
        ("8, w2a3, 1, w8a1", [(8, 8), (2, 3), (1, 1), (8, 1)]),
        ("04", [(8, 8), (4, 4), (4, 4), (4, 4)]),
    ],
)
@pytest.mark.parametrize("graph", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_static_widths(graph: Any, spec: str, rows: list[tuple[int, int]]) -> None:
    found, policy = apply_bits(graph, spec)
    assert policy == spec
    assert not found.dynamic
    assert list(map(tuple, found.initializers[BITS].tolist())) == rows
    result, _ = run(compiled(found), "jit", picture()[0])
    assert list(result.bits) == rows


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        ({"default": 4}, [(8, 8), (4, 4), (4, 4), (4, 4)]),
        ({"default": "w2a4", "left": 8}, [(8, 8), (8, 8), (2, 4), (2, 4)]),
        ({"stem": 2, "default": [3, 5]}, [(2, 2), (3, 5), (3, 5), (3, 5)]),  # a pinned layer that is named
        ({"left": [2, 8], "right": "w8a2", "result": "5"}, [(8, 8), (2, 8), (8, 2), (5, 5)]),
        ({"stem": "w1a1", "left": 1, "right": 1, "result": 1}, [(1, 1)] * 4),
    ],
)
def test_plan_files(tmp_path: Path, plan: dict[str, Any], rows: list[tuple[int, int]]) -> None:
    as_json = written(tmp_path, "plan.json", {"bits": plan, "note": "anything else is ignored"})
    lines = "".join(f"{name} = {json.dumps(entry)}\n" for name, entry in plan.items())
    as_toml = written(tmp_path, "plan.toml", f"note = 'ignored'\n[bits]\n{lines}")
    assert rows_of(DYNAMIC, as_json) == rows_of(DYNAMIC, as_toml) == rows
    assert apply_bits(DYNAMIC, as_json)[1] == as_json


@pytest.mark.parametrize(
    "entry", ["", "four", "w4", "a4", "w4a", "4.0", "-4", "+4", "0x4", "W4A8", "4;4", "dynamic ", "٤", "9" * 5000]
)  # fmt: skip
def test_entries_that_say_nothing(entry: str) -> None:
    shown = entry if len(entry) < 60 else f"{'9' * 60}..."
    assert refusal(entry) == f"--bits: {EXPECTED}; found '{shown}'."
    assert refusal(f"8,{entry},8,8") == f"--bits, layer 'left': {EXPECTED}; found '{shown}'."


@pytest.mark.parametrize("entry", ["0", "9", "w0a8", "w8a9", "123456789"])
def test_widths_out_of_range(entry: str) -> None:
    text = f"widths lie between 1 and the master width 8; found '{entry}'."
    assert refusal(entry) == f"--bits: {text}"
    assert refusal(f"{entry},8,8,8") == f"--bits, layer 'stem': {text}"


@pytest.mark.parametrize(("spec", "count"), [("8,8", 2), ("8,8,8,8,8", 5), (",", 2)])
def test_a_list_has_one_entry_per_layer(spec: str, count: int) -> None:
    assert refusal(spec) == (
        f"a list of widths has one entry per layer, 4 for model 'small' ({LAYERS}); --bits has {count}."
    )


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        ({"lef": 4, "default": 4}, " names layer 'lef'; model 'small' has stem, left, right, result."),
        ({"left": 4, "right": 4}, " gives every layer its widths or a 'default'; layer 'result' has none."),
        ({}, " gives every layer its widths or a 'default'; layer 'left' has none."),
        ({"left": 4.0, "default": 4}, f", layer 'left': {EXPECTED}; found 4.0."),
        ({"left": True, "default": 4}, f", layer 'left': {EXPECTED}; found True."),
        ({"left": [True, 4], "default": 4}, f", layer 'left': {EXPECTED}; found [True, 4]."),
        ({"left": [4], "default": 4}, f", layer 'left': {EXPECTED}; found [4]."),
        ({"left": [4, 4, 4], "default": 4}, f", layer 'left': {EXPECTED}; found [4, 4, 4]."),
        ({"left": None, "default": 4}, f", layer 'left': {EXPECTED}; found None."),
        ({"left": {"w": 4}, "default": 4}, f", layer 'left': {EXPECTED}; found {{'w': 4}}."),
        ({"left": "4,4", "default": 4}, f", layer 'left': {EXPECTED}; found '4,4'."),
        ({"default": "x"}, f", entry 'default': {EXPECTED}; found 'x'."),
        ({"default": 0}, ", entry 'default': widths lie between 1 and the master width 8; found '0'."),
        ({"stem": [9, 8]}, ", layer 'stem': widths lie between 1 and the master width 8; found '[9, 8]'."),
    ],
)  # fmt: skip
def test_plan_files_refused(tmp_path: Path, plan: dict[str, Any], text: str) -> None:
    path = written(tmp_path, "plan.json", {"bits": plan})
    assert refusal(path) == f"plan file '{path}'{text}"


@pytest.mark.parametrize("content", ["[]", "3", '{"width": {}}', '{"bits": [4, 4]}', '{"bits": 4}', "null"])
def test_plan_files_without_a_table(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, "plan.json", content)
    assert refusal(path) == f"the plan file '{path}' holds a table 'bits' from layer names to widths; found none."


def test_plan_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, folder, latin = tmp_path / "no.json", tmp_path / "folder.toml", tmp_path / "latin.json"
    folder.mkdir()
    latin.write_bytes(b'{"bits": "\xff"}')
    assert refusal(str(missing)) == f"the plan file '{missing}' cannot be read: no such file or directory."
    assert refusal(str(folder)) == f"the plan file '{folder}' cannot be read: is a directory."
    assert refusal(str(latin)) == f"the plan file '{latin}' cannot be read: it is not UTF-8 text."


def test_plan_files_that_are_malformed(tmp_path: Path) -> None:
    bad_json, bad_toml = written(tmp_path, "bad.json", "{"), written(tmp_path, "bad.toml", "bits = ")
    assert refusal(bad_json) == (
        f"the plan file '{bad_json}' is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1)."
    )
    assert refusal(bad_toml) == f"the plan file '{bad_toml}' is not TOML: Invalid value (at end of document)."
    for name, kind in (("deep.json", "JSON"), ("deep.toml", "TOML")):
        deep = written(tmp_path, name, ("bits = " if kind == "TOML" else "") + "[" * 100000)
        assert refusal(deep).startswith(f"the plan file '{deep}' is not {kind}: ")
