"""Shapes of layers by construction: each kernel of this machine gives the bits of the ordinary kernels."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

from dqtsim.planner import Plan
from tests import builders
from tests.builders import Array

from .same import assert_native

CHANNELS = (1, 3, 4, 5, 8, 15, 16, 17, 32, 33, 48, 64, 65, 96, 144)
PADS = ((0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3), (0, 3, 0, 0), (3, 3, 3, 3))
WIDTHS = ((8, 8), (4, 8), (8, 2), (3, 5), (1, 1))
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"weight_rule": "MIDPOINT"},
    {"activation_rule": "FLOOR", "rounding": "TIES_EVEN"},
    {"rounding": "TIES_AWAY"},
    {"weight_rule": "FLOOR", "rounding": "FLOOR"},
)


@dataclass(frozen=True)
class Layer:
    """One convolution; groups are per input channels, size is of the picture."""

    channels: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    group: int = 1
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    number: int = 0

    def __str__(self) -> str:
        """Return what tells it from others."""
        geometry = f"k{self.kernel} s{self.strides} d{self.dilations} p{self.pads} g{self.group}".replace(" ", "")
        return f"{self.number}-{self.channels}to{self.outputs}-{self.size[0]}x{self.size[1]}-{geometry}"

    def compiled(self) -> tuple[Plan, Array]:
        random = np.random.default_rng(self.number)
        per_group = self.channels // self.group
        taps = per_group * self.kernel[0] * self.kernel[1]
        spread = 14 + (taps.bit_length() + 1) // 2
        graph = builders.conv(
            (self.channels, *self.size),
            random.integers(-128, 128, (self.outputs, per_group, *self.kernel)),
            bits=WIDTHS[self.number % len(WIDTHS)],
            bias=random.integers(-(1 << spread), 1 << spread, self.outputs),
            multiplier=random.integers(1 << 15, 1 << 16, self.outputs),
            shift=random.integers(spread + 6, spread + 11, self.outputs),
            z_x=(128, 0, 7, 255)[self.number % 4],
            z_y=(0, 128, 31)[self.number % 3],
            rules=RULES[self.number % len(RULES)] if self.number % 2 else {},
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            group=self.group,
        )
        return builders.compiled(graph), random.integers(0, 256, (1, self.channels, *self.size), np.uint8)


def sampled() -> list[Layer]:
    """Return layers that together have every entry of every list, in combinations that a fixed seed shuffles."""
    random = np.random.default_rng(1)
    kinds: list[tuple[int, int, int]] = []
    for channels in CHANNELS:
        kinds += [(channels, int(count), 1) for count in random.permutation(CHANNELS)[:3]]
        # each channel its own weights; twice as many outputs as channels, which is not depthwise; small groups
        kinds.append((channels, channels, channels))
        if channels in (5, 8, 16):
            kinds.append((channels, 2 * channels, channels))
        for group in (3, 4, 5, 11):
            if channels % group == 0 and channels > group:
                kinds.append((channels, group * int(random.integers(1, 5)), group))
    kinds += [(int(random.choice(CHANNELS)), outputs, 1) for outputs in CHANNELS]
    layers = []
    orders = {size: random.permutation(len(kinds)) for size in (5, 4, 3)}
    for number, (channels, outputs, group) in enumerate(kinds):
        kernel = ((1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (3, 1), (1, 5), (3, 3))[number % 8]
        pads = PADS[orders[5][number] % 5]
        strides = ((1, 1), (2, 2), (1, 3), (2, 1))[orders[4][number] % 4]
        dilations = ((1, 1), (2, 2), (3, 1))[orders[3][number] % 3]
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        least = [max(1, r - pads[i] - pads[i + 2]) for i, r in enumerate(reach)]
        # taps must meet the picture wherever the window lies
        size = (max(least[0], 1) + int(random.integers(0, 6)), max(least[1], 1) + int(random.integers(0, 6)))
        layers.append(Layer(channels, outputs, size, kernel, group, strides, dilations, pads, number))
    return layers


SAMPLED = sampled()
# every remainder of every tile, for one vector of channels to more than a block has
PIXELS = [
    Layer(8, outputs, (1, pixels), number=100 * outputs + pixels)
    for outputs, pixels in product((4, 16, 32, 48, 64, 80), (*range(1, 18), 49, 64))
]


def test_the_sample_covers_all() -> None:
    assert {layer.channels for layer in SAMPLED} == {layer.outputs for layer in SAMPLED if layer.group == 1}
    assert {layer.pads for layer in SAMPLED} == set(PADS)
    assert {layer.kernel[0] for layer in SAMPLED} == {1, 2, 3, 5, 7}
    assert len({layer.strides for layer in SAMPLED}) == 4
    assert len({layer.dilations for layer in SAMPLED}) == 3
    depthwise = {layer.channels for layer in SAMPLED if layer.group == layer.channels == layer.outputs}
    assert depthwise == set(CHANNELS)
    assert {3, 4, 5, 11} <= {layer.group for layer in SAMPLED if layer.group < layer.channels}


@pytest.mark.parametrize("layer", SAMPLED, ids=str)
def test_layers(layer: Layer) -> None:
    assert_native(*layer.compiled())


@pytest.mark.parametrize("layer", PIXELS, ids=str)
def test_every_number_of_pixels(layer: Layer) -> None:
    assert_native(*layer.compiled())


@pytest.mark.parametrize("outputs", [1, 3, 4, 5, 16, 40])
def test_layers_of_many_chunks(outputs: int) -> None:
    """Threads split what is large; pixels of few channels are stored over the next ones."""
    plan, codes = Layer(16, outputs, (96, 96), (3, 3), pads=(1, 1, 1, 1), number=7 * outputs).compiled()
    assert_native(plan, codes, threads=[1] + [2, 3] * 20)


@pytest.mark.parametrize("outputs", [3, 64, 400])
def test_layers_of_many_blocks(outputs: int) -> None:
    """Threads split the blocks of channels where there are more of them than tiles."""
    assert_native(*Layer(512, outputs, (3, 3), (3, 3), number=outputs).compiled(), threads=(1, 2, 3))


@pytest.mark.parametrize(("inputs", "outputs"), list(product((1, 3, 16, 65, 257), (1, 4, 5, 17, 64, 130))))
@pytest.mark.parametrize("logits", [False, True])
def test_dense_layers(inputs: int, outputs: int, logits: bool) -> None:
    number = inputs + outputs
    random = np.random.default_rng(number)
    weight = random.integers(-128, 128, (outputs, inputs))
    spread = 14 + (inputs.bit_length() + 1) // 2
    scale: dict[str, Any] = {} if logits else {"multiplier": 1 << 15, "shift": spread + 8, "z_y": 128}
    bias = random.integers(-(1 << spread), 1 << spread, outputs)
    rules = RULES[number % len(RULES)]
    bits = WIDTHS[number % len(WIDTHS)]
    graph = builders.dense(weight, logits=logits, bits=bits, bias=bias, z_x=0, rules=rules, **scale)
    assert_native(builders.compiled(graph), random.integers(0, 256, (1, inputs), np.uint8))
