"""What codes of pictures stand for: mean and deviation per channel, folded into the layers that read the picture."""

from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.errors import InputError, ModelError
from dqtsim.train import NestedConfig, NestingRules
from dqtsim.train.floats import evaluate
from dqtsim.train.folding import fold
from dqtsim.train.network import NestedNetwork
from dqtsim.train.pixels import NORMALISED, Pixels
from dqtsim.train.steps import INPUT, Activation, Layer, MaxPool, Step, Traced, converted

from .test_modules import check, conv, fitted, nearly, pictures, random

SHAPE = (4, 7, 6)
MEAN, STD = (0.485, 0.456, 0.0, 0.3), (0.229, 0.5, 1.0, 0.025)
PIXELS = Pixels(SHAPE, 0, 1 / 255, MEAN, STD)


def reader(**changes: Any) -> Layer:
    """A layer of groups that reads the picture across its borders."""
    given = {"pads": (1, 0, 2, 1), "groups": 2, **changes}
    return conv("y", INPUT, (6, 8, 5), random(6, 2, 3, 3), **given)


def folded(*steps: Step, pixels: Pixels = PIXELS) -> NestedNetwork:
    """The network of steps in float64 that take normalised pixels."""
    traced = converted(Traced(steps, (steps[-1].name,)), torch.float64)
    own = converted(pixels.folded(traced), torch.float32)
    return fitted(NestedNetwork(own, NestingRules(candidates=((8, 8), (4, 4))), SHAPE, pixels.zero_point, pixels.scale))


def test_the_folded_steps_give_the_same_in_float64() -> None:
    steps = converted((reader(), MaxPool("m", (INPUT,), (4, 5, 5), False, (3, 2), (1, 1), (0, 0, 0, 0))), torch.float64)
    expected = evaluate(steps, PIXELS.values(pictures(), torch.float64))
    pixels = Pixels(SHAPE, 0, 1 / 255).values(pictures(), torch.float64)
    found = evaluate(PIXELS.folded(Traced(steps, ("y", "m"))).steps, pixels)
    assert set(found) == {"y", "m", NORMALISED}
    for name in ("y", "m"):
        assert float((found[name] - expected[name]).abs().max()) < 1e-12 * float(expected[name].abs().max())


def test_padded_taps_hold_the_code_next_to_the_mean() -> None:
    network = folded(reader())
    graph, _ = check(network, 0)
    assert graph.node("y").form == ("padding",)
    assert graph.initializers["y.padding"].tolist() == [124, 116, 0, 77]
    assert graph.pinned == {"y": (8, 8)}


def test_the_integers_are_nearly_the_float_network_on_normalised_pixels() -> None:
    nearly(folded(reader()))
    nearly(folded(reader(pads=(0, 0, 0, 0))))
    nearly(folded(reader(), pixels=Pixels(SHAPE, 10, 1.0, (120.0, 60.0, 0.0, 245.0), (60.0, 9.0, 255.0, 1.0))))


def test_other_readers_of_the_picture_read_a_layer_that_normalises() -> None:
    network = folded(reader(), MaxPool("m", (INPUT,), (4, 5, 5), False, (3, 2), (1, 1), (0, 0, 0, 0)))
    graph, _ = check(network, 0)
    assert graph.pinned == {NORMALISED: (8, 8), "y": (8, 8)}
    nearly(network)


def test_the_centre_is_taken_off_with_the_weights_as_they_are_quantized() -> None:
    # All pixels at the mean: whatever the weights lose, the output is that of real zeros.
    mean = (100 / 255,) * 4
    network = folded(reader(norm=None, bias=None, activation=Activation()), pixels=Pixels(SHAPE, 0, 1 / 255, mean, STD))
    with torch.no_grad():
        grey = torch.full((1, *SHAPE), 100, dtype=torch.uint8)
        found = network.features(grey)
    assert float((found.values - found.zero_point).abs().max()) == 0


def test_a_mean_outside_the_pixels_has_no_code() -> None:
    with pytest.raises(ModelError) as raised:
        fold(folded(reader(), pixels=Pixels(SHAPE, 0, 1 / 255, (1.2, 0.5, 0.5, 0.5), STD)))
    assert str(raised.value) == (
        "padded taps hold a code of the picture, 0 to 255, but those of y would be 128 to 306; the mean of the input "
        "must lie in its range."
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"input_mean": (0.5,)}, "input_mean must have one value for each of 3 channels, but has 1."),
        (
            {"input_scale": (0.1, 0.2, 0.3)},
            "input_scale and input_zero_point are one number for all channels; input_mean and input_std are per "
            "channel.",
        ),
        ({"input_std": (0.5, 0.0, 1.0)}, "input_std must be positive, but is (0.5, 0.0, 1.0)."),
        ({"input_shape": (3, 2, 2, 2)}, "input_shape must be (C, H, W), (C, L) or (K,), but is (3, 2, 2, 2)."),
        (
            {"input_zero_point": 300},
            "A picture's zero point must be a code and its scale positive, but they are 300 and 0.015625.",
        ),
    ],
)
def test_impossible_pixels_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        NestedConfig(**changes).check()
    assert str(raised.value) == sentence
