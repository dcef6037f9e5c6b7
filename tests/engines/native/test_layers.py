"""Geometry of layers: taps, tiles, borders; and which additions go with a convolution."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.compile.functions import Functions
from dqtsim.engines.native.emit.tile import CODES, DEPTH, LOGITS, QUADS
from dqtsim.engines.native.isa import ISAS, SMALL, Isa
from dqtsim.engines.native.lower.geometry import taps_of
from dqtsim.engines.native.lower.residual import MOST_HALVED
from dqtsim.engines.native.lower.state import borders, spread
from dqtsim.engines.native.lower.tiles import grouping, tile_of
from dqtsim.engines.native.memory import NOWHERE, Planes
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.proofs.tables import blocks_of
from dqtsim.engines.native.run.loaded import Instance
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.graph.builder import Tensor
from dqtsim.planner import plan
from dqtsim.spec import Rounding
from dqtsim.target import load_target
from tests import builders
from tests.builders import Array
from tests.vectorkernels import kernel, kernels

from .same import assert_native

every_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 16, 17, 32])
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 5), (7, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 3)])
def test_each_tap_is_met_once_and_where_it_lies(
    channels: int, kernel_shape: tuple[int, int], dilation: tuple[int, int]
) -> None:
    place = Planes(NOWHERE, channels, 20, 21, (1, 2, 3, 4))
    segments, runs = taps_of(place, kernel_shape, dilation)
    assert runs.shape[1] % 4 == 0
    met: dict[int, int] = {}
    for begin, run in zip(segments.tolist(), runs.tolist(), strict=True):
        # no run goes beyond what lies in its row of taps
        assert len(run) <= kernel_shape[1] * place.step
        for at, tap in enumerate(run):
            if tap >= 0:
                assert tap not in met
                met[tap] = begin + at
    taps = np.arange(channels * kernel_shape[0] * kernel_shape[1]).reshape(channels, *kernel_shape)
    expected = {
        int(taps[c, y, x]): place.at(y * dilation[0], x * dilation[1]) - place.at(0, 0) + c
        for c, y, x in product(range(channels), range(kernel_shape[0]), range(kernel_shape[1]))
    }
    assert met == expected


def test_taps_of_each_channel_alone() -> None:
    place = Planes(NOWHERE, 32, 9, 9, (1, 1, 1, 1))
    expected = [place.at(2 * y, 3 * x) - place.at(0, 0) for y in range(3) for x in range(2)]
    for kind, times in ((DEPTH, 0), (QUADS, 2)):
        segments, runs = taps_of(place, (3, 2), (2, 3), kind=kind)
        assert runs.size == 0
        assert segments.tolist() == expected + expected[-1:] * times


# ---- tiles ----


@pytest.mark.parametrize("name", kernels())
def test_layers_ask_for_tiles_that_are_compiled(name: str) -> None:
    isa = next(isa for isa in ISAS if isa.name == name)
    compiled = Functions(isa, Rounding.TIES_UP).keys()
    kinds = (CODES, QUADS if isa.depthwise.quads else DEPTH)
    for pixels, outputs in product([*range(1, 70), 196, 784, 3136], [*range(1, 40), 48, 64, 65, 144, 1000]):
        by_matrices = [(CODES, isa.matrices)] if isa.matrices is not None and pixels > 1 else []
        for kind, matrices in [*((kind, None) for kind in kinds), *by_matrices]:
            size, most = tile_of(isa, pixels, outputs, kind=kind, matrices=matrices)
            names = {block.kernel for block in blocks_of(isa, kind, size, outputs, most)}
            assert names <= compiled
            if SMALL in isa.dots and kind == CODES:
                assert {SMALL + kernel_name for kernel_name in names} <= compiled
        assert (tile_of(isa, pixels, outputs)[0] == 1) == (pixels == 1)
    for outputs in (1, 16, 17, 1000):
        size, most = tile_of(isa, 1, outputs, kind=LOGITS)
        names = {block.kernel for block in blocks_of(isa, LOGITS, size, outputs, most)}
        assert names <= compiled
        if SMALL in isa.dots:
            assert {SMALL + kernel_name for kernel_name in names} <= compiled


@every_isa
def test_a_tile_wastes_as_few_pixels_as_it_can(isa: Isa) -> None:
    for pixels in range(2, 100):
        size, most = tile_of(isa, pixels, 1)
        if isa.matrices is not None:
            assert tile_of(isa, pixels, 1, matrices=isa.matrices)[0] == (16 if pixels <= 16 else 32)
        wasted = -(-pixels // size) * size
        assert all(wasted <= -(-pixels // other) * other for other in isa.shapes[most] if other > 1)


def test_weights_that_leave_the_cache_are_read_once() -> None:
    assert [grouping(1 << 30, 1, 7), grouping(1 << 10, 3, 7), grouping(1 << 18, 3, 70), grouping(1 << 30, 3, 7)] == [
        7, 1, 8, 7
    ]  # fmt: skip
    for weights, blocks, tiles in product((1, 1 << 15, 1 << 20), (1, 2, 9), (1, 2, 100)):
        assert grouping(weights, blocks, tiles) >= 1


def test_chunks() -> None:
    assert [spread(100, at_most=8, least=least) for least in (1, 12, 50, 51, 1000)] == [8, 8, 2, 1, 1]
    assert [spread(100, at_most=most) for most in (0, 1, 3)] == [1, 1, 3]
    assert spread(0, at_most=4, least=0) == 1


# ---- networks of convolutions and additions ----

SEEN = np.random.default_rng(3).integers(0, 256, (1, 6, 5, 7), np.uint8)


class Sketch:
    """A network of convolutions, all of 6 channels, on one input."""

    def __init__(self, rounding: Rounding = Rounding.TIES_UP) -> None:
        self.builder = GraphBuilder("net", rounding=rounding, candidates=((4, 4),))
        self.random = np.random.default_rng(1)
        self.x = self.builder.input("x", (1, 6, 5, 7), zero_point=9, scale=1.0)
        self.layers = 0

    def conv(self, x: Tensor, pads: tuple[int, int, int, int] = (0, 1, 2, 1), size: tuple[int, int] = (3, 3)) -> Tensor:
        self.layers += 1
        return self.builder.conv(
            f"conv{self.layers}",
            x,
            weight=self.random.integers(0, 256, (6, 6, *size), np.uint8),
            bias=self.random.integers(-50000, 50000, (1, 6)),
            multiplier=self.random.integers(1 << 15, 1 << 16, (1, 6)),
            shift=np.full((1, 6), 24),
            row_widths=(8,),
            zero_point=99,
            scale=1.0,
            clip=(3, 250),
            pads=pads,
        )

    def add(self, a: Tensor, b: Tensor, *, m: tuple[int, int] = (40000, 30000), shift: int = 16, z: int = 77) -> Tensor:
        return self.builder.add(
            "sum", a, b, multiplier_a=m[0], multiplier_b=m[1], shift=shift, zero_point=z, scale=1.0, clip=(5, 240)
        )

    def build(self, *outputs: Tensor) -> Graph:
        for tensor in outputs:
            self.builder.output(tensor)
        return self.builder.build([(4, 8)] * self.layers)


def fused(graph: Graph, name: str = kernels()[0]) -> frozenset[str]:
    """Return the sums that are made with a convolution, after a comparison of all bits."""
    compiled = plan(graph, replace(load_target("default"), multiplier_width=31))
    assert_native(compiled, SEEN, names=[name])
    with kernel(name):
        return native(compiled).program.fused


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("first", [False, True])
def test_an_addition_goes_with_the_only_convolution_that_it_is_for(first: bool, rounding: Rounding) -> None:
    s = Sketch(rounding)
    other = s.conv(s.x)
    y = s.conv(other)
    graph = s.build(s.conv(s.add(y, other) if first else s.add(other, y)))
    assert fused(graph) == ({"sum"} if rounding in (Rounding.TIES_UP, Rounding.FLOOR) else set())


def test_the_network_input_can_be_the_other_operand() -> None:
    s = Sketch()
    assert fused(s.build(s.add(s.conv(s.x), s.x))) == {"sum"}


def test_two_branches_are_added_by_the_later_one() -> None:
    s = Sketch()
    graph = s.build(s.add(s.conv(s.x), s.conv(s.x)))
    assert fused(graph) == {"sum"}
    operations = native(builders.compiled(graph)).program.operations
    assert len([op for op in operations if isinstance(op, Operation) and op.function in ("add", "add.narrow")]) == 0
    assert len([op for op in operations if isinstance(op, Operation) and op.function == "conv"]) == 2


def test_a_convolution_that_somebody_else_reads_stays_alone() -> None:
    s = Sketch()
    a, b = s.conv(s.x), s.conv(s.x)
    total = s.add(a, b)
    assert fused(s.build(s.conv(total), s.conv(b))) == set()


def test_an_output_stays_alone() -> None:
    s = Sketch()
    a, b = s.conv(s.x), s.conv(s.x)
    assert fused(s.build(s.add(a, b), b)) == set()


def test_a_convolution_added_to_itself_stays_alone() -> None:
    s = Sketch()
    a = s.conv(s.x)
    assert fused(s.build(s.add(a, a))) == set()


@pytest.mark.parametrize(
    ("m", "shift", "z", "expected"),
    [
        ((40000, 30000), 30, 0, True),
        ((40000, 30000), 31, 0, False),
        ((40000, 30000), 24, 77, True),
        ((40000, 30000), 25, 77, False),
        ((0, 0), 0, 77, True),
        ((6_000_000, 1000), 5, 77, True),
        # 255 products are more than the largest zero point takes away
        ((7_000_000, 1000), 5, 77, False),
        ((1000, (1 << 31) // 255), 5, 77, False),
        (((1 << 31) - 1, 1), 40, 77, False),
    ],
)
def test_a_sum_that_needs_more_than_32_bits_stays_alone(m: tuple[int, int], shift: int, z: int, expected: bool) -> None:
    for order in (m, m[::-1]):
        s = Sketch()
        graph = s.build(s.add(s.conv(s.x), s.conv(s.x), m=order, shift=shift, z=z))
        assert fused(graph, "portable") == ({"sum"} if expected else set())
        # kernels that add packed codes halve their multipliers, which have 16 bits
        for name in kernels():
            packs = next(isa for isa in ISAS if isa.name == name).packs
            assert fused(graph, name) == ({"sum"} if expected and not (packs and max(m) > MOST_HALVED) else set())


@pytest.mark.parametrize("m", [(MOST_HALVED, 1), (MOST_HALVED - 1, MOST_HALVED), (MOST_HALVED + 1, 9), (1, 0), (0, 3)])
@pytest.mark.parametrize("shift", [1, 2, 16, 17])
def test_multipliers_that_are_halved(m: tuple[int, int], shift: int) -> None:
    s = Sketch()
    graph = s.build(s.add(s.conv(s.x), s.conv(s.x), m=m, shift=shift))
    for name in kernels():
        packs = next(isa for isa in ISAS if isa.name == name).packs
        assert fused(graph, name) == ({"sum"} if not packs or max(m) <= MOST_HALVED else set())


def test_nothing_goes_together_where_everything_is_kept() -> None:
    s = Sketch()
    compiled = builders.compiled(s.build(s.add(s.conv(s.x), s.x)))
    made = native(compiled)
    list(made.trace(SEEN))
    assert made.program.fused == {"sum"}
    assert made._kept is not None
    assert made._kept.program.fused == set()


def test_readers_with_other_pads_share_a_border() -> None:
    s = Sketch()
    left = s.conv(s.conv(s.x, pads=(2, 2, 2, 2)), pads=(0, 2, 1, 0))
    right = s.conv(s.conv(s.x, pads=(1, 3, 0, 0)), pads=(0, 0, 0, 0))
    graph = s.build(left, right)
    compiled = builders.compiled(graph)
    assert borders(compiled)["x"] == (2, 3, 2, 2)
    assert_native(compiled, SEEN)


@pytest.mark.parametrize("name", kernels())
def test_unused_bytes_change_nothing(name: str) -> None:
    """Borders, channels that do not exist and old samples: an arena full of anything gives the same bits."""
    s = Sketch()
    x = s.conv(s.conv(s.x), pads=(0, 0, 0, 0), size=(2, 2))
    compiled = builders.compiled(s.build(s.conv(s.add(s.conv(x, (1, 1, 1, 1)), x))))
    with kernel(name):
        loaded = native(compiled).loaded
    reports: list[Array] = []
    for filling in (0, 255, 85):
        instance = Instance(loaded)
        instance.arena[:] = filling
        for _ in range(2):
            instance.execute(SEEN)
            reports.append(instance.report())
    # alignment between tensors is not part of what is reported
    report = loaded.program.report
    for at, place in report.tensors.values():
        assert len({found[at : at + place.size].tobytes() for found in reports}) == 1
    assert len({found[: 8 * len(report.layers)].tobytes() for found in reports}) == 1
