"""Versions of the file: version 1 stays as it is, byte for byte; version 2 carries the bodies that it uses."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import checker

from dqtsim.errors import ModelError
from dqtsim.graph import Graph, GraphBuilder, Node, from_onnx, load, to_onnx
from dqtsim.graph.file import bodies
from dqtsim.graph.schema import DOMAIN, NESTED_LAYERS, SCHEMAS, Schema
from tests.builders import tables

from .networks import everything, tiny

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").rglob("*.onnx"))
HELPERS = {"NestCodes", "NestActivation", "NestWeightCodes", "NestWeight", "Align", "SelectRow", "Requantize"}
OPERATORS = {"NestedConv", "NestedGemm", "NestedLogits", "NestedAdd", "NestedAveragePool", "NestedRequantize"}

# an operator as a later version may add one: codes counted from the top of a requantized copy of them
MIRROR = """
NestedMirror <low, high> (x, x_zero_point, multiplier, shift) => (y)
{
  same = dqtsim.NestedRequantize <low: int = @low, high: int = @high> (x, x_zero_point, x_zero_point, multiplier, shift)
  top = Constant <value = uint8 {255}> ()
  y = Sub (top, same)
}
"""
SCHEMA = replace(
    SCHEMAS[DOMAIN, "NestedRequantize"],
    operator="NestedMirror",
    inputs=tuple(entry for entry in SCHEMAS[DOMAIN, "NestedRequantize"].inputs if entry.name != "y_zero_point"),
    since=2,
)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the format an operator of version 2, as its author would: one schema, one body."""
    monkeypatch.setitem(cast(dict[tuple[str, str], Schema], SCHEMAS), (DOMAIN, "NestedMirror"), SCHEMA)
    monkeypatch.setitem(bodies.OPERATORS, "NestedMirror", MIRROR)


def mirrored() -> Graph:
    """Return the small network with its picture mirrored first, which needs version 2."""
    graph = tiny()
    one = {"mirror.multiplier": np.array(1), "mirror.shift": np.array(0)}
    inputs = ("x", "x.zero_point", *one)
    node = Node("mirror", DOMAIN, "NestedMirror", inputs, ("mirror",), MappingProxyType({"low": 0, "high": 255}))
    nodes = [
        replace(old, inputs=tuple("mirror" if name == "x" else name for name in old.inputs)) for old in graph.nodes
    ]
    return replace(graph, nodes=(node, *nodes), initializers=MappingProxyType({**graph.initializers, **one}))


def written(graph: Graph) -> bytes:
    data: bytes = to_onnx(graph).SerializeToString(deterministic=True)
    return data


def carried(model: onnx.ModelProto) -> list[str]:
    return [function.name for function in model.functions]


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    return str(caught.value)


