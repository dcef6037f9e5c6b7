"""New pairs of widths for models that exist: what they had keeps its bits, and every engine agrees on what is new."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dqtsim import limits
from dqtsim.calibration import calibrate
from dqtsim.calibration.model import known_pairs
from dqtsim.engines.registry import run, traced
from dqtsim.errors import InputError
from dqtsim.graph import Graph, GraphBuilder, from_onnx, to_onnx
from dqtsim.graph.model import Array
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.widths import apply_bits
from tests.builders import conv, dense, network, picture
from tests.networks import Sample, samples

WIDE = replace(load_target("default"), multiplier_width=31)


def tensors(graph: Graph, bits: str | None, codes: Array, engine: str = "native") -> dict[str, Array]:
    """Every tensor of one sample, without the names of the widths."""
    found = traced(plan(apply_bits(graph, bits)[0], WIDE), codes, engine)[1]
    return {name: array for name, array in found.items() if array.dtype != np.int64 or name.endswith(".acc")}


def assert_same(one: dict[str, Array], other: dict[str, Array]) -> None:
    """Both have the same tensors."""
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def drawn(graph: Graph, shape: tuple[int, ...], count: int) -> Array:
    """Random codes of the graph's input."""
    return np.random.default_rng(3).integers(0, 1 << graph.arithmetic.master_width, (count, *shape), np.uint8)


@given(samples(), st.data())
@settings(max_examples=6)
def test_old_pairs_keep_every_tensor_and_engines_agree_on_new_ones(sample: Sample, data: st.DataObject) -> None:
    graph, n = sample.graph, sample.graph.arithmetic.master_width
    known = known_pairs(graph)
    new = [(w, a) for w in range(1, known[-1][0] + 1) for a in range(1, known[-1][1] + 1) if (w, a) not in known]
    assume(new and set(graph.layers) - set(graph.pinned))
    pairs = data.draw(st.lists(st.sampled_from(new), min_size=1, max_size=2, unique=True), label="new pairs")
    made = from_onnx(to_onnx(calibrate(graph, pairs, drawn(graph, sample.codes.shape[1:], 3), threads=2)))
    assert_same(tensors(graph, None, sample.codes), tensors(made, None, sample.codes))
    # activations of a width that the model had keep their windows, whatever the weights
    old = [(w, a) for w in range(1, n + 1) for a in {a for _, a in known} if (w, a) not in pairs]
    for w, a in {*known, data.draw(st.sampled_from(old), label="any old pair")}:
        assert_same(tensors(graph, f"w{w}a{a}", sample.codes), tensors(made, f"w{w}a{a}", sample.codes))
    for w, a in pairs:
        law = tensors(made, f"w{w}a{a}", sample.codes, "spec")
        for engine in ("native", "numba", "torch"):
            assert_same(law, tensors(made, f"w{w}a{a}", sample.codes, engine))
        bodies = tensors(made, f"w{w}a{a}", sample.codes, "onnxruntime")
        assert_same({name: law[name] for name in bodies}, bodies)


def errors(graph: Graph, pair: str, codes: Array) -> float:
    """The sum of squared differences of the first output to that of 8 bits."""
    outputs = []
    for bits in ("8", pair):
        compiled = plan(apply_bits(graph, bits)[0], WIDE)
        outputs.append([next(iter(result.outputs.values())).astype(float) for result in run(compiled, codes)])
    return float(sum(np.square(one - other).sum() for one, other in zip(*outputs, strict=True)))


def test_new_rows_are_nearer_to_eight_bits() -> None:
    graph, codes = network(), picture(3, count=12)
    pairs = [(5, 5), (8, 3), (3, 8)]
    made = calibrate(graph, pairs, codes)
    for w, a in pairs:
        assert errors(made, f"w{w}a{a}", codes) < errors(graph, f"w{w}a{a}", codes)


def test_logits_have_the_mean_of_eight_bits_on_the_pictures_of_the_calibration() -> None:
    graph, codes = network(), picture(3, count=12)
    made = calibrate(graph, [(3, 3)], codes)
    means = [
        np.mean([result.outputs[result.scores] for result in run(plan(apply_bits(made, bits)[0], WIDE), codes)], 0)
        for bits in ("8", "3")
    ]
    # on the inputs that the network itself has at 3 bits; B is rounded
    assert np.abs(means[0] - means[1]).max() <= 0.5


def small() -> Graph:
    """A layer of two outputs on codes 0 to 31, zero point 0, with widths of 8 and w8a4 and a window of 1 at 4 bits."""
    weight = [[3, -5, 7], [100, 50, -20]]
    return dense(
        weight, row_pairs=[(8, 8), (8, 4)], windows=[0, 0, 0, 0, 1, 0, 0, 0, 0], multiplier=1 << 14, shift=20, z_x=0,
        rules={"candidates": ((8, 4), (8, 8))},
    )  # fmt: skip


