"""A file that breaks the format: one sentence each, pinned in full."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dqtsim.errors import ModelError
from dqtsim.graph import from_onnx, load, to_onnx

from .networks import everything, tiny

Model = onnx.ModelProto
Change = Callable[[Model], None]


@pytest.fixture(scope="module")
def saved() -> bytes:
    data: bytes = to_onnx(tiny()).SerializeToString()
    return data


def parsed(data: bytes) -> Model:
    model = Model()
    model.ParseFromString(data)
    return model


def node(model: Model, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(item for item in model.graph.node if item.name == name)
    return found


def initializer(model: Model, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(item for item in model.graph.initializer if item.name == name)
    return found


def put(name: str, array: object) -> Change:
    """Return a change that gives initializer `name` another array."""
    return lambda model: initializer(model, name).CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def say(key: str, value: str) -> Change:
    """Return a change of one metadata entry."""

    def change(model: Model) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


def forget(key: str) -> Change:
    def change(model: Model) -> None:
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return change


def attribute(name: str, key: str, value: object) -> Change:
    """Return a change that sets attribute `key` of node `name`, or removes it if `value` is None."""

    def change(model: Model) -> None:
        found = node(model, name)
        kept = [item for item in found.attribute if item.name != key]
        del found.attribute[:]
        found.attribute.extend(kept)
        if value is not None:
            found.attribute.append(helper.make_attribute(key, value))

    return change


def function(name: str, change: Callable[[onnx.FunctionProto], None]) -> Change:
    return lambda model: change(next(item for item in model.functions if item.name == name))


def external(model: Model) -> None:
    tensor = initializer(model, "conv.weight")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="weights.bin"))


def truncate(model: Model) -> None:
    initializer(model, "conv.weight").raw_data = b"123"


def negative(model: Model) -> None:
    initializer(model, "conv.weight").dims[0] = -1


def not_utf8(model: Model) -> None:
    data = model.graph.SerializeToString().replace(b"flat.zero_point", b"fla\xff.zero_point")
    model.graph.ParseFromString(data)


def rename_operator(model: Model) -> None:
    node(model, "flat").op_type = "Softmax"


def foreign_domain(model: Model) -> None:
    node(model, "conv").domain = "com.example"


def swap_order(model: Model) -> None:
    first = next(i for i, item in enumerate(model.graph.node) if item.name == "flat")
    second = next(i for i, item in enumerate(model.graph.node) if item.name == "class")
    a, b = Model().graph.node.add(), Model().graph.node.add()
    a.CopyFrom(model.graph.node[first])
    b.CopyFrom(model.graph.node[second])
    model.graph.node[first].CopyFrom(b)
    model.graph.node[second].CopyFrom(a)


def loop(model: Model) -> None:
    node(model, "conv").input[0] = "flat"


def loop_of_one(model: Model) -> None:
    node(model, "flat").input[0] = "flat"


def duplicate_initializer(model: Model) -> None:
    model.graph.initializer.append(initializer(model, "conv.shift"))


def no_opset(model: Model) -> None:
    del model.opset_import[1]


def newer_opset(model: Model) -> None:
    model.opset_import[0].version = 22


def no_producer(model: Model) -> None:
    node(model, "flat").input[0] = "elsewhere"


def open_shape(model: Model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def unknown_shape(model: Model) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].ClearField("dim_value")


def float_input(model: Model) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def untyped_input(model: Model) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 0


def no_annotation_entry(model: Model) -> None:
    del model.graph.quantization_annotation[0].quant_parameter_tensor_names[1]


def lacking_function(model: Model) -> None:
    del model.functions[0]


def foreign_function(model: Model) -> None:
    extra = model.functions.add()
    extra.CopyFrom(model.functions[0])
    extra.domain, extra.name = "com.example", "Extra"


def unknown_function(model: Model) -> None:
    model.functions.add().CopyFrom(model.functions[0])
    model.functions[-1].name = "NestedSoftmax"


def second_function(model: Model) -> None:
    model.functions.add().CopyFrom(model.functions[0])


def other_operator(body: onnx.FunctionProto) -> None:
    next(item for item in body.node if item.op_type == "Add").op_type = "Sub"


def other_attribute(body: onnx.FunctionProto) -> None:
    next(item for item in body.node if item.op_type == "Cast").attribute[0].i = TensorProto.INT16


def other_length(body: onnx.FunctionProto) -> None:
    del body.node[-1]


def other_output(body: onnx.FunctionProto) -> None:
    body.output[0] = "p"


SUPPORTED = (
    "ArgMax, Concat, Flatten, Gather, Identity, MaxPool, Reshape, Slice, Transpose, dqtsim.NestedAdd, "
    "dqtsim.NestedAveragePool, dqtsim.NestedConv, dqtsim.NestedGemm, dqtsim.NestedLogits, "
    "dqtsim.NestedMultiply, dqtsim.NestedRequantize, dqtsim.NestedTable"
)
CASES: dict[str, tuple[Change, str]] = {
    "no format": (
        forget("dqtsim.format"),
        "a nested model states its format in metadata 'dqtsim.format'; this file has no such entry.",
    ),
    "later format": (
        say("dqtsim.format", "3"),
        "this version reads formats 1 and 2; metadata 'dqtsim.format' says '3'.",
    ),
    "no rounding": (
        forget("dqtsim.rounding"),
        "a nested model carries metadata 'dqtsim.rounding'; this file has no such entry.",
    ),
    "no layers": (
        forget("dqtsim.layers"),
        "a nested model carries metadata 'dqtsim.layers'; this file has no such entry.",
    ),
    "no controller": (
        forget("dqtsim.controller"),
        "a nested model carries metadata 'dqtsim.controller'; this file has no such entry.",
    ),
    "width is no integer": (
        say("dqtsim.master_width", "eight"),
        "metadata 'dqtsim.master_width' is an integer; found 'eight'.",
    ),
    "unknown rule": (
        say("dqtsim.weight_rule", "NEAREST"),
        "metadata 'dqtsim.weight_rule' is one of TIES_UP, FLOOR, MIDPOINT, CENTROID; found 'NEAREST'.",
    ),
    "unknown rounding": (
        say("dqtsim.rounding", "MIDPOINT"),
        "metadata 'dqtsim.rounding' is one of TIES_UP, FLOOR, TIES_AWAY, TIES_EVEN; found 'MIDPOINT'.",
    ),
    "bad JSON": (say("dqtsim.layers", "[conv"), "metadata 'dqtsim.layers' is a JSON list; found '[conv'."),
    "other JSON": (say("dqtsim.pinned", "[]"), "metadata 'dqtsim.pinned' is a JSON object; found '[]'."),
    "deep JSON": (
        say("dqtsim.pinned", "[" * 100000),
        f"metadata 'dqtsim.pinned' is a JSON object; found '{'[' * 60}...'.",
    ),
    "candidate is no pair": (
        say("dqtsim.candidates", "[[4, 4], [2]]"),
        "metadata 'dqtsim.candidates' holds pairs of a weight width and an activation width; found [2].",
    ),
    "pinned is no pair": (
        say("dqtsim.pinned", '{"conv": [4, true]}'),
        "metadata 'dqtsim.pinned' holds pairs of a weight width and an activation width; found [4, True].",
    ),
    "layer is no name": (
        say("dqtsim.layers", '["conv", 5]'),
        "metadata 'dqtsim.layers' holds names; found 5.",
    ),
    "not UTF-8": (
        not_utf8,
        "texts in a model file are UTF-8; 'input' of a NodeProto holds b'fla\\xff.zero_point'.",
    ),
    "newer opset": (newer_opset, "a nested model imports domain 'ai.onnx' version 21; found 22."),
    "no opset of the domain": (no_opset, "a nested model imports domain 'dqtsim' version 1; found none."),
    "duplicate initializer": (duplicate_initializer, "initializer names are unique; 'conv.shift' occurs twice."),
    "external data": (external, "a model is one file; initializer 'conv.weight' is stored outside it."),
    "wrong byte count": (
        truncate,
        "initializer 'conv.weight' is malformed: its data do not fill uint8 (2, 1, 3, 3).",
    ),
    "negative size": (negative, "initializer 'conv.weight' is malformed: its data do not fill uint8 (-1, 1, 3, 3)."),
    "initializer of no dtype": (
        lambda model: setattr(initializer(model, "conv.shift"), "data_type", 0),
        "initializer 'conv.shift' has a dtype that no nested model uses: UNDEFINED.",
    ),
    "initializer of unheard dtype": (
        lambda model: setattr(initializer(model, "conv.shift"), "data_type", 1234),
        "initializer 'conv.shift' has a dtype that no nested model uses: 1234.",
    ),
    "unknown operator": (
        rename_operator,
        "a model may use only supported operators; node 'flat' is operator 'Softmax' of domain 'ai.onnx' (supported: "
        f"{SUPPORTED}).",
    ),
    "foreign domain": (
        foreign_domain,
        "a model may use only supported operators; node 'conv' is operator 'NestedConv' of domain 'com.example' "
        f"(supported: {SUPPORTED}).",
    ),
    "unknown attribute": (
        attribute("conv", "auto_pad", "SAME_UPPER"),
        "node 'conv' (dqtsim.NestedConv) has no attribute 'auto_pad'.",
    ),
    "missing attribute": (
        attribute("conv", "high", None),
        "node 'conv' (dqtsim.NestedConv) needs attribute 'high' and has none.",
    ),
    "attribute of wrong type": (
        attribute("conv", "strides", 2),
        "node 'conv' (dqtsim.NestedConv) has attribute 'strides' of a wrong type.",
    ),
    "attribute of wrong type, scalar": (
        attribute("conv", "low", [0, 1]),
        "node 'conv' (dqtsim.NestedConv) has attribute 'low' of a wrong type.",
    ),
    "attribute of wrong length": (
        attribute("conv", "pads", [1, 1]),
        "node 'conv' (dqtsim.NestedConv) takes 'pads' with 4 entries; found 2.",
    ),
    "cycle": (loop, "a graph has no cycles; found 'conv' -> 'flat' -> 'conv'."),
    "cycle of one node": (loop_of_one, "a graph has no cycles; found 'flat' -> 'flat'."),
    "out of order": (
        swap_order,
        "nodes stand in execution order; node 'class' (dqtsim.NestedLogits) reads 'flat', which node 'flat' (Flatten) "
        "produces only later.",
    ),
    "nothing produces an input": (
        no_producer,
        "node 'flat' (Flatten) reads 'elsewhere', which nothing before it produces.",
    ),
    "open shape": (open_shape, "shapes are fixed; tensor 'x' leaves axis 0 open ('N')."),
    "unknown shape": (unknown_shape, "shapes are fixed; tensor 'class' leaves axis 1 open ('?')."),
    "input of floats": (
        float_input,
        "the input is uint8 codes of one sample, shape (1, C, H, W) or (1, K); 'x' is float32 (1, 1, 3, 3).",
    ),
    "input of no dtype": (untyped_input, "tensor 'x' has a dtype that no nested model uses: UNDEFINED."),
    "half an annotation": (
        no_annotation_entry,
        "the quantization of tensor 'x' names an initializer as ZERO_POINT_TENSOR; found none.",
    ),
    "zero points per channel": (
        put("conv.weight.zero_point", np.array([128, 128], np.uint8)),
        "tensor 'conv.weight' has one zero point; initializer 'conv.weight.zero_point' has 2.",
    ),
    "zero point of floats": (
        put("conv.weight.zero_point", np.array(np.nan)),
        "tensor 'conv.weight' has a floating-point scale and an integer zero point; found float64 and float64.",
    ),
    "foreign function": (
        foreign_function,
        "a nested model carries only the functions of domain 'dqtsim'; found operator 'Extra' of domain 'com.example'.",
    ),
    "unknown function": (
        unknown_function,
        "a nested model carries only the functions of domain 'dqtsim'; found operator 'NestedSoftmax' of domain "
        "'dqtsim'.",
    ),
    "second function": (second_function, "a file carries one function body per operator; 'NestCodes' occurs twice."),
    "lacking function": (
        lacking_function,
        "the file lacks the function body of operator 'NestCodes' (domain 'dqtsim').",
    ),
    "body with another operator": (
        function("NestCodes", other_operator),
        "the function body of operator 'NestCodes' (domain 'dqtsim') differs from the law: node 4 must be "
        "'moved = Add(master, half)'; found 'moved = Sub(master, half)'.",
    ),
    "body with another attribute": (
        function("Align", other_attribute),
        "the function body of operator 'Align' (domain 'dqtsim') differs from the law: node 3 must be "
        "'wide = Cast(p)'; found 'wide = Cast(p)' with other attributes.",
    ),
    "body cut short": (
        function("NestedRequantize", other_length),
        "the function body of operator 'NestedRequantize' (domain 'dqtsim') differs from the law: it has 3 nodes "
        "instead of 4.",
    ),
    "body with another output": (
        function("Align", other_output),
        "the function body of operator 'Align' (domain 'dqtsim') differs from the law: its inputs, outputs, attributes "
        "or imports are others.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_reader(saved: bytes, case: str) -> None:
    change, sentence = CASES[case]
    model = parsed(saved)
    change(model)
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    assert str(caught.value) == sentence


def test_bodies_of_another_rounding_are_refused() -> None:
    model = to_onnx(tiny("TIES_EVEN"))
    say("dqtsim.rounding", "TIES_UP")(model)
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    assert str(caught.value) == (
        "the function body of operator 'Requantize' (domain 'dqtsim') differs from the law: node 3 must be "
        "'half = Div(divisor, two)'; found 'rest = Mod(product, divisor)'."
    )


def test_a_cycle_of_many_nodes_is_named_in_order() -> None:
    model = to_onnx(everything())
    node(model, "grouped").input[0] = "mean"
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    found = str(caught.value).removeprefix("a graph has no cycles; found ").removesuffix(".").split(" -> ")
    assert found[0] == found[-1] == "'grouped'"
    assert found[1:-1] in (
        ["'sum'", "'both'", "'mean'"],
        ["'sum'", "'widest'", "'both'", "'mean'"],
        ["'depthwise'", "'scaled'", "'sum'", "'both'", "'mean'"],
        ["'depthwise'", "'scaled'", "'sum'", "'widest'", "'both'", "'mean'"],
    )


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    return str(caught.value).replace(str(path), "PATH")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert refused(path) == "the model file 'PATH' cannot be read: no such file or directory."
    assert refused(tmp_path) == "the model file 'PATH' cannot be read: is a directory."
    path.write_bytes(b"")
    assert refused(path) == "the model file 'PATH' is not an ONNX model: it holds no graph."
    path.write_bytes(b"# not a model\n")
    assert refused(path) == "the model file 'PATH' is not an ONNX file: it does not parse."
    path.write_bytes(to_onnx(tiny()).SerializeToString()[:-7])
    assert refused(path) == "the model file 'PATH' is not an ONNX file: it does not parse."
