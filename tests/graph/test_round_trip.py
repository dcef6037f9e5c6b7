"""Builder to ONNX and back: nothing is lost, and the file is what ONNX itself calls valid."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import checker

from dqtsim.errors import ModelError, OutputError
from dqtsim.graph import Graph, GraphBuilder, from_onnx, load, save, to_onnx
from dqtsim.graph.file.bodies import functions
from dqtsim.graph.model import Arithmetic
from dqtsim.spec import Nesting, Rounding

from .networks import everything, tiny


def assert_same_graph(found: Graph, expected: Graph) -> None:
    for field in (
        "name",
        "arithmetic",
        "inputs",
        "outputs",
        "nodes",
        "layers",
        "candidates",
        "controller",
        "class_names",
    ):
        assert getattr(found, field) == getattr(expected, field), field
    for field in ("pinned", "picture", "producer", "quantization"):
        assert dict(getattr(found, field)) == dict(getattr(expected, field)), field
    assert found.initializers.keys() == expected.initializers.keys()
    for name, array in expected.initializers.items():
        np.testing.assert_array_equal(found.initializers[name], array, err_msg=name, strict=True)
        assert not found.initializers[name].flags.writeable


@pytest.mark.parametrize("weight_rule", list(Nesting))
@pytest.mark.parametrize("controlled", [False, True])
def test_a_graph_survives_the_file(tmp_path: Path, weight_rule: str, controlled: bool) -> None:
    graph = everything(weight_rule=weight_rule, controlled=controlled, rounding="TIES_EVEN")
    path = tmp_path / "model.onnx"
    save(graph, path)
    assert_same_graph(load(path), graph)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_checker_of_onnx_passes_in_full(n: int) -> None:
    row_widths = (1, 2)
    for graph in (everything(n=n, row_widths=row_widths), everything(n=n, row_widths=row_widths, controlled=True)):
        checker.check_model(to_onnx(graph), full_check=True)


def test_writing_twice_gives_the_same_bytes() -> None:
    first, second = (to_onnx(everything()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_file_that_was_read_is_written_as_it_was() -> None:
    model = to_onnx(everything(controlled=True))
    again = to_onnx(from_onnx(model))
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_versions_are_pinned() -> None:
    model = to_onnx(tiny())
    assert model.ir_version == 10
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 21, "dqtsim": 1}
    for function in model.functions:
        assert {entry.domain: entry.version for entry in function.opset_import} == {"": 21, "dqtsim": 1}


def test_metadata() -> None:
    model = to_onnx(everything(controlled=True, weight_rule="MIDPOINT"))
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "dqtsim.format": "1",
        "dqtsim.master_width": "8",
        "dqtsim.weight_rule": "MIDPOINT",
        "dqtsim.activation_rule": "TIES_UP",
        "dqtsim.rounding": "TIES_UP",
        "dqtsim.candidates": "[[2, 1], [4, 3], [8, 7]]",
        "dqtsim.layers": '["stem", "grouped", "depthwise", "dense", "class"]',
        "dqtsim.pinned": '{"stem": [8, 6]}',
        "dqtsim.controller": "scores",
        "dqtsim.classes": '["cat", "dog", "fish"]',
        "dqtsim.picture": '{"layout": "NCHW", "channels": "2", "height": "7", "width": "6", "mean": "128", '
        '"scale": "0.1"}',
        "dqtsim.producer": '{"name": "tests", "seed": "1"}',
    }


def test_quantization_annotations_name_scale_and_zero_point() -> None:
    model = to_onnx(tiny())
    names = {entry.tensor_name: entry.quant_parameter_tensor_names for entry in model.graph.quantization_annotation}
    assert list(names) == ["x", "conv.weight", "conv", "flat", "class.weight"]
    assert {entry.key: entry.value for entry in names["conv"]} == {
        "SCALE_TENSOR": "conv.scale",
        "ZERO_POINT_TENSOR": "conv.zero_point",
    }
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert [arrays["x.zero_point"].item(), arrays["x.scale"].item()] == [128, 0.1]
    assert arrays["conv.weight.zero_point"] == 128


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("weight_rule", [rule for rule in Nesting if Arithmetic(weight_rule=rule).since == 1])
def test_the_file_carries_one_body_per_operator(weight_rule: Nesting, rounding: Rounding) -> None:
    arithmetic = Arithmetic(8, weight_rule, Nesting.FLOOR, rounding)
    names = [function.name for function in functions(arithmetic)]
    assert len(set(names)) == len(names)
    helpers = {"NestCodes", "NestActivation", "NestWeightCodes", "NestWeight", "Align", "SelectRow", "Requantize"}
    operators = {"NestedConv", "NestedGemm", "NestedLogits", "NestedAdd", "NestedAveragePool", "NestedRequantize"}
    assert set(names) == operators | helpers - ({"NestWeightCodes"} if weight_rule == Nesting.MIDPOINT else set())


def test_another_rule_is_another_body() -> None:
    bodies = {
        str([function.SerializeToString(deterministic=True) for function in functions(arithmetic)])
        for arithmetic in (
            Arithmetic(),
            Arithmetic(master_width=7),
            Arithmetic(weight_rule=Nesting.FLOOR),
            Arithmetic(weight_rule=Nesting.MIDPOINT),
            Arithmetic(activation_rule=Nesting.FLOOR),
            Arithmetic(rounding=Rounding.FLOOR),
            Arithmetic(rounding=Rounding.TIES_AWAY),
            Arithmetic(rounding=Rounding.TIES_EVEN),
        )
    }
    assert len(bodies) == 8


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    save(tiny(), path)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError) as caught:
        save(everything(), path)
    assert str(caught.value) == f"'{path}' cannot be written: no."
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_attributes_left_out_have_their_defaults() -> None:
    model = to_onnx(tiny())
    node = next(node for node in model.graph.node if node.name == "conv")
    kept = [attribute for attribute in node.attribute if attribute.name in ("row_widths", "low", "high")]
    del node.attribute[:]
    node.attribute.extend(kept)
    assert from_onnx(model).node("conv") == tiny().node("conv")


def test_a_node_without_a_name_is_called_by_its_output() -> None:
    model = to_onnx(tiny())
    next(node for node in model.graph.node if node.name == "flat").name = ""
    assert_same_graph(from_onnx(model), tiny())


def test_arrays_that_nothing_reads_are_dropped() -> None:
    model = to_onnx(tiny())
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "leftover"))
    assert_same_graph(from_onnx(model), tiny())


def test_doc_strings_and_node_names_in_bodies_do_not_matter() -> None:
    model = to_onnx(tiny())
    for function in model.functions:
        function.doc_string = "said by someone else"
        for index, node in enumerate(function.node):
            node.name, node.doc_string = f"n{index}", "so was this"
    assert_same_graph(from_onnx(model), tiny())


def test_the_builder_refuses_what_does_not_fit() -> None:
    builder = GraphBuilder("g", class_names=("a", "b"))
    x = builder.input("x", (1, 4), zero_point=0, scale=1.0)
    logits = builder.logits("l", x, weight=np.zeros((3, 4), np.uint8), bias=np.zeros((1, 3)), row_widths=(8,))
    with pytest.raises(ModelError, match=r"^output 'l' has 3 entries for 2 class names\.$"):
        builder.output(logits, classes=True)
    builder.control(logits)
    with pytest.raises(
        ModelError,
        match=r"^the controller gives one logit per controlled layer and candidate, 1 x 3; 'm' has 4\.$",
    ):
        builder.control(
            builder.logits(
                "m", x, weight=np.zeros((4, 4), np.uint8), bias=np.zeros((1, 4)), row_widths=(8,), controller=True
            )
        )
        builder.build()