def test_a_new_width_of_activations_gets_the_window_that_serves_best() -> None:
    codes = np.random.default_rng(0).integers(0, 32, (64, 3), np.uint8)
    made = calibrate(small(), [(8, 2), (4, 4), (8, 7)], codes)
    constants = made.constants(made.node("y"))
    # a picture of 0 to 31 has nothing in the upper bits; that of 4 bits is the model's own
    assert constants["windows"].tolist() == [0, 0, 2, 0, 1, 0, 0, 1, 0]
    assert constants["row_pairs"].tolist() == [[8, 8], [8, 4], [8, 2], [4, 4], [8, 7]]
    assert np.array_equal(constants["bias"][:2], small().constants(small().node("y"))["bias"])


def test_threads_change_nothing() -> None:
    graph, codes = network(), picture(3, count=5)
    assert calibrate(graph, [(3, 3), (6, 5)], codes, 1) == calibrate(graph, [(3, 3), (6, 5)], codes, 3)


def test_a_model_is_noted_and_can_get_more_pairs() -> None:
    once = calibrate(small(), [(8, 2)], np.zeros((1, 3), np.uint8))
    twice = calibrate(once, [(2, 2), (3, 8)], np.zeros((2, 3), np.uint8))
    assert twice.candidates == ((2, 2), (3, 8), (8, 2), (8, 4), (8, 8))
    assert twice.producer["calibrated"] == "w8a2 w2a2 w3a8"
    by = twice.producer["calibrated by"].split("; ")
    assert [entry.split(", ")[1] for entry in by] == ["w8a2 on 1 picture", "w2a2 w3a8 on 2 pictures"]


def test_a_controller_keeps_its_candidates_and_what_it_chooses() -> None:
    graph, codes = network(), picture(3, count=6)
    made = calibrate(graph, [(3, 3)], codes)
    assert graph.dynamic
    assert made.candidates == graph.candidates
    before, after = (list(run(plan(each, WIDE), codes)) for each in (graph, made))
    assert [result.bits for result in before] == [result.bits for result in after]


def test_a_tensor_that_others_read_keeps_its_values() -> None:
    b = GraphBuilder("two", candidates=((8, 8),))
    x = b.input("x", (1, 4), zero_point=0, scale=1.0)
    rows = {"bias": [[1, 2]], "multiplier": [[40000, 50000]], "shift": [[24, 24]], "row_widths": (8,)}
    first, second = (
        b.gemm(name, x, weight=np.full((2, 4), 160, np.uint8), **rows, zero_point=0, scale=1.0, clip=(0, 255))  # type: ignore[arg-type]
        for name in ("first", "second")
    )
    b.output(first)
    b.output(second)
    graph = b.build()
    nodes = [
        replace(node, inputs=tuple(name.replace("second.bias", "first.bias") for name in node.inputs))
        for node in graph.nodes
    ]
    made = calibrate(replace(graph, nodes=tuple(nodes)), [(8, 4)], np.full((2, 4), 77, np.uint8))
    assert made.node("first").operand("bias") != made.node("second").operand("bias")
    assert made.initializers["first.bias"].shape == (2, 2)


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (
            [(6, 6), (8, 4)],
            "new pairs of widths are added and none is replaced; model 'one' has w8a4 already.",
        ),
        ([(9, 8)], "widths lie between 1 and the master width 8; found w9a8."),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_added_are_refused(pairs: list[tuple[int, int]], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(small(), pairs, np.zeros((1, 3), np.uint8))
    assert str(caught.value) == sentence


def test_a_pair_that_was_added_to_rows_per_width_is_not_added_again() -> None:
    codes = np.zeros((1, 3), np.uint8)
    made = calibrate(dense([[1, 2, 3]], row_widths=(4, 8), rules={"candidates": ((4, 4), (8, 8))}), [(6, 6)], codes)
    # w4a8 has a row, but only because rows belonged to widths before
    calibrate(made, [(4, 8)], codes)
    with pytest.raises(InputError) as caught:
        calibrate(made, [(6, 6)], codes)
    assert str(caught.value) == ("new pairs of widths are added and none is replaced; model 'one' has w6a6 already.")


def test_a_pair_wider_than_the_reference_is_refused() -> None:
    graph = dense([[1, 2, 3]], bits=(4, 4), rules={"candidates": ((2, 2), (4, 4))})
    with pytest.raises(InputError) as caught:
        calibrate(graph, [(3, 3), (4, 6)], np.zeros((1, 3), np.uint8))
    assert str(caught.value) == "new pairs are fitted to the widest that the model has, w4a4; w4a6 is wider."


def test_a_model_of_pinned_layers_is_refused() -> None:
    graph = conv((1, 3, 3), np.ones((1, 1, 3, 3)), pinned=(8, 8))
    with pytest.raises(InputError) as caught:
        calibrate(graph, [(4, 4)], np.zeros((1, 1, 3, 3), np.uint8))
    assert str(caught.value) == "widths are added to layers that are not pinned; model 'one' has none."


def test_more_codes_than_are_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CALIBRATION_BYTES", 35)
    calibrate(small(), [(8, 2)], np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError) as caught:
        calibrate(small(), [(8, 2), (2, 2)], np.zeros((4, 3), np.uint8))
    assert str(caught.value) == (
        "at 'y' the codes of 4 pictures at 3 pairs of widths are 36 bytes, and at most 35 are held; give fewer "
        "pictures, or fewer widths at a time."
    )
