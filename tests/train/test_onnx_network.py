"""Float ONNX files as a whole: names, folded shapes, layouts, and every refusal in full."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")
pytest.importorskip("onnxruntime", reason="the reference is the optional extra 'oracle'")

import torch
from onnx import TensorProto, helper, numpy_helper

from dqtsim.errors import InputError, ModelError
from dqtsim.train.onnx import reference
from dqtsim.train.onnx.names import paths
from dqtsim.train.onnx.network import FloatFile, read
from tests.train.onnxfiles import Array, file, node

R = np.random.default_rng(6)


def f(*shape: int) -> Array:
    return R.normal(0, 1, shape).astype(np.float32)


def i(*values: int) -> Array:
    return np.array(values, np.int64)


def checked(path: Path, count: int = 3) -> FloatFile:
    """Return a file that gives what onnxruntime gives."""
    found = read(path)
    reference.check(found, torch.from_numpy(f(count, *found.shape)))
    return found


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as raised:
        checked(path)
    return str(raised.value)


def test_shapes_that_a_file_computes_are_folded(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x", "stem.weight", output="a"),
        node("Shape", "a", output="s"),
        node("Gather", "s", "zero", output="n"),
        node("Unsqueeze", "n", "first", output="n1"),
        node("Constant", output="rest", value=numpy_helper.from_array(i(-1))),
        node("Concat", "n1", "rest", output="to", axis=0),
        node("Reshape", "a", "to"),
    ]
    constants = {"stem.weight": f(4, 3, 3, 3), "zero": np.array(0), "first": i(0)}
    for shape in (("n", 3, 8, 6), (1, 3, 8, 6), (4, 3, 8, 6)):
        found = checked(file(tmp_path / "a.onnx", nodes, constants, shape))
        assert found.network(torch.zeros(5, 3, 8, 6)).shape == (5, 96)
        assert list(dict(found.network.named_parameters())) == ["stem.weight"]
        assert found.batch == (None if shape[0] == "n" else shape[0])


def test_a_split_and_several_outputs(tmp_path: Path) -> None:
    forms: list[tuple[int, list[str], dict[str, Any]]] = [
        (11, [], {"split": [1, 2]}),
        (13, ["parts"], {}),
        (13, [], {}),
    ]
    for opset, inputs, more in forms:
        split = helper.make_node("Split", ["x", *inputs], ["a", "b"], axis=1, **more)
        nodes = [split, node("Relu", "a", output="y"), node("Tanh", "b", output="z")]
        shape = ("n", 3 if inputs or more else 4, 2, 2)
        found = checked(file(tmp_path / "a.onnx", nodes, {"parts": i(1, 2)}, shape, opset, ("z", "y")))
        assert found.outputs == ("z", "y")
    nodes = [helper.make_node("Split", ["x"], ["a", "y"], axis=1, num_outputs=2)]
    checked(file(tmp_path / "a.onnx", nodes, {}, ("n", 3, 2, 2), 18))


def test_channels_last_files_take_pictures_with_channels_first(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", output="t", perm=[0, 3, 1, 2]), node("Conv", "t", "w")]
    found = checked(file(tmp_path / "a.onnx", nodes, {"w": f(2, 3, 3, 3)}, (1, 8, 6, 3)))
    assert (found.shape, found.channels_last) == ((3, 8, 6), True)
    assert found.network(torch.zeros(2, 3, 8, 6)).shape == (2, 2, 6, 4)


def test_what_no_output_needs_is_not_read(tmp_path: Path) -> None:
    nodes = [node("Relu", "x"), node("Nonsense", "x", output="z")]
    checked_names = [name for name, _ in read(file(tmp_path / "a.onnx", nodes, {})).network.named_modules()]
    assert checked_names == ["", "y"]


def named(name: str, operator: str, weight: str = "") -> onnx.NodeProto:
    return helper.make_node(operator, ["x", weight] if weight else ["x"], ["o"], name=name)


def test_names_are_those_of_the_weights_or_of_the_nodes() -> None:
    assert paths([named("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1.weight")]) == ["layer1.0.conv1"]
    assert paths([named("node_Conv_7", "Conv", "stem.weight")]) == ["stem"]
    assert paths([named("/layer1/layer1.0/conv1/Conv", "Conv", "onnx::Conv_12")]) == ["layer1.0.conv1"]
    both = [named("/a/Conv", "Conv"), named("/a/Relu", "Relu"), named("/a/Relu", "Relu")]
    assert paths(both) == ["a.Conv", "a.Relu", "a.Relu_2"]
    assert paths([named("", "Relu"), named("o", "Relu"), named("o/b", "Add")]) == ["o_2", "o_3", "o.b"]
    assert paths([named("/forward/type", "Relu")]) == ["forward_.type_"]


def test_functions_of_a_file_are_read(tmp_path: Path) -> None:
    body = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", "a", "a", output="b")], [helper.make_opsetid("", 17)]
    )
    path = file(tmp_path / "a.onnx", [helper.make_node("Twice", ["x"], ["y"], domain="own")], {}, domains=("own",))
    model = onnx.load(path)
    model.functions.append(body)
    onnx.save(model, path)
    checked(path)


READ = "these are Abs, Add, AveragePool, BatchNormalization, Cast, Clip, Concat, Conv, ConvTranspose, DepthToSpace"


@pytest.mark.parametrize(
    ("nodes", "constants", "sentence"),
    [
        ([node("Ceil", "x", name="up")], {}, "node 'up' (Ceil) is no operator that is read; " + READ),
        ([node("Relu", "none")], {}, "node 'y' (Relu) cannot be computed from its constants: "),
        ([node("Conv", "x", "x")], {},
         "node 'y' (Conv) must have a constant as input 1, and it depends on the picture or is missing."),
        ([node("Conv", "x", "w")], {"w": f(4, 3, 3, 3).astype(np.float64)},
         "node 'y' (Conv) must have float32 as input 1, and has float64."),
        ([node("Conv", "x", "w", kernel_shape=[5, 5])], {"w": f(4, 3, 3, 3)},
         "node 'y' (Conv) states a kernel of [5, 5], and its weights have [3, 3]."),
        ([node("Conv", "x", "w")], {"w": f(4, 2, 3, 3)},
         "node 'y' (Conv) cannot be computed by PyTorch: Given groups=1, "),
        ([node("BatchNormalization", "x", *"abcd", training_mode=1)], {n: f(3) for n in "abcd"},
         "node 'y' (BatchNormalization) is in training mode; export the network in eval mode."),
        ([node("Reshape", "x", "s")], {"s": i(-1, 2)},
         "node 'y' (Reshape) must keep the pictures apart, and makes [1, 3, 8, 6] a batch of [2]."),
        ([node("Reshape", "x", "s")], {"s": i(3, 48)},
         "node 'y' (Reshape) must keep the pictures apart, and makes [1, 3, 8, 6] of them [3, 48]."),
        ([node("Transpose", "x", perm=[1, 0, 2, 3])], {}, "node 'y' (Transpose) moves the axis of the batch."),
        ([node("Flatten", "x", axis=2)], {},
         "node 'y' (Flatten) must keep the axis of the batch and flatten all others, and has axis 2."),
        ([node("Concat", "x", "x", axis=0)], {},
         "node 'y' (Concat) works on the axis of the batch, so that pictures would depend on each other."),
        ([node("ReduceMean", "x")], {},
         "node 'y' (ReduceMean) takes the mean over all axes, so that pictures would depend on each other."),
        ([node("Add", "x", "c")], {"c": f(2, 3, 8, 6)},
         "node 'y' (Add) must have a constant that fits [3, 8, 6], and has [2, 3, 8, 6]."),
        ([node("PRelu", "x", "c")], {"c": f(3)},
         "node 'y' (PRelu) must have one slope or one per channel, 3, and has [3]."),
        ([node("Resize", "x", "", "s", mode="cubic")], {"s": np.array([1, 1, 2, 2], np.float32)},
         "node 'y' (Resize) has mode cubic with half_pixel; nearest, and linear with half_pixel or "
         "align_corners, are read."),
        ([node("Cast", "x", to=10)], {}, "node 'y' (Cast) makes a feature map anything but float32."),
        ([node("RandomNormal", output="r", shape=[1]), node("Add", "x", "r")], {},
         "node 'r' (RandomNormal) gives other values every time."),
        ([helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")], {},
         "node 'y' (FusedConv) is of the domain com.microsoft; only standard operators are read."),
        ([node("MaxPool", "x", kernel_shape=[2, 2], pads=[0, 2, 0, 0])], {},
         "node 'y' (MaxPool) has pads that no pool of PyTorch has."),
        ([node("Shape", "x")], {}, "the output 'y' must depend on the picture, and does not."),
        ([helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2, 2])], {},
         "node 'y' (MaxPool) gives indices, which are not read."),
    ],
)  # fmt: skip
def test_nodes_are_refused_by_name(nodes: list[onnx.NodeProto], constants: Any, sentence: str, tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", nodes, constants, domains=("com.microsoft",))
    found = refusal(path)
    assert found == sentence if sentence.endswith(".") else found.startswith(sentence)


def changed(path: Path, change: Any) -> Path:
    file(path, [node("Relu", "x")], {})
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def test_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(raised.value) == f"the model file '{path}' cannot be read: no such file or directory."
    path.write_bytes(b"no protobuf")
    assert refusal(path) == f"'{path}' is no ONNX file."
    path.write_bytes(b"")
    assert refusal(path) == f"'{path}' is no ONNX file with a network: it has no nodes."
    more = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    assert refusal(changed(path, lambda m: m.graph.input.append(more))) == (
        "a float model must have one input, and has 2: x, z."
    )
    assert refusal(changed(path, lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10))) == (
        "the input 'x' must be float32, and is float16."
    )
    assert refusal(file(path, [node("Relu", "x")], {}, ("n", 3, "h", 6))) == (
        "the input 'x' must have a known size but for the batch, and is [?, 3, ?, 6]; "
        "onnxruntime.tools.make_dynamic_shape_fixed sets it."
    )
    assert refusal(changed(path, lambda m: setattr(m.opset_import[0], "version", 6))) == (
        "a float ONNX model must have opset 7 or newer, and has 6."
    )
    assert refusal(changed(path, lambda m: m.metadata_props.add(key="dqtsim.format", value="1"))) == (
        f"'{path}' is nested already; dqtsim quantize takes a float model."
    )


def test_another_result_than_onnxruntimes_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", [node("Conv", "x", "c.weight", "b")], {"c.weight": f(2, 3, 3, 3), "b": f(2)})
    found = checked(path)
    pictures = torch.ones(1, 3, 8, 6)
    largest = found.network(pictures).abs().max().item()
    found.network.get_parameter("c.bias").data += 1.0
    with pytest.raises(ModelError) as raised:
        reference.check(found, pictures)
    assert str(raised.value) == (
        "the output 'y' as read must be onnxruntime's, but they are up to 1 apart, where the largest value is "
        f"{largest:.3g}."
    )


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", [node("Log", "x")], {})
    assert refusal(path) == "a network must give finite values, but its output 'y' does not in onnxruntime."


def test_constants_beside_the_file_are_read(tmp_path: Path) -> None:
    path = file(tmp_path / "a.onnx", [node("Conv", "x", "w")], {"w": f(2, 3, 3, 3)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    checked(path)
    (tmp_path / "w.bin").unlink()
    assert refusal(path).startswith(f"'{path}' cannot be read: ")
