"""Whatever happens to a file, reading it gives a checked graph or a ModelError; nothing else ever leaves the reader."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqtsim.errors import ModelError
from dqtsim.graph import check_graph, from_onnx, load, to_onnx

from .networks import everything, tiny

WHOLE: bytes = to_onnx(tiny()).SerializeToString(deterministic=True)


def without_functions(dynamic: bool) -> bytes:
    """Return a file without bodies, so that changes fall where the reader has most to decide."""
    model = to_onnx(everything(controlled=dynamic))
    del model.functions[:]
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:
            tensor.raw_data = bytes(tensor.raw_data[:1]) * len(tensor.raw_data)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


STATIC, DYNAMIC = without_functions(False), without_functions(True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations") / "model.onnx"


def read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        graph = load(path)
    except ModelError as error:
        sentence = str(error)
        assert sentence.endswith(".")
        assert len(sentence) < 1500
    else:
        check_graph(graph)


@settings(max_examples=max(300, settings().max_examples))
@given(
    source=st.sampled_from([WHOLE, STATIC, DYNAMIC]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4),
)
def test_flipped_bits(path: Path, source: bytes, flips: list[tuple[float, int]]) -> None:
    data = bytearray(source)
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    read(path, bytes(data))


@settings(max_examples=max(100, settings().max_examples))
@given(
    source=st.sampled_from([WHOLE, STATIC, DYNAMIC]),
    start=st.floats(0, 1),
    removed=st.integers(1, 40),
    inserted=st.binary(max_size=8),
)
def test_cut_and_replaced_bytes(path: Path, source: bytes, start: float, removed: int, inserted: bytes) -> None:
    at = int(start * len(source))
    read(path, source[:at] + inserted + source[at + removed :])
    read(path, source[:at])


TEXTS = [
    b"conv",
    b"flat",
    b"class",
    b"bits",
    b"widths",
    b"low",
    b"group",
    b"strides",
    b"Gather",
    b"NestedConv",
    b"[[2, 2]",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("source", [WHOLE, STATIC, DYNAMIC], ids=["whole", "static", "dynamic"])
def test_texts_replaced_by_others_of_their_length(path: Path, source: bytes, text: bytes) -> None:
    for other in (b"\xff" * len(text), b"\x00" * len(text), text[::-1], b"9" * len(text)):
        at = source.find(text)
        while at >= 0:
            read(path, source[:at] + other + source[at + len(text) :])
            at = source.find(text, at + 400)


@settings(max_examples=max(100, settings().max_examples))
@given(dynamic=st.booleans(), data=st.data())
def test_fields_that_are_lost_or_shuffled(dynamic: bool, data: st.DataObject) -> None:
    """Well-formed files of odd content: repeated fields lose, repeat or swap an entry."""
    model = onnx.ModelProto()
    model.ParseFromString(DYNAMIC if dynamic else STATIC)
    graph = model.graph
    fields = [
        graph.node,
        graph.initializer,
        graph.input,
        graph.output,
        graph.quantization_annotation,
        model.metadata_props,
        model.opset_import,
        *(part for node in graph.node for part in (node.input, node.output, node.attribute)),
        *(tensor.dims for tensor in graph.initializer),
    ]
    field = data.draw(st.sampled_from([field for field in fields if len(field)]))
    index = data.draw(st.integers(0, len(field) - 1))
    action = data.draw(st.sampled_from(["lose", "repeat", "empty"]))
    if action == "lose":
        del field[index]
    elif action == "repeat":
        field.extend([field[index]])
    else:
        del field[:]
    try:
        check_graph(from_onnx(model))
    except ModelError as error:
        assert str(error).endswith(".")
