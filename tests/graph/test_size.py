"""A model that asks for too much is refused before anything is made of it."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dqtsim import limits
from dqtsim.errors import ModelError
from dqtsim.frontends.onnx.types import products_of
from dqtsim.graph import from_onnx, to_onnx

from .networks import tiny

Model = onnx.ModelProto


def nodes(model: Model) -> None:
    model.graph.node.extend([helper.make_node("Flatten", ["x"], ["y"])] * limits.NODES)


def inputs(model: Model) -> None:
    model.graph.node[0].input.extend(["x"] * limits.INPUTS)


def attributes(model: Model) -> None:
    model.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * limits.ATTRIBUTES)


def entries(model: Model) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [0] * (limits.ENTRIES + 1)))


def initializers(model: Model) -> None:
    small = numpy_helper.from_array(np.zeros(0, np.uint8), "a")
    model.graph.initializer.extend([small] * limits.INITIALIZERS)


def axes(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros([1] * 17, np.uint8), "deep"))


def elements(model: Model) -> None:
    model.graph.initializer.append(onnx.TensorProto(name="vast", data_type=2, dims=[1 << 62, 1 << 62, 4]))


def input_elements(model: Model) -> None:
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_value = shape.dim[3].dim_value = 100_000


def name(model: Model) -> None:
    model.graph.node[0].input[0] = "n" * 100_000


def layer_name(model: Model) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "dqtsim.layers")
    entry.value = f'["{"n" * 5000}"]'


def metadata(model: Model) -> None:
    next(entry for entry in model.metadata_props if entry.key == "dqtsim.layers").value = "[" + " " * (1 << 24)


def metadata_entries(model: Model) -> None:
    model.metadata_props.extend([onnx.StringStringEntryProto(key="a")] * limits.METADATA)


CASES: list[tuple[Callable[[Model], None], str]] = [
    (nodes, "a model has at most 65,536 nodes; found 65,541."),
    (inputs, "node 'conv.widths' (Gather) has at most 4,096 inputs; found 4,098."),
    (attributes, "node 'conv.widths' (Gather) has at most 256 attributes; found 257."),
    (entries, "attribute 'pads' of node 'conv.widths' (Gather) has at most 4,096 entries; found 4,097."),
    (initializers, "a model has at most 1,048,576 initializers; found 1,048,595."),
    (axes, "initializer 'deep' has at most 16 axes; found 17."),
    (elements, f"initializer 'vast' has at most 2,147,483,647 elements; found {1 << 126:,}."),
    (input_elements, "tensor 'x' has at most 2,147,483,647 elements; found 10,000,000,000."),
    (name, f"names have at most 1,024 characters; '{'n' * 60}...' has 100,000."),
    (layer_name, f"names have at most 1,024 characters; '{'n' * 60}...' has 5,000."),
    (metadata, "metadata 'dqtsim.layers' has at most 16,777,216 characters; found 16,777,217."),
    (metadata_entries, "a model has at most 4,096 metadata entries; found 4,108."),
]


@pytest.mark.parametrize(("change", "sentence"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_too_much(change: Callable[[Model], None], sentence: str) -> None:
    model = to_onnx(tiny())
    change(model)
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("change", [nodes, axes, elements])
def test_ordinary_files_have_the_same_limits(change: Callable[[Model], None]) -> None:
    model = to_onnx(tiny())
    change(model)
    with pytest.raises(ModelError, match=r" has at most [0-9,]+ (nodes|axes|elements); found "):
        products_of(model)


def test_what_a_sentence_repeats_is_cut() -> None:
    model = to_onnx(tiny())
    model.graph.node[0].op_type = "o" * 1000
    model.graph.node[0].name = "n" * 1000
    with pytest.raises(ModelError) as caught:
        from_onnx(model)
    assert f"node '{'n' * 60}...' is operator '{'o' * 60}...' of domain 'ai.onnx'" in str(caught.value)