def state(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Let a file say another version of the format, in metadata, imports and bodies."""
    next(entry for entry in model.metadata_props if entry.key == "dqtsim.format").value = str(version)
    for imports in [model.opset_import, *(function.opset_import for function in model.functions)]:
        next(entry for entry in imports if entry.domain == DOMAIN).version = version
    return model


def test_every_committed_model_is_here() -> None:
    assert len(MODELS) >= 9


@pytest.mark.parametrize("path", MODELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_committed_model_is_written_as_it_was(path: Path) -> None:
    graph = load(path)
    assert graph.format_version == 1
    assert written(graph) == path.read_bytes()


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_new_operator_leaves_every_committed_model_as_it_was(path: Path) -> None:
    assert written(load(path)) == path.read_bytes()


def test_a_file_of_version_1_carries_every_body_of_version_1() -> None:
    model = to_onnx(tiny())
    assert {node.op_type for node in model.graph.node if node.domain == DOMAIN} == {"NestedConv", "NestedLogits"}
    assert set(carried(model)) == OPERATORS | HELPERS


def test_every_operator_of_the_domain_has_a_body() -> None:
    assert {schema.operator for schema in SCHEMAS.values() if schema.domain == DOMAIN} == set(bodies.OPERATORS)


@pytest.mark.usefixtures("mirror")
def test_a_file_of_version_2_says_so_and_carries_what_it_uses() -> None:
    model = to_onnx(mirrored())
    assert {entry.key: entry.value for entry in model.metadata_props}["dqtsim.format"] == "2"
    for imports in [model.opset_import, *(function.opset_import for function in model.functions)]:
        assert {entry.domain: entry.version for entry in imports} == {"": 21, DOMAIN: 2}
    # NestedRequantize is no operator of this graph; the body of NestedMirror calls it
    unused = {"NestedGemm", "NestedAdd", "NestedAveragePool"}
    assert set(carried(model)) == (OPERATORS | HELPERS | {"NestedMirror"}) - unused
    checker.check_model(model, full_check=True)


@pytest.mark.usefixtures("mirror")
def test_a_file_of_version_2_is_read_and_written_as_it_was() -> None:
    data = written(mirrored())
    model = onnx.ModelProto()
    model.ParseFromString(data)
    graph = from_onnx(model)
    assert graph.format_version == 2
    assert written(graph) == data


@pytest.mark.usefixtures("mirror")
def test_a_stock_runtime_executes_a_file_of_version_2() -> None:
    import onnxruntime

    model = to_onnx(mirrored())
    model.graph.output.append(onnx.helper.make_tensor_value_info("mirror", onnx.TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).integers(0, 256, mirrored().input.shape, np.uint8)
    (found,) = session.run(["mirror"], {"x": picture})
    np.testing.assert_array_equal(found, 255 - picture)


@pytest.mark.usefixtures("mirror")
def test_a_graph_that_no_longer_needs_version_2_is_written_as_version_1() -> None:
    assert mirrored().format_version == 2
    assert tiny().format_version == 1
    assert written(replace(mirrored(), nodes=tiny().nodes, initializers=tiny().initializers)) == written(tiny())


def test_a_file_with_tables_is_of_version_2_and_carries_what_it_uses() -> None:
    model = to_onnx(tables())
    graph = from_onnx(model)
    assert graph.format_version == 2
    assert set(carried(model)) == (HELPERS | {"NestedConv", "NestedLogits", "NestedTable"})
    assert written(graph) == model.SerializeToString(deterministic=True)
    checker.check_model(model, full_check=True)


def test_a_file_of_version_1_has_no_table() -> None:
    assert refusal(state(to_onnx(tables()), 1)) == (
        "a file of format 1 has operators of that format; node 'before' (dqtsim.NestedTable) is of format 2."
    )


PAIRS = ((2, 8), (4, 4), (8, 2))


def test_a_file_with_row_pairs_carries_a_body_for_each_form_that_it_uses() -> None:
    model = to_onnx(everything(row_pairs=PAIRS))
    graph = from_onnx(model)
    assert graph.format_version == 2
    layers = {name for name in OPERATORS if name in NESTED_LAYERS}
    assert {(f.name, f.overload) for f in model.functions} == {
        *((name, "") for name in (OPERATORS | HELPERS | {"SelectPairRow"}) - layers - {"SelectRow"}),
        *((name, "row_pairs") for name in layers),
    }
    assert graph.node("stem").form == ("row_pairs",)
    assert graph.node("flat").form == ()
    assert written(graph) == model.SerializeToString(deterministic=True)
    checker.check_model(model, full_check=True)


def mixed() -> Graph:
    """Return a network in which NestedConv is used in two forms."""
    plain, pairs = everything(), everything(row_pairs=PAIRS)
    nodes = tuple(pairs.node(node.name) if node.name == "stem" else node for node in plain.nodes)
    used = {name for node in nodes for name in node.inputs}
    arrays = {name: array for name, array in pairs.initializers.items() if name in used}
    return replace(plain, nodes=nodes, initializers=MappingProxyType(arrays))


def test_two_forms_of_an_operator_have_two_bodies_in_one_file() -> None:
    import onnxruntime

    graph = mixed()
    model = to_onnx(graph)
    assert [f.overload for f in model.functions if f.name == "NestedConv"] == ["", "row_pairs"]
    assert {"SelectRow", "SelectPairRow"} <= set(carried(model))
    assert from_onnx(model) == graph
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("graph", [everything(row_pairs=PAIRS), everything(row_pairs=PAIRS, controlled=True), mixed()])
def test_forms_survive_a_file_and_a_pickle(graph: Graph) -> None:
    again = pickle.loads(pickle.dumps(graph))
    assert again == graph == from_onnx(to_onnx(graph))
    assert [node.form for node in again.nodes] == [node.form for node in graph.nodes]


def without(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        kept = [function for function in model.functions if function.name != name]
        del model.functions[:]
        model.functions.extend(kept)

    return change


def test_a_file_with_centroid_weights_is_of_version_2_and_takes_the_half_in_its_bodies() -> None:
    model = to_onnx(everything(weight_rule="CENTROID"))
    graph = from_onnx(model)
    assert graph.format_version == 2
    assert set(carried(model)) == (OPERATORS | HELPERS | {"Ones", "TakeHalf"}) - {"NestWeightCodes"}
    assert written(graph) == model.SerializeToString(deterministic=True)
    checker.check_model(model, full_check=True)


def test_a_file_of_version_1_has_no_centroid_weights() -> None:
    assert refusal(state(to_onnx(everything(weight_rule="CENTROID")), 1)) == (
        "a file of format 1 has rules of that format; metadata 'dqtsim.weight_rule' says 'CENTROID', of format 2."
    )


def test_a_file_with_centroid_weights_needs_the_bodies_that_take_the_half() -> None:
    model = to_onnx(everything(weight_rule="CENTROID"))
    without("TakeHalf")(model)
    assert refusal(model) == "the file lacks the function body of operator 'TakeHalf' (domain 'dqtsim')."


def with_overload(name: str, overload: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.name == name).overload = overload

    return change


def body_overload(name: str, overload: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        next(function for function in model.functions if function.name == name).overload = overload

    return change


FORMS_REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "format 1": (
        lambda model: state(model, 1),
        "a file of format 1 has operators of that format; node 'stem' (dqtsim.NestedConv) with overload 'row_pairs' is "
        "of format 2.",
    ),
    "no overload": (
        with_overload("stem", ""),
        "node 'stem' (dqtsim.NestedConv) needs attribute 'row_widths' and has none.",
    ),
    "unknown overload": (
        with_overload("stem", "pairs"),
        "the overload of node 'stem' (dqtsim.NestedConv) joins some of row_pairs, windows, padding by '+', in this "
        "order; found 'pairs'.",
    ),
    "overload of a standard operator": (
        with_overload("flat", "row_pairs"),
        "node 'flat' (Flatten) has one form, without overload; found overload 'row_pairs'.",
    ),
    "attribute that the form replaces": (
        lambda model: next(node for node in model.graph.node if node.name == "dense").attribute.append(
            onnx.helper.make_attribute("row_widths", [8])
        ),
        "node 'dense' (dqtsim.NestedGemm) with overload 'row_pairs' has no attribute 'row_widths'.",
    ),
    "body of another form": (
        body_overload("NestedGemm", ""),
        "a file of format 2 carries the function bodies that its nodes use and no other; nothing uses 'NestedGemm'.",
    ),
    "helper with an overload": (
        body_overload("Align", "row_pairs"),
        "a file of format 2 carries the function bodies that its nodes use and no other; nothing uses "
        "'Align:row_pairs'.",
    ),
    "no body": (
        without("NestedGemm"),
        "the file lacks the function body of operator 'NestedGemm:row_pairs' (domain 'dqtsim').",
    ),
    "another body": (
        lambda model: next(f for f in model.functions if f.name == "NestedLogits").node.pop(),
        "the function body of operator 'NestedLogits:row_pairs' (domain 'dqtsim') differs from the law: it has 11 "
        "nodes instead of 12.",
    ),
    "overload that is too long": (
        with_overload("stem", "x" * 2000),
        f"names have at most 1,024 characters; '{'x' * 60}...' has 2,000.",
    ),
}


@pytest.mark.parametrize("case", FORMS_REFUSED)
def test_a_file_with_forms_is_refused(case: str) -> None:
    change, sentence = FORMS_REFUSED[case]
    model = to_onnx(everything(row_pairs=PAIRS))
    change(model)
    assert refusal(model) == sentence


@pytest.mark.parametrize(("rows", "found"), [({}, "neither"), ({"row_widths": (8,), "row_pairs": ((8, 8),)}, "both")])
def test_a_layer_takes_rows_in_one_way(rows: dict[str, Any], found: str) -> None:
    builder = GraphBuilder("one")
    x = builder.input("x", (1, 4), zero_point=0, scale=1.0)
    with pytest.raises(ModelError) as caught:
        builder.logits("y", x, weight=np.zeros((2, 4), np.uint8), bias=[[0, 0]], **rows)
    assert str(caught.value) == f"layer 'y' takes either row_widths or row_pairs; found {found}."


def test_a_file_with_tables_needs_their_body() -> None:
    model = to_onnx(tables())
    without("NestedTable")(model)
    assert refusal(model) == "the file lacks the function body of operator 'NestedTable' (domain 'dqtsim')."


def with_body(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        arithmetic = mirrored().arithmetic
        model.functions.extend(f for f in bodies.functions(arithmetic, 2, [(name, ())]) if f.name == name)

    return change


def body_of_version_1(model: onnx.ModelProto) -> None:
    function = next(function for function in model.functions if function.name == "Align")
    next(entry for entry in function.opset_import if entry.domain == DOMAIN).version = 1


def domain_of_version_1(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if entry.domain == DOMAIN).version = 1


REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "version 1 in all it says": (
        lambda model: state(model, 1),
        "a file of format 1 has operators of that format; node 'mirror' (dqtsim.NestedMirror) is of format 2.",
    ),
    "version 3": (
        lambda model: state(model, 3),
        "this version reads formats 1 and 2; metadata 'dqtsim.format' says '3'.",
    ),
    "domain of version 1": (
        domain_of_version_1,
        "a nested model imports domain 'dqtsim' version 2; found 1.",
    ),
    "body of version 1": (
        body_of_version_1,
        "the function body of operator 'Align' (domain 'dqtsim') differs from the law: its inputs, outputs, attributes "
        "or imports are others.",
    ),
    "operator without its body": (
        without("NestedMirror"),
        "the file lacks the function body of operator 'NestedMirror' (domain 'dqtsim').",
    ),
    "helper without its body": (
        without("NestedRequantize"),
        "the file lacks the function body of operator 'NestedRequantize' (domain 'dqtsim').",
    ),
    "helper of a helper without its body": (
        without("NestCodes"),
        "the file lacks the function body of operator 'NestCodes' (domain 'dqtsim').",
    ),
    "body that nothing uses": (
        with_body("NestedAdd"),
        "a file of format 2 carries the function bodies that its nodes use and no other; nothing uses 'NestedAdd'.",
    ),
}


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("case", REFUSED)
def test_a_file_of_version_2_is_refused(case: str) -> None:
    change, sentence = REFUSED[case]
    model = to_onnx(mirrored())
    change(model)
    assert refusal(model) == sentence


def test_a_file_that_needs_no_version_2_says_version_1() -> None:
    assert refusal(state(to_onnx(everything()), 2)) == (
        "a file states the lowest format that it needs; metadata 'dqtsim.format' says '2', its operators need 1."
    )


@pytest.mark.usefixtures("mirror")
def test_a_file_of_version_1_carries_no_body_of_version_2() -> None:
    model = to_onnx(tiny())
    with_body("NestedMirror")(model)
    assert refusal(model) == (
        "a nested model carries only the functions of domain 'dqtsim'; found operator 'NestedMirror' of domain "
        "'dqtsim'."
    )
