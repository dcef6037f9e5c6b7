"""Standard quantized models: MACs and BitOPs worked out by hand from shapes and widths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import StringStringEntryProto, TensorAnnotation, TensorProto, helper

from dqtsim.counting.counts import count
from dqtsim.counting.macs import MacNode, inference_cost
from dqtsim.energy import load_energy
from dqtsim.errors import ModelError
from dqtsim.frontends.products import width_of
from dqtsim.graph.model import Graph, Widths
from dqtsim.planner import plan
from dqtsim.report.text.costs import qonnx_block
from dqtsim.structures import build
from dqtsim.target import load_target

from .conftest import Command
from .foreign import QONNX, Sheet, count_foreign, tfc


def counted(model: onnx.ModelProto) -> list[tuple[str, str, str, int, int]]:
    """Return (name, input type, weight type, MACs, weight elements) of every node that multiplies."""
    nodes, _ = count_foreign(model)
    return [(node.name, node.input_type, node.weight_type, node.macs, node.weight_elements) for node in nodes]


def refused(sheet: Sheet, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        count_foreign(sheet.model(**options))
    return str(caught.value)


@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas", "finn.custom_op.general"])
@pytest.mark.parametrize("batch", ["N", 1, 0])
def test_the_zoo_s_perceptron(domain: str, batch: int | str) -> None:
    nodes, others = count_foreign(tfc(domain=domain, batch=batch).model())
    assert sum(node.macs for node in nodes) == 59_008
    assert sum(node.bitops for node in nodes) == 236_032
    assert [node.macs for node in nodes] == [784 * 64, 64 * 64, 64 * 64, 640]
    assert {(node.input_type, node.weight_type, node.output_type) for node in nodes} == {("INT2", "INT2", "INT32")}
    assert others == {"Quant": 8, "BatchNormalization": 3, "Mul": 1}


def test_other_widths_of_the_perceptron() -> None:
    assert sum(node.bitops for node in count_foreign(tfc(1, 2).model())[0]) == 59_008 * 2
    assert {row[1:3] for row in counted(tfc(1, 2).model())} == {("INT2", "BIPOLAR")}
    assert {row[1:3] for row in counted(tfc(4, 8).model())} == {("INT8", "INT4")}


def test_qdq() -> None:
    sheet = Sheet(("batch", 3, 8, 8))
    # the first convolution reads floats; weights int8 per channel
    x = sheet.node("Conv", "input", sheet.weight((4, 3, 3, 3), TensorProto.INT8, 0), name="stem", pads=[1] * 4)
    x = sheet.qdq(sheet.node("Relu", x), TensorProto.UINT8)
    x = sheet.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    # depthwise, int4 weights, 4 x 4 outputs of 9 taps
    x = sheet.node("Conv", x, sheet.weight((4, 1, 3, 3), TensorProto.INT4, 0), name="deep", pads=[1] * 4, group=4)
    x = sheet.qdq(x, TensorProto.UINT4)
    # two groups of 2 -> 3 channels, stride 3 on 4 x 4: 2 x 2 outputs
    x = sheet.node("Conv", x, sheet.weight((6, 2, 1, 1), TensorProto.UINT8), name="groups", strides=[3, 3], group=2)
    x = sheet.qdq(x, TensorProto.INT16)
    x = sheet.node("Flatten", sheet.node("Transpose", x, perm=[0, 2, 3, 1]))
    x = sheet.node("Gemm", x, sheet.weight((5, 24), TensorProto.INT4), name="dense", transB=1)
    x = sheet.node("MatMul", x, sheet.weight((5, 7), TensorProto.INT8), name="last")
    assert counted(sheet.model()) == [
        ("stem", "FLOAT32", "INT8", 4 * 64 * 27, 108),
        ("deep", "UINT8", "INT4", 4 * 16 * 9, 36),
        ("groups", "UINT4", "UINT8", 6 * 4 * 2, 12),
        ("dense", "INT16", "INT4", 24 * 5, 120),
        ("last", "FLOAT32", "INT8", 35, 35),
    ]
    nodes, others = count_foreign(sheet.model())
    assert [node.bitops for node in nodes] == [
        6912 * 256,
        576 * 32,
        48 * 32,
        120 * 64,
        35 * 256,
    ]
    assert [node.output_type for node in nodes] == ["FLOAT32", "INT32", "INT32", "INT32", "FLOAT32"]
    assert others["QuantizeLinear"] == 3


def test_float_weights_that_are_quantized_in_the_file() -> None:
    sheet = Sheet((1, 6))
    w = sheet.qdq(sheet.constant((6, 4)), TensorProto.INT8)
    sheet.node("MatMul", sheet.qdq("input", TensorProto.INT8), w, name="dense")
    assert counted(sheet.model()) == [("dense", "INT8", "INT8", 24, 24)]


def test_weights_come_first_as_well() -> None:
    sheet = Sheet((6, 5))
    w = sheet.weight((4, 6), TensorProto.INT4)
    sheet.node("MatMul", w, sheet.qdq("input", TensorProto.UINT8), name="left")
    assert counted(sheet.model()) == [("left", "UINT8", "INT4", 4 * 6 * 5, 24)]


def test_two_computed_operands_have_no_weights() -> None:
    sheet = Sheet((2, 3, 4))
    x = sheet.qdq("input", TensorProto.INT8)
    y = sheet.node("Transpose", sheet.qdq("input", TensorProto.UINT4), perm=[0, 2, 1])
    sheet.node("MatMul", x, y, name="attend")
    assert counted(sheet.model()) == [("attend", "INT8", "UINT4", 2 * 3 * 3 * 4, 0)]


def test_gemm_with_both_sides_transposed() -> None:
    sheet = Sheet((7, 3))
    sheet.node("Gemm", "input", sheet.constant((2, 7)), name="both", transA=1, transB=1)
    assert counted(sheet.model()) == [("both", "FLOAT32", "FLOAT32", 7 * 3 * 2, 14)]


def test_float_models_count_32_bits() -> None:
    sheet = Sheet((1, 2, 5), TensorProto.FLOAT16)
    sheet.node("Conv", "input", sheet.constant((3, 2, 2), TensorProto.FLOAT16), name="line")
    nodes, _ = count_foreign(sheet.model(out=TensorProto.FLOAT16))
    assert nodes == [MacNode("line", "Conv", "FLOAT16", "FLOAT16", "FLOAT32", 3 * 4 * 4, 12, 12)]
    assert nodes[0].bitops == 48 * 256
    solid = Sheet((1, 1, 3, 3, 3))
    solid.node("Conv", "input", solid.constant((2, 1, 2, 2, 2)), name="solid")
    assert counted(solid.model()) == [("solid", "FLOAT32", "FLOAT32", 2 * 8 * 8, 16)]
    assert count_foreign(solid.model())[0][0].bitops == 128 * 1024


def test_qoperator() -> None:
    sheet = Sheet(("N", 2, 6, 6), TensorProto.UINT8)
    one, zero = sheet.constant(()), sheet.constant((), TensorProto.UINT8, 0)
    signed = sheet.constant((), TensorProto.INT8, 0)
    w = sheet.constant((4, 2, 3, 3), TensorProto.INT8, 0)
    x = sheet.node("QLinearConv", "input", one, zero, w, one, signed, one, zero, name="conv")
    x = sheet.node("Reshape", x, sheet.shape(1, 64))
    w = sheet.constant((64, 3), TensorProto.UINT8, 0)
    x = sheet.node("QLinearMatMul", x, one, zero, w, one, zero, one, zero, name="matmul")
    x = sheet.node("MatMulInteger", x, sheet.constant((3, 5), TensorProto.INT8, 0), name="integer")
    assert counted(sheet.model(out=TensorProto.INT32)) == [
        ("conv", "UINT8", "INT8", 4 * 16 * 18, 72),
        ("matmul", "UINT8", "UINT8", 64 * 3, 192),
        ("integer", "UINT8", "INT8", 15, 15),
    ]
    plane = Sheet((1, 4, 4, 4), TensorProto.INT8)
    plane.node("ConvInteger", "input", plane.constant((4, 1, 3, 3), TensorProto.INT8), name="each", group=4)
    nodes, _ = count_foreign(plane.model(out=TensorProto.INT32))
    assert nodes == [MacNode("each", "ConvInteger", "INT8", "INT8", "INT32", 4 * 4 * 9, 36, 16)]


def test_one_bit() -> None:
    sheet = Sheet((1, 8))
    w = sheet.node("BipolarQuant", sheet.constant((8, 4)), sheet.constant(()), domain=QONNX)
    x = sheet.node("MatMul", sheet.quant("input", 1, signed=0), w, name="a")
    x = sheet.quant(x, 1)
    sheet.node("MatMul", x, sheet.quant(sheet.constant((4, 2)), 3), name="b")
    assert counted(sheet.model()) == [("a", "BINARY", "BIPOLAR", 32, 32), ("b", "BIPOLAR", "INT3", 8, 8)]
    assert [node.bitops for node in count_foreign(sheet.model())[0]] == [32, 24]


def test_widths_are_carried_through_moves() -> None:
    sheet = Sheet((1, 4, 4, 4))
    x = sheet.quant("input", 3, signed=0)
    x = sheet.node("MaxPool", sheet.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = sheet.node("Transpose", sheet.node("Identity", x), perm=[0, 1, 3, 2])
    x = sheet.node("Pad", x, sheet.shape(0, 0, 1, 0, 0, 0, 0, 0))
    x = sheet.node("Concat", x, sheet.quant(x, 5), axis=1)
    x = sheet.node("Conv", x, sheet.quant(sheet.constant((2, 8, 1, 1)), 2), name="joined")
    x = sheet.node("Flatten", sheet.quant(x, 6))
    # an average is on another grid, a cast of a narrow code is not
    sheet.node("MatMul", sheet.node("Sigmoid", x), sheet.constant((12, 3)), name="float")
    assert counted(sheet.model()) == [
        ("joined", "INT5", "INT2", 2 * 3 * 2 * 8, 16),
        ("float", "FLOAT32", "FLOAT32", 36, 36),
    ]
    cast = Sheet((1, 4), TensorProto.UINT8)
    x = cast.node("Cast", "input", to=TensorProto.FLOAT)
    cast.node("MatMul", x, cast.constant((4, 2)), name="pixels")
    assert counted(cast.model()) == [("pixels", "UINT8", "FLOAT32", 8, 8)]


def test_trunc_and_annotations() -> None:
    sheet = Sheet((1, 8))
    bits = [sheet.constant((), value=value) for value in (1, 0, 8, 4)]
    x = sheet.node("Trunc", sheet.quant("input", 8), *bits, domain=QONNX, rounding_mode="FLOOR")
    w = sheet.constant((8, 2))
    sheet.node("MatMul", x, w, name="dense")
    model = sheet.model()
    assert counted(model) == [("dense", "INT4", "FLOAT32", 16, 16)]
    entry = StringStringEntryProto(key="finn_datatype", value="TERNARY")
    model.graph.quantization_annotation.append(TensorAnnotation(tensor_name=w, quant_parameter_tensor_names=[entry]))
    assert counted(model) == [("dense", "INT4", "TERNARY", 16, 16)]
    assert count_foreign(model)[0][0].bitops == 16 * 8
    model.graph.quantization_annotation[0].quant_parameter_tensor_names[0].value = "SMALL"
    with pytest.raises(ModelError) as caught:
        count_foreign(model)
    assert str(caught.value) == f"tensor '{w}' is annotated as 'SMALL', whose width is not known."


def test_widths_of_data_types() -> None:
    names = "INT8 UINT4 INT32 FLOAT32 FLOAT16 BFLOAT16 FLOAT8E4M3FN BIPOLAR BINARY TERNARY FIXED<8,4> SCALEDINT<6>"
    assert [width_of(name) for name in names.split()] == [8, 4, 32, 32, 16, 16, 8, 1, 1, 2, 8, 6]
    assert width_of("STRING") == 0


@pytest.mark.parametrize(
    ("operator", "domain", "sentence"),
    [
        ("Einsum", "", "operator 'Einsum' of domain 'ai.onnx' is not known, and nothing is skipped."),
        ("ConvTranspose", "", "operator 'ConvTranspose' of domain 'ai.onnx' is not known, and nothing is skipped."),
        ("QGemm", "com.microsoft", "operator 'QGemm' of domain 'com.microsoft' is not known, and nothing is skipped."),
        ("Conv", "my.own", "operator 'Conv' of domain 'my.own' is not known, and nothing is skipped."),
        ("Quant", "", "operator 'Quant' of domain 'ai.onnx' is not known, and nothing is skipped."),
        ("FloatQuant", QONNX, f"operator 'FloatQuant' of domain '{QONNX}' is not known, and nothing is skipped."),
    ],
)
def test_an_unknown_operator(operator: str, domain: str, sentence: str) -> None:
    sheet = Sheet((1, 4))
    sheet.node(operator, "input", sheet.constant((4, 2)), domain=domain, name="odd")
    kind = f"{domain}.{operator}" if domain else operator
    assert refused(sheet) == f"node 'odd' ({kind}) has no count: {sentence}"


def test_what_cannot_be_counted() -> None:
    sheet = Sheet((1, 1, 4, 4))
    scales = sheet.constant((4,), value=2)
    sheet.node("Resize", "input", "", scales, mode="linear", name="grow")
    assert refused(sheet) == (
        "node 'grow' (Resize) has no count: mode 'linear' multiplies, and only 'nearest' is known."
    )
    sheet = Sheet(("N", 3, "height", 8))
    sheet.node("Relu", "input")
    assert refused(sheet) == "a count needs every size but the batch; input 'input' leaves axis 2 open ('height')."
    sheet = Sheet((1, 4))
    sheet.node("MatMul", "input", "nowhere", name="lost")
    assert refused(sheet) == "node 'lost' (MatMul) reads 'nowhere', which no node before it produces."
    sheet = Sheet((1, 4))
    sheet.node("MatMul", "input", sheet.constant((5, 2)), name="misfit")
    assert refused(sheet).startswith("the shapes of model 'sheet' cannot be inferred: ")
    assert "misfit" in refused(sheet)


@pytest.mark.parametrize(
    ("bits", "found"), [(0, "0"), (2.5, "2.5"), (65, "65"), (float("nan"), "nan"), (float("inf"), "inf")]
)
def test_a_width_that_is_none(bits: float, found: str) -> None:
    sheet = Sheet((1, 4))
    sheet.node("MatMul", sheet.quant("input", bits), sheet.constant((4, 2)))
    assert refused(sheet) == (
        f"node 'quant0' ({QONNX}.Quant) takes a whole bit width between 1 and 64; 'constant2' is {found}."
    )


def test_a_width_that_is_computed() -> None:
    sheet = Sheet((1, 4))
    one = sheet.constant(())
    width = sheet.node("Relu", one, name="width")
    sheet.node("Quant", "input", one, one, width, domain=QONNX, name="q")
    assert refused(sheet) == f"node 'q' ({QONNX}.Quant) takes one constant bit width; 'width.out' is none."
    sheet = Sheet((1, 4))
    one = sheet.constant(())
    sheet.node("Quant", "input", one, one, sheet.constant((2,)), domain=QONNX, name="q")
    assert refused(sheet) == f"node 'q' ({QONNX}.Quant) takes one constant bit width; 'constant1' is none."
    sheet = Sheet((1, 4))
    four = helper.make_tensor("four", TensorProto.FLOAT, (), [4.0])
    width = sheet.node("Constant", value=four)
    one = sheet.constant(())
    sheet.node("MatMul", sheet.node("Quant", "input", one, one, width, domain=QONNX), sheet.constant((4, 2)))
    assert [row[1] for row in counted(sheet.model())] == ["INT4"]


def twin(graph: Graph, bits: Mapping[str, Widths]) -> onnx.ModelProto:
    """Return a nested network as a QONNX model: every layer behind quantizers of its widths."""
    sheet = Sheet(graph.input.shape)
    tensors = {graph.input.name: "input"}
    for node in graph.nodes:
        if node.operator == "Gather":
            continue
        x = tensors[node.inputs[0]]
        window: dict[str, Any] = {
            key: list(node.integers(key)) for key in ("kernel_shape", "strides", "pads") if key in node.attributes
        }
        if node.name in bits:
            shape = graph.initializers[node.inputs[1]].shape
            x = sheet.quant(x, bits[node.name][1], signed=0)
            w = sheet.quant(sheet.constant(shape), bits[node.name][0])
            if node.operator == "NestedConv":
                y = sheet.node("Conv", x, w, name=node.name, group=node.integer("group"), **window)
            else:
                y = sheet.node("Gemm", x, w, name=node.name, transB=1)
        elif node.operator == "NestedAdd":
            y = sheet.node("Add", x, tensors[node.inputs[1]])
        else:
            y = sheet.node(node.operator.removeprefix("Nested"), x, **window)
        tensors[node.outputs[0]] = y
    return sheet.model()


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2"])
def test_a_nested_network_and_its_twin_in_qonnx_cost_the_same(name: str) -> None:
    graph = build(name, input_size=32)
    bits = {layer: (2 + index % 7, 2 + index % 5) for index, layer in enumerate(graph.layers)}
    nested = qonnx_block(count(plan(graph, load_target("default")), bits, load_energy()))
    other = inference_cost(count_foreign(twin(graph, bits))[0])
    assert nested["total_cost"] == other["total_cost"]
    assert nested["node_cost"] == other["node_cost"]


def test_names_that_repeat() -> None:
    sheet = Sheet((1, 4))
    x = sheet.node("MatMul", "input", sheet.constant((4, 2)), name="same")
    sheet.node("MatMul", x, sheet.constant((2, 3)), name="other")
    sheet.nodes[1].name = "same"
    assert [(row[0], row[3]) for row in counted(sheet.model())] == [("same", 8), ("other.out", 6)]


def test_nodes_without_names(tmp_path: Path, command: Command) -> None:
    sheet = Sheet((1, 4))
    sheet.node("MatMul", "input", sheet.constant((4, 2)), name="named")
    sheet.nodes[0].name = ""
    assert counted(sheet.model())[0][0] == "named.out"
    sheet = Sheet((1, 4))
    sheet.node("Relu", "input")
    result = command("count-ops", sheet.save(tmp_path))
    assert " ".join(result.stdout.splitlines()[2].split()) == "total 0 0 0"
