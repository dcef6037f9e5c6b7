"""Every operator of float ONNX that is read, in the forms that its versions have, beside onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")
pytest.importorskip("onnxruntime", reason="the reference is the optional extra 'oracle'")

import torch

from dqtsim.train.onnx.network import HANDLERS, read
from tests.train.onnxfiles import Array, Sizes, by_onnxruntime, file, node

R = np.random.default_rng(5)
Case = tuple[str, list[Any], dict[str, Any], int, Sizes]
CASES: list[Case] = []


def f(*shape: int) -> Array:
    return R.normal(0, 1, shape).astype(np.float32)


def i(*values: int) -> Array:
    return np.array(values, np.int64)


def case(operator: str, *inputs: Any, opset: int = 17, shape: Sizes = ("n", 3, 8, 6), **attributes: Any) -> None:
    """Add a node: an input is "x", a constant, or "" where one is left out."""
    CASES.append((operator, list(inputs), attributes, opset, shape))


for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [2, 0, 1, 1]):
    case("Conv", "x", f(4, 3, 3, 3), f(4), pads=pads, strides=[2, 1], dilations=[1, 2])
case("Conv", "x", f(6, 1, 3, 2), group=3)
for way in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    for opset in (7, 11, 21):
        case("Conv", "x", f(4, 3, 3, 2), f(4), opset=opset, auto_pad=way, strides=[2, 2])
case("Conv", "x", f(4, 3, 3), f(4), shape=("n", 3, 9), pads=[1, 0])
case("ConvTranspose", "x", f(3, 4, 3, 3), f(4), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
case("ConvTranspose", "x", f(3, 2, 2, 2), strides=[2, 2], group=3)
case("ConvTranspose", "x", f(3, 4, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
case("ConvTranspose", "x", f(3, 4, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER")
case("ConvTranspose", "x", f(3, 4, 3, 3), strides=[2, 2], output_shape=[16, 12])
case("ConvTranspose", "x", f(3, 4, 3, 3), strides=[2, 3], pads=[0, 1, 1, 0], dilations=[2, 1])
case("Gemm", "x", f(5, 7), f(7), shape=("n", 5))
case("Gemm", "x", f(7, 5), f(1, 7), shape=("n", 5), transB=1, alpha=0.5, beta=2.0)
case("Gemm", "x", f(7, 5), f(1), shape=("n", 5), transB=1, opset=11)
case("Gemm", "x", f(7, 5), shape=("n", 5), transB=1, opset=13)
case("MatMul", "x", f(5, 7), shape=("n", 5))
case("MatMul", "x", f(6, 4))
for opset in (7, 9, 14, 15):
    case("BatchNormalization", "x", f(3), f(3), f(3), f(3) ** 2, opset=opset, epsilon=0.01)
for opset in (7, 12, 14, 21):
    for operator in ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Softplus", "Softsign", "HardSigmoid"):
        case(operator, "x", opset=opset)
case("LeakyRelu", "x", alpha=0.3)
case("Elu", "x", alpha=0.7)
case("HardSigmoid", "x", alpha=1 / 6, beta=0.5)
case("HardSwish", "x", opset=14)
case("Mish", "x", opset=18)
case("Gelu", "x", opset=20)
case("Gelu", "x", opset=20, approximate="tanh")
for operator in ("Erf", "Exp", "Abs", "Neg", "Reciprocal"):
    case(operator, "x")
case("Clip", "x", opset=7, min=-0.5, max=0.75)
case("Clip", "x", opset=10, max=0.75)
case("Clip", "x", opset=10)
for limits in ((f(), ""), ("", f()), (np.float32(0), np.float32(6)), (np.float32(0), ""), ("", "")):
    case("Clip", "x", *limits, opset=13)
case("PRelu", "x", f(3, 1, 1))
case("PRelu", "x", f(1))
case("PRelu", "x", f(5), shape=("n", 5))
for operator in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
    case(operator, "x", "x")
    for other in (f(1) + 3, f(3, 1, 1), f(1, 3, 1, 1), f()):
        if operator not in ("Max", "Min") or other.size == 1:
            case(operator, "x", other)
            case(operator, other, "x")
case("Pow", "x", np.float32(2))
case("Sum", "x", "x", "x")
for mode in (0, 1):
    case("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=mode, opset=12)
    case("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=mode, opset=12)
    for count in (0, 1):
        options: dict[str, Any] = {"strides": [2, 2], "ceil_mode": mode, "count_include_pad": count, "opset": 19}
        case("AveragePool", "x", kernel_shape=[3, 2], **options)
        case("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], **options)
for way in ("SAME_UPPER", "SAME_LOWER"):
    case("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad=way, opset=8)
    case("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad=way, opset=7)
for pads in ([1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 1]):
    case("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=pads)
    case("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=pads)
    case("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=1)
# a window that would begin in the padding
case("MaxPool", "x", kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 0, 1], ceil_mode=1)
case("AveragePool", "x", kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 0, 1], ceil_mode=1)
case("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])
case("MaxPool", "x", kernel_shape=[2], strides=[2], shape=("n", 3, 9))
case("AveragePool", "x", kernel_shape=[2], strides=[2], shape=("n", 3, 9))
case("GlobalAveragePool", "x")
case("GlobalMaxPool", "x")
for keep in (0, 1):
    case("ReduceMean", "x", axes=[2, 3], keepdims=keep)
    case("ReduceMean", "x", i(-1, -2), keepdims=keep, opset=18)
case("ReduceMean", "x", opset=18, noop_with_empty_axes=1)
case("Reshape", "x", i(0, -1))
case("Reshape", "x", i(-1, 12, 12))
case("Reshape", "x", i(0, 0, 12, 4), opset=7)
case("Reshape", "x", i(-1, 3, 48), opset=14, allowzero=1)
case("Flatten", "x")
case("Flatten", "x", axis=-3, opset=11)
case("Transpose", "x", perm=[0, 2, 3, 1])
case("Squeeze", "x", opset=11, axes=[2], shape=("n", 3, 1, 6))
case("Squeeze", "x", i(-2), opset=13, shape=("n", 3, 1, 6))
case("Unsqueeze", "x", opset=11, axes=[1, 3])
case("Unsqueeze", "x", i(-1), opset=13)
case("Concat", "x", "x", axis=1)
case("Concat", "x", "x", axis=-1, opset=11)
case("Slice", "x", opset=9, axes=[1, 3], starts=[1, -4], ends=[3, 1000])
case("Slice", "x", i(1, -4), i(3, 1000), i(1, 3))
case("Slice", "x", i(-1), i(-1000), i(2), i(-1))
case("Slice", "x", i(-1), i(0), i(2), i(-2))
case("Slice", "x", i(0), i(8), i(2), i(3))
case("Slice", "x", i(0, 1), i(1000, 3))
case("Gather", "x", i(2, 0, -1), axis=1)
case("Gather", "x", np.int64(1), axis=2)
case("Pad", "x", opset=10, pads=[0, 0, 1, 2, 0, 0, 0, 3], value=0.5)
case("Pad", "x", i(0, 1, 1, 2, 0, 0, 0, 3), np.float32(0.25), opset=11)
case("Pad", "x", i(1, 2, 0, 3), "", i(2, -1), opset=18)
case("Pad", "x", i(0, 0, 1, 2, 0, 0, 0, 3), mode="reflect")
case("Pad", "x", i(0, 0, 1, 2, 0, 0, 0, 3), mode="edge")
case("Pad", "x", i(0, 0, -1, 0, 0, 0, 0, -2))
case("Pad", "x", i(0, 0, 0, 0, 0, 0, 0, 0))
for order in ("DCR", "CRD"):
    case("DepthToSpace", "x", blocksize=2, mode=order, shape=("n", 12, 3, 4))
case("SpaceToDepth", "x", blocksize=2)
S = np.array([1, 1, 2, 3], np.float32)
case("Upsample", "x", opset=7, scales=[1.0, 1.0, 2.0, 3.0])
case("Upsample", "x", S, opset=9)
case("Resize", "x", S, opset=10)
NONE = np.zeros(0, np.float32)
for way in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
    for near in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        for scales in (S, np.array([1, 1, 1.5, 0.5], np.float32)):
            case("Resize", "x", NONE, scales, coordinate_transformation_mode=way, nearest_mode=near)
case("Resize", "x", NONE, NONE, i(1, 3, 16, 9), opset=13, shape=(1, 3, 8, 6))
case("Resize", "x", NONE, S, mode="linear")
case("Resize", "x", NONE, S, mode="linear", coordinate_transformation_mode="align_corners")
case("Resize", "x", "", S[2:], axes=[2, 3], opset=18)
case("Identity", "x")
case("Dropout", "x", opset=10)
case("Dropout", "x", np.float32(0.5), np.array(False), opset=12)
case("Cast", "x", to=1)
for operator in ("Softmax", "LogSoftmax"):
    case(operator, "x", opset=11, shape=("n", 7))
    case(operator, "x", opset=11, axis=3)
    case(operator, "x", opset=13)
    case(operator, "x", opset=13, axis=1)
# only where the values fit
POSITIVE = ("Log", "Sqrt")
for operator in POSITIVE:
    case(operator, "x")


def made(path: Path, given: Case) -> Path:
    operator, inputs, attributes, opset, shape = given
    names, constants = [], {}
    for position, value in enumerate(inputs):
        if isinstance(value, str):
            names.append(value)
        else:
            names.append(f"c{position}")
            constants[names[-1]] = np.asarray(value)
    return file(path, [node(operator, *names, **attributes)], constants, shape, opset)


def named(given: Case) -> str:
    operator, inputs, attributes, opset, _ = given
    shapes = [value if isinstance(value, str) else "x".join(map(str, np.shape(value))) for value in inputs[1:]]
    return f"{operator}-{opset}-{'-'.join(shapes)}-{attributes}"


@pytest.mark.parametrize("given", CASES, ids=named)
def test_an_operator_gives_what_onnxruntime_gives(given: Case, tmp_path: Path) -> None:
    path = made(tmp_path / "one.onnx", given)
    found = read(path)
    sizes = [2 if isinstance(entry, str) else entry for entry in given[4]]
    x = np.abs(f(*sizes)) + 0.5 if given[0] in POSITIVE else 2 * f(*sizes)
    (expected,) = by_onnxruntime(path, x)
    with torch.no_grad():
        result = found.network(torch.from_numpy(x)).numpy()
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_operator_that_is_read_has_a_case() -> None:
    assert {given[0] for given in CASES} == HANDLERS.keys() - {"Split"}
