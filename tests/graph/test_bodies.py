"""The function bodies, executed by stock onnxruntime, equal a NumPy formulation of the law, bit for bit."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper

from dqtsim.graph import Graph, GraphBuilder, to_onnx
from dqtsim.spec import Nesting, Rounding
from tests.builders import tables
from tests.products import products

from .networks import everything
from .reference import Reference

Array = npt.NDArray[Any]

RULES = list(product([rule.value for rule in Nesting], ("TIES_UP", "FLOOR")))
ROUNDINGS = [rounding.value for rounding in Rounding]


def session(graph: Graph, fed: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    """Return a stock session; the initializers named in `fed` become inputs that a run may set."""
    model = to_onnx(graph)
    for tensor in model.graph.initializer:
        if tensor.name in fed:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def assert_equal_outputs(graph: Graph, runtime: onnxruntime.InferenceSession, feeds: dict[str, Array]) -> None:
    names = [value.name for value in graph.outputs]
    known = Reference(graph).run(feeds["x"], feeds.get("bits"))
    for name, found in zip(names, runtime.run(names, feeds), strict=True):
        assert found.dtype == known[name].dtype
        np.testing.assert_array_equal(found, known[name], err_msg=f"{name} {feeds.get('bits')}", strict=True)


def picture(graph: Graph, seed: int) -> Array:
    top = 1 << graph.arithmetic.master_width
    return np.random.default_rng(seed).integers(0, top, graph.input.shape, np.uint8)


@pytest.mark.parametrize(("weight_rule", "activation_rule"), RULES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_bodies_at_all_64_width_pairs(weight_rule: str, activation_rule: str, rounding: str) -> None:
    graph = everything(weight_rule=weight_rule, activation_rule=activation_rule, rounding=rounding)
    runtime = session(graph, ["bits"])
    x = picture(graph, 5)
    for pair in product(range(1, 9), repeat=2):
        assert_equal_outputs(graph, runtime, {"x": x, "bits": np.array([pair] * len(graph.layers), np.int64)})


@pytest.mark.parametrize(("weight_rule", "activation_rule"), RULES)
@pytest.mark.parametrize(("n", "row_widths"), [(2, (1, 2)), (3, (3,)), (5, (2, 3)), (7, (1, 4, 6, 7))])
def test_bodies_at_other_master_widths(
    weight_rule: str, activation_rule: str, n: int, row_widths: tuple[int, ...]
) -> None:
    graph = everything(n=n, weight_rule=weight_rule, activation_rule=activation_rule, row_widths=row_widths, seed=n)
    runtime = session(graph, ["bits"])
    x = picture(graph, n)
    for pair in product(range(1, n + 1), repeat=2):
        assert_equal_outputs(graph, runtime, {"x": x, "bits": np.array([pair] * len(graph.layers), np.int64)})


@pytest.mark.parametrize(
    "row_pairs", [((2, 8), (4, 4), (8, 2)), ((8, 8), (3, 1), (2, 8), (5, 5)), ((1, 1),), ((8, 8),)]
)
def test_bodies_with_row_pairs_at_all_64_width_pairs(row_pairs: tuple[tuple[int, int], ...]) -> None:
    graph = everything(row_pairs=row_pairs, seed=len(row_pairs))
    runtime = session(graph, ["bits"])
    x = picture(graph, 5)
    for pair in product(range(1, 9), repeat=2):
        assert_equal_outputs(graph, runtime, {"x": x, "bits": np.array([pair] * len(graph.layers), np.int64)})


@pytest.mark.parametrize(("weight_rule", "activation_rule"), [("TIES_UP", "TIES_UP"), ("MIDPOINT", "FLOOR")])
@pytest.mark.parametrize("row_pairs", [(), ((2, 8), (4, 4), (8, 2))])
def test_bodies_with_windows_and_padding_codes_at_all_64_width_pairs(
    weight_rule: str, activation_rule: str, row_pairs: tuple[tuple[int, int], ...]
) -> None:
    graph = everything(weight_rule=weight_rule, activation_rule=activation_rule, row_pairs=row_pairs, lowered=True)
    runtime = session(graph, ["bits"])
    x = picture(graph, 5)
    for pair in product(range(1, 9), repeat=2):
        assert_equal_outputs(graph, runtime, {"x": x, "bits": np.array([pair] * len(graph.layers), np.int64)})


@pytest.mark.parametrize("n", [2, 3, 5])
def test_bodies_with_windows_and_padding_codes_at_other_master_widths(n: int) -> None:
    graph = everything(n=n, row_widths=(n,), seed=n, lowered=True)
    runtime = session(graph, ["bits"])
    x = picture(graph, n)
    for pair in product(range(1, n + 1), repeat=2):
        assert_equal_outputs(graph, runtime, {"x": x, "bits": np.array([pair] * len(graph.layers), np.int64)})


@pytest.mark.parametrize("weight_rule", ["TIES_UP", "MIDPOINT"])
def test_bodies_at_mixed_widths_and_extreme_pictures(weight_rule: str) -> None:
    graph = everything(weight_rule=weight_rule, seed=9)
    runtime = session(graph, ["bits"])
    random = np.random.default_rng(9)
    for seed in range(20):
        x = [picture(graph, seed), np.zeros(graph.input.shape, np.uint8), np.full(graph.input.shape, 255, np.uint8)]
        assert_equal_outputs(graph, runtime, {"x": x[seed % 3], "bits": random.integers(1, 9, (len(graph.layers), 2))})


@pytest.mark.parametrize(("weight_rule", "seed"), [("TIES_UP", 4), ("MIDPOINT", 10)])
def test_the_controller_chooses_from_the_picture(weight_rule: str, seed: int) -> None:
    graph = everything(weight_rule=weight_rule, seed=seed, controlled=True)
    runtime = session(graph)
    chosen = set()
    for brightness in range(12):
        x = picture(graph, brightness) // np.uint8(8) + np.uint8(20 * brightness)
        assert_equal_outputs(graph, runtime, {"x": x})
        (bits,) = runtime.run(["bits"], {"x": x})
        assert tuple(bits[0]) == graph.pinned["stem"]
        assert {tuple(row) for row in bits[1:].tolist()} <= set(graph.candidates)
        chosen.add(bits.tobytes())
    assert len(chosen) > 1


def requantizer(rounding: str) -> Graph:
    builder = GraphBuilder("requantizer", rounding=rounding)
    x = builder.input("x", (1, 1, 16, 16), zero_point=0, scale=1.0)
    options: dict[str, Any] = {"zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    y = builder.requantize("y", x, multiplier=1, shift=62, **options)
    beside = builder.max_pool("beside", x, kernel=(2, 2), strides=(1, 1), pads=(1, 1, 0, 0))
    total = builder.add("sum", x, beside, multiplier_a=1, multiplier_b=1, shift=62, **options)
    builder.output(y)
    builder.output(total)
    return builder.build()


CORNERS = [0, 1, 2, 3, 127, 128, 1 << 15, (1 << 16) - 1, 1 << 30, (1 << 31) - 1]


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_requantize_and_add_at_corners_of_multiplier_shift_and_zero_point(rounding: str) -> None:
    """Every code, M and S at their limits, with ties wherever S is small."""
    graph = requantizer(rounding)
    names: tuple[str, ...] = ("x.zero_point", "y.zero_point", "sum.zero_point", "y.multiplier", "y.shift")
    names += ("sum.a_multiplier", "sum.b_multiplier", "sum.shift", "beside.zero_point")
    runtime = session(graph, names)
    x = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 1, 16, 16)
    for m, s, z in product(CORNERS, (0, 1, 2, 7, 8, 15, 31, 38, 61, 62), (0, 7, 128, 255)):
        tables = {name: np.array({"zero_point": z, "shift": s}.get(name.split(".")[1], m)) for name in names}
        feeds = {
            name: array.astype(np.uint8 if name.endswith("zero_point") else np.int64) for name, array in tables.items()
        }
        feeds["sum.b_multiplier"] = np.array(CORNERS[-1] - m, np.int64)
        known = Reference(replaced(graph, feeds)).run(x)
        for name, found in zip(("y", "sum"), runtime.run(["y", "sum"], {"x": x, **feeds}), strict=True):
            np.testing.assert_array_equal(found, known[name], err_msg=f"{name} M={m} S={s} z={z}", strict=True)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_products_at_corners_of_multiplier_shift_and_zero_points(rounding: str) -> None:
    builder = GraphBuilder("products", rounding=rounding)
    x = builder.input("x", (1, 1, 16, 16), zero_point=0, scale=1.0)
    options: dict[str, Any] = {"multiplier": 1, "shift": 0, "zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    beside = builder.max_pool("beside", x, kernel=(2, 2), strides=(1, 1), pads=(1, 1, 0, 0))
    builder.output(builder.multiply("y", x, beside, **options))
    names = ("x.zero_point", "beside.zero_point", "y.zero_point", "y.multiplier", "y.shift")
    runtime = session(graph := builder.build(), names)
    codes = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 1, 16, 16)
    for m, s, zeros in product(CORNERS, (0, 1, 2, 8, 15, 31, 47, 61, 62), ((0, 0, 0), (128, 7, 128), (255, 255, 9))):
        feeds: dict[str, Array] = dict(zip(names, (np.array(z, np.uint8) for z in zeros), strict=False))
        feeds |= {"y.multiplier": np.array(m, np.int64), "y.shift": np.array(s, np.int64)}
        known = Reference(replaced(graph, feeds)).run(codes)
        (found,) = runtime.run(["y"], {"x": codes, **feeds})
        np.testing.assert_array_equal(found, known["y"], err_msg=f"M={m} S={s} z={zeros}", strict=True)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("n", "channels"), [(8, 3), (5, 17), (2, 1)])
def test_products_of_channels_and_of_branches(rounding: str, n: int, channels: int) -> None:
    graph = products(channels=channels, n=n, seed=n, rounding=rounding)
    runtime = session(graph, ["bits"])
    for seed in range(3):
        feeds = {"x": picture(graph, seed), "bits": np.array([(1, n), (n, 1), (n, n), (2, 2)], np.int64)}
        assert_equal_outputs(graph, runtime, feeds)


def replaced(graph: Graph, arrays: dict[str, Array]) -> Graph:
    from dataclasses import replace

    return replace(graph, initializers={**graph.initializers, **arrays})


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("multiplier", "shift"), [(0, 0), (1, 0), (1, 1), (3, 1), (1, 62), ((1 << 31) - 1, 31)])
def test_layers_at_corners_of_multiplier_and_shift(rounding: str, multiplier: int, shift: int) -> None:
    builder = GraphBuilder("corners", rounding=rounding)
    x = builder.input("x", (1, 2, 4, 4), zero_point=7, scale=1.0)
    random = np.random.default_rng(shift)
    tables: dict[str, Any] = {
        "bias": random.integers(-200, 200, (1, 3)),
        "multiplier": np.full((1, 3), multiplier),
        "shift": np.full((1, 3), shift),
        "row_widths": (8,),
    }
    options: dict[str, Any] = {"zero_point": 128, "scale": 1.0, "clip": (0, 255)}
    near = random.integers(126, 131, (3, 2, 3, 3), np.uint8)
    conv = builder.conv("conv", x, weight=near, pads=(1, 1, 1, 1), **tables, **options)
    flat = builder.flatten("flat", conv)
    dense = builder.gemm("dense", flat, weight=random.integers(127, 130, (3, 48), np.uint8), **tables, **options)
    builder.output(conv)
    builder.output(dense)
    graph = builder.build()
    runtime = session(graph)
    for seed in range(3):
        assert_equal_outputs(graph, runtime, {"x": picture(graph, seed)})


@pytest.mark.parametrize("n", [8, 5, 2])
def test_the_body_of_a_table(n: int) -> None:
    graph = tables(n=n)
    for seed in range(3):
        assert_equal_outputs(graph, session(graph), {"x": picture(graph, seed)})


def test_every_operator_of_the_domain_is_executed() -> None:
    from dqtsim.graph.schema import SCHEMAS

    used = {node.operator for graph in (everything(), tables(), products()) for node in graph.nodes if node.domain}
    assert used == {schema.operator for schema in SCHEMAS.values() if schema.domain}


def test_the_bodies_use_no_floating_point() -> None:
    functions = [function for graph in (everything(), tables(), products()) for function in to_onnx(graph).functions]
    floating = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    for function in functions:
        for node in function.node:
            for attribute in node.attribute:
                assert not (node.op_type == "Cast" and attribute.name == "to" and attribute.i in floating)
                assert attribute.t.data_type not in floating
                assert attribute.type != onnx.AttributeProto.FLOAT
