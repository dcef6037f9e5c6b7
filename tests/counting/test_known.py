"""Known facts about known structures, derived here from layer tables of their own.

A layer is (name, input channels, output channels, kernel, stride, group, input size); padding keeps the size.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import dqtsim.ops
from dqtsim.counting.counts import count, storage
from dqtsim.energy import load_energy
from dqtsim.errors import InputError
from dqtsim.planner import Plan, plan
from dqtsim.structures import STRUCTURES, build
from dqtsim.target import load_target


class Layer(NamedTuple):
    kind: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    group: int
    size: int

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs // self.group * self.kernel**2

    @property
    def read(self) -> int:
        return self.inputs * self.size**2

    @property
    def written(self) -> int:
        return self.outputs * (self.size // self.stride) ** 2

    @property
    def macs(self) -> int:
        return self.written * self.inputs // self.group * self.kernel**2


def resnet50() -> list[Layer]:
    """v1.5: the 3 x 3 convolution carries the stride."""
    layers = [Layer("first", 3, 64, 7, 2, 1, 224)]
    for width, blocks, inputs, size in ((64, 3, 64, 56), (128, 4, 256, 56), (256, 6, 512, 28), (512, 3, 1024, 14)):
        stride = 1 if width == 64 else 2
        after = size // stride
        layers += [
            Layer("", inputs, width, 1, 1, 1, size),
            Layer("", width, width, 3, stride, 1, size),
            Layer("", width, 4 * width, 1, 1, 1, after),
            Layer("downsample", inputs, 4 * width, 1, stride, 1, size),
        ]
        for _ in range(blocks - 1):
            layers += [
                Layer("", 4 * width, width, 1, 1, 1, after),
                Layer("", width, width, 3, 1, 1, after),
                Layer("", width, 4 * width, 1, 1, 1, after),
            ]
    return [*layers, Layer("last", 2048, 1000, 1, 1, 1, 1)]


def basic(first: Layer, widths: tuple[int, ...], blocks: int, size: int, classes: int) -> list[Layer]:
    """Blocks of two 3 x 3 convolutions, projection shortcuts."""
    layers, inputs = [first], widths[0]
    for width in widths:
        for block in range(blocks):
            stride = 2 if width != widths[0] and block == 0 else 1
            layers += [Layer("", inputs, width, 3, stride, 1, size)]
            if stride == 2:
                layers += [Layer("downsample", inputs, width, 1, 2, 1, size)]
            size //= stride
            layers += [Layer("", width, width, 3, 1, 1, size)]
            inputs = width
    return [*layers, Layer("last", inputs, classes, 1, 1, 1, 1)]


def resnet8() -> list[Layer]:
    return basic(Layer("first", 3, 16, 3, 1, 1, 32), (16, 32, 64), 1, 32, 10)


def resnet20() -> list[Layer]:
    return basic(Layer("first", 3, 16, 3, 1, 1, 32), (16, 32, 64), 3, 32, 10)


def resnet18() -> list[Layer]:
    return basic(Layer("first", 3, 64, 3, 1, 1, 32), (64, 128, 256, 512), 2, 32, 10)


def resnet18_imagenet() -> list[Layer]:
    return basic(Layer("first", 3, 64, 7, 2, 1, 224), (64, 128, 256, 512), 2, 56, 1000)


def mobilenetv2() -> list[Layer]:
    layers, inputs, size = [Layer("first", 3, 32, 3, 2, 1, 224)], 32, 112
    for expansion, outputs, blocks, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for stride in (first, *[1] * (blocks - 1)):
            hidden = expansion * inputs
            if expansion > 1:
                layers += [Layer("", inputs, hidden, 1, 1, 1, size)]
            layers += [Layer("", hidden, hidden, 3, stride, hidden, size)]
            size //= stride
            layers += [Layer("", hidden, outputs, 1, 1, 1, size)]
            inputs = outputs
    return [*layers, Layer("", 320, 1280, 1, 1, 1, 7), Layer("last", 1280, 1000, 1, 1, 1, 1)]


TABLES: dict[str, Callable[[], list[Layer]]] = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet18-imagenet": resnet18_imagenet,
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
}
# published, or derived by others: MLPerf Tiny's ResNet-8, torchvision's models, CIFAR ResNets
MACS = {
    "resnet8": 12_501_632,
    "resnet20": 40_813_184,
    "resnet18": 555_422_720,
    "resnet18-imagenet": 1_814_073_344,
    "resnet50": 4_089_184_256,
    "mobilenetv2": 300_774_272,
}


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: plan(build(name), load_target("default")) for name in STRUCTURES}


@pytest.mark.parametrize("name", STRUCTURES)
def test_macs_layer_by_layer(name: str, plans: dict[str, Plan]) -> None:
    layers = plans[name].graph.layers
    found = [item for item in count(plans[name], dict.fromkeys(layers, (4, 4)), load_energy()) if item.widths]
    table = TABLES[name]()
    key = sorted((layer.macs, layer.weights, layer.written) for layer in table)
    assert sorted((item.cost.macs[4, 4], item.weight_elements, item.output_elements) for item in found) == key
    assert sum(item.cost.macs[4, 4] for item in found) == sum(layer.macs for layer in table) == MACS[name]
    assert sum(item.cost.bitops for item in found) == 16 * MACS[name]
    assert storage(plans[name])["weights"] == 8 * sum(layer.weights for layer in table)


def test_bitops_of_resnet50(plans: dict[str, Plan]) -> None:
    ready = plans["resnet50"]
    counts = count(ready, dict.fromkeys(ready.graph.layers, (4, 4)), load_energy())
    bitops = {item.name: item.cost.bitops for item in counts}
    assert sum(bitops.values()) == 65_426_948_096
    assert sum(bitops.values()) - bitops["stem"] - bitops["fc"] == 63_505_956_864
    # the first and the last layer alone: 7 * 7 * 3 taps of 64 * 112 * 112 outputs, and 2048 * 1000
    assert bitops["stem"] == 16 * 118_013_952
    assert bitops["fc"] == 16 * 2_048_000


def test_weights_of_resnet50() -> None:
    # torchvision's 25,557,032 parameters less 26,560 batch-norm pairs and 1,000 biases
    assert sum(layer.weights for layer in resnet50()) == 25_557_032 - 2 * 26_560 - 1000


def test_other_sizes_and_classes() -> None:
    graph = build("resnet50", input_size=64, classes=7)
    ready = plan(graph, load_target("default"))
    macs = sum(step.macs for step in ready.layer_steps())
    scaled = [layer._replace(size=layer.size * 64 // 224) for layer in resnet50()[:-1]]
    assert macs == sum(layer.macs for layer in scaled) + 2048 * 7


@pytest.mark.parametrize("size", [16, 33, 48])
def test_a_picture_too_small_or_odd(size: int) -> None:
    with pytest.raises(InputError) as caught:
        build("resnet8", input_size=size)
    assert str(caught.value) == f"the input size of a structure is a multiple of 32; found {size}."


DROPPED = {
    "all 54": (),
    "without the first": ("first",),
    "without the last": ("last",),
    "without first and last": ("first", "last"),
    "without downsample": ("downsample",),
    "without first, last and downsample": ("first", "last", "downsample"),
}


def test_the_table_of_transition_costs() -> None:
    """The README's table is what the layer table and the counts give."""
    text = (Path(dqtsim.ops.__path__[0]) / "README.md").read_text(encoding="utf-8")
    for title, dropped in DROPPED.items():
        kept = [layer for layer in resnet50() if layer.kind not in dropped]
        weights, inputs, outputs = (
            sum(getattr(layer, what) for layer in kept) for what in ("weights", "read", "written")
        )
        cells = (weights, inputs, weights + inputs, outputs, weights + outputs)
        assert f"| {title} | {' | '.join(f'{cell:,}' for cell in cells)} |" in text
        # the paper's number is none of them, nor any other sum of these
        sums = (*cells, inputs + outputs, weights + inputs + outputs)
        assert not [elements for elements in sums if 28_250_000 <= elements < 28_350_000]


def test_the_first_row_is_what_is_counted(plans: dict[str, Plan]) -> None:
    ready = plans["resnet50"]
    counts = count(ready, dict.fromkeys(ready.graph.layers, (4, 4)), load_energy())
    primitives = {key.value: 0 for item in counts for key in item.cost.primitives}
    for item in counts:
        for key, times in item.cost.primitives.items():
            primitives[key.value] += times
    assert primitives["weight_nest_shifts"] == primitives["weight_nest_ors"] == 25_502_912
    assert primitives["activation_nest_shifts"] == primitives["activation_nest_increments"] == 10_664_448
    assert (2 * 25_502_912, 2 * (25_502_912 + 10_664_448)) == (51_005_824, 72_334_720)
