"""Convolutions as products of matrices: each way to find taps, by construction, gives the bits of the other engines."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dqtsim.engines.native import native
from dqtsim.engines.registry import run
from dqtsim.errors import AccumulatorError
from dqtsim.graph import GraphBuilder
from dqtsim.planner import Plan
from dqtsim.spec import Overflow, Rounding
from tests import builders
from tests.builders import compiled
from tests.vectorkernels import kernel

from .matrices import Layer, assert_bits, convolutions, modes, never_direct, only_amx, set_chunks, set_groups
from .same import assert_native, same_result

pytestmark = only_amx
PIXELS = (2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65)


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads have something to share."""
    set_chunks(monkeypatch)


def tiles_of(pixels: int) -> int:
    return 1 if pixels <= 16 else -(-pixels // 32)


# ---- every number of pixels ----


@pytest.mark.parametrize("outputs", [1, 16, 40, 48, 64, 80])
@pytest.mark.parametrize("pixels", PIXELS)
def test_pixels_in_a_line(pixels: int, outputs: int) -> None:
    """They are one distance apart unless the last tile has to repeat one; then they are gathered."""
    full = pixels == 16 or pixels >= 32
    gathered = "all panels" if outputs > 64 * tiles_of(pixels) else "panels"
    for out in ((1, pixels), (pixels, 1)):
        layer = Layer(5, outputs, out)
        assert_bits(compiled(layer.graph()), layer.codes(), "direct" if full else gathered, threads=(1, 2, 3, 4))


@pytest.mark.parametrize("together", [False, True], ids=["a tile at a time", "tiles together"])
@pytest.mark.parametrize("pixels", PIXELS)
def test_pixels_of_panels(pixels: int, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    never_direct(monkeypatch)
    if together:
        set_groups(monkeypatch)
    for outputs in (3, 64, 64 * tiles_of(pixels) + 20):
        layer = Layer(20, outputs, (1, pixels), kernel=(1, 3), pads=(0, 1, 0, 0))
        mode = "panels" if outputs <= 64 * tiles_of(pixels) else "all panels"
        assert_bits(compiled(layer.graph()), layer.codes(), mode, threads=(1, 2, 3, 4))


@pytest.mark.parametrize("pixels", PIXELS)
def test_pixels_by_the_law(pixels: int) -> None:
    layer = Layer(3, 5, (1, pixels), (1, 2))
    mode = "direct" if pixels == 16 or pixels >= 32 else "panels"
    assert_bits(compiled(layer.graph()), layer.codes(), mode, reference="spec")


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
@pytest.mark.parametrize("gathered", [False, True], ids=["direct", "panels"])
def test_pixels_of_four_bytes(outputs: int, gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of vectors run over the pixels behind; those of a last tile that overlaps come in order, too."""
    if gathered:
        never_direct(monkeypatch)
    for pixels in (33, 47, 49, 65, 95):
        for out in ((1, pixels), (pixels, 1)):
            layer = Layer(7, outputs, out, (2, 3), pads=(1, 1, 0, 1))
            natural = "direct" if out[1] == 1 or pixels >= 32 else "panels"
            mode = "panels" if gathered else natural
            plan = compiled(layer.graph())
            assert_bits(plan, layer.codes(), mode, threads=(1, 2, 3, 4))
            with kernel("amx"):
                (operation,) = convolutions(native(plan).program)
            # pixels that are stored over each other are one chunk
            assert operation.chunks == 1
            assert operation.words["tiles"] == tiles_of(pixels)


# ---- every geometry ----

COLUMNS = {16: "direct", 32: "direct", 48: "direct", 8: "panels", 14: "panels", 24: "panels", 33: "panels"}
CHANNELS = (1, 3, 4, 5, 15, 16, 17, 24, 48, 64, 65, 80)
KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (2, 2))


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [4, 16, 20])
def test_rows_with_a_border(columns: int, stride: int, channels: int) -> None:
    """Rows of 16, 32, ... pixels are whole matrices, at any stride; where one begins in a row's middle, none is."""
    layer = Layer(channels, 20, (3, columns), (3, 3), (stride, stride), pads=(1, 1, 1, 1))
    assert_bits(compiled(layer.graph()), layer.codes(), COLUMNS[columns])


@pytest.mark.parametrize("columns", [8, 14, 17, 24])
def test_rows_without_a_border(columns: int) -> None:
    """Windows of one pixel go on in the next row; a stride leaves a gap, unless the row ends with it."""
    first = Layer(16, 20, (5, columns))
    assert_bits(compiled(first.graph()), first.codes(), "direct")
    for stride, expected in (((2, 1), "panels"), ((1, 2), "panels"), ((2, 2), "panels")):
        layer = replace(first, strides=stride)
        assert_bits(compiled(layer.graph()), layer.codes(), expected)


def sampled() -> list[Layer]:
    """Return layers with every entry of every list, in combinations that a fixed seed shuffles."""
    random = np.random.default_rng(2)
    layers = []
    outputs = [*random.permutation(CHANNELS), *random.permutation(CHANNELS)]
    for number, (channels, count) in enumerate(zip(CHANNELS * 2, outputs, strict=True)):
        kernel_shape = KERNELS[number % len(KERNELS)]
        stride, dilation = ((1, 1), (2, 2), (2, 1))[number % 3], ((1, 1), (2, 2))[number // 2 % 2]
        columns = (8, 14, 16, 32)[number % 4]
        pads = (0, 0, 0, 0) if number % 3 == 2 else (kernel_shape[0] // 2, kernel_shape[1] // 2) * 2
        rows = (9, 5, 3)[number % 3] if kernel_shape[0] < 5 else 3
        layers.append(Layer(channels, int(count), (rows, columns), kernel_shape, stride, dilation, pads))
    layers += [
        Layer(48, 48, (5, 14), (3, 3), group=3, pads=(1, 1, 1, 1)),
        Layer(64, 80, (3, 32), (3, 3), group=4, pads=(1, 1, 1, 1)),
        Layer(6, 4, (7, 7), (2, 2), group=2),
        # twice as many outputs as channels are no depthwise layer
        Layer(16, 32, (4, 16), (3, 3), group=16, pads=(1, 1, 1, 1)),
    ]
    return layers


SAMPLED = sampled()


def test_the_sample_covers_all() -> None:
    for field, wanted in (("channels", CHANNELS), ("outputs", CHANNELS), ("kernel", KERNELS)):
        assert set(wanted) <= {getattr(layer, field) for layer in SAMPLED}
    found = [modes(compiled(layer.graph()))[0] for layer in SAMPLED]
    assert {mode: found.count(mode) > 5 for mode in ("direct", "panels")} == {"direct": True, "panels": True}
    assert {(layer.strides[0], layer.dilations[0]) for layer in SAMPLED} == set(product((1, 2), (1, 2)))


@pytest.mark.parametrize("layer", SAMPLED, ids=str)
def test_geometries(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    natural = modes(compiled(layer.graph()))[0]
    assert_bits(compiled(layer.graph()), layer.codes(), natural)
    never_direct(monkeypatch)
    for together in (False, True):
        if together:
            set_groups(monkeypatch)
        assert_bits(compiled(layer.graph()), layer.codes(), "panels", threads=(1, 4))


@pytest.mark.parametrize("layer", SAMPLED[::2], ids=str)
def test_geometries_of_few_pixels(layer: Layer) -> None:
    """More blocks of channels than tiles: chunks are blocks, and another operation gathers for all of them."""
    few = replace(layer, outputs=81 * layer.group, out=(3, 4))
    assert_bits(compiled(few.graph()), few.codes(), "all panels", threads=(1, 2, 3, 4))


def test_more_tiles_and_blocks_than_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    set_groups(monkeypatch)
    for out, mode in (((40, 14), "panels"), ((20, 32), "direct")):
        layer = Layer(4, 70, out, (3, 3), pads=(1, 1, 1, 1))
        plan = compiled(layer.graph())
        assert_bits(plan, layer.codes(), mode, threads=(1, 2, 3, 4))
        with kernel("amx"):
            (operation,) = convolutions(native(plan).program)
        assert operation.chunks == 16 < int(str(operation.words["tiles"]))
    layer = Layer(5, 17 * 64 + 3, (3, 3))
    assert_bits(compiled(layer.graph()), layer.codes(), "all panels", threads=(1, 2, 3, 4))


# ---- taps ----


@pytest.mark.parametrize("taps", [4, 8, 56, 60, 64, 68, 72, 124, 128, 132, 188, 192, 196, 256])
def test_taps_around_whole_matrices(taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Layer(taps, 17, (1, 33)), Layer(taps - 3, 17, (1, 33))]
    # rows of taps that are runs of their own, four bytes a pixel
    layers += [Layer(3, 5, (4, 16), (rows, taps // 4 // rows)) for rows in (1, 2, 3) if taps % (4 * rows) == 0]
    for layer in layers:
        assert_bits(compiled(layer.graph()), layer.codes(), "direct")
    for layer in [replace(layers[0], out=(1, 15)), *layers[2:]]:
        with monkeypatch.context() as patch:
            never_direct(patch)
            assert_bits(compiled(layer.graph()), layer.codes(), "panels")
            few = replace(layer, outputs=70, out=(2, 5))
            assert_bits(compiled(few.graph()), few.codes(), "all panels")


# ---- values ----

SIZES = {
    "direct": Layer(48, 20, (2, 16), (3, 3), pads=(1, 1, 1, 1)),
    "panels": Layer(48, 20, (3, 7), (3, 3), pads=(1, 1, 1, 1)),
    "all panels": Layer(48, 70, (2, 3), (3, 3), pads=(1, 1, 1, 1)),
}
every_mode = pytest.mark.parametrize("mode", SIZES)


@every_mode
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("z_x", [0, 128, 255])
def test_extreme_values(mode: str, weight: int, z_x: int) -> None:
    layer = replace(SIZES[mode], weight=weight, z_x=z_x)
    shifts = {"bias": 0, "multiplier": 1 << 15, "shift": 15 + 15}
    plan = compiled(layer.graph(**shifts))
    for filling in (0, 255):
        assert_bits(plan, np.full((1, *layer.shape), filling, np.uint8), mode)


@pytest.mark.parametrize("mode", ["direct", "panels"])
@pytest.mark.parametrize("weight", [-128, 127])
def test_extreme_values_by_the_law(mode: str, weight: int) -> None:
    layer = Layer(5, 3, (1, 16 if mode == "direct" else 15), (2, 3), weight=weight, z_x=255, pads=(1, 1, 0, 1))
    for filling in (0, 255):
        codes = np.full((1, *layer.shape), filling, np.uint8)
        assert_bits(compiled(layer.graph()), codes, mode, reference="spec")


@every_mode
@pytest.mark.parametrize("b_w", range(1, 9))
def test_every_width(mode: str, b_w: int) -> None:
    """Narrow activations are read from nested codes, others from the tensor itself."""
    size = replace(SIZES[mode], channels=18)
    rules: tuple[dict[str, Any], ...] = ({}, {"weight_rule": "MIDPOINT"}, {"activation_rule": "FLOOR"})
    for b_a in range(1, 9):
        layer = replace(size, bits=(b_w, b_a), z_x=128 if b_w % 2 else 7)
        plan = compiled(layer.graph(rules=rules[(b_w + b_a) % 3]))
        assert_bits(plan, layer.codes(seed=b_a), mode, threads=(2,))


@every_mode
@pytest.mark.parametrize("rounding", Rounding)
def test_roundings(mode: str, rounding: Rounding) -> None:
    for outputs in (17, 64) if mode != "all panels" else (65, 128):
        layer = replace(SIZES[mode], channels=9, outputs=outputs)
        plan = compiled(layer.graph(z_y=31, clip=(5, 240)), rounding=rounding)
        assert_bits(plan, layer.codes(), mode)


# ---- what comes after the sums ----


@every_mode
@pytest.mark.parametrize("policy", [Overflow.WRAP, Overflow.SATURATE])
@pytest.mark.parametrize("outputs", [3, 17, 80])
def test_registers_that_overflow(mode: str, policy: Overflow, outputs: int) -> None:
    """Sums are kept, those of pixels that are computed twice only once."""
    sizes = {"direct": (1, 97), "panels": (9, 5), "all panels": (3, 5)}
    layer = replace(SIZES[mode], outputs=outputs if mode != "all panels" else outputs + 64, out=sizes[mode])
    plan = compiled(layer.graph(), accumulator_width=16, overflow=policy)
    assert not plan.proven()
    for sample in layer.codes(3)[:, None]:
        assert_bits(plan, sample, mode, threads=(1, 2, 3, 4))
        flags = next(run(plan, sample, "numba")).flags["y"]
        assert flags is not None and flags.saturations + flags.wraps > 0


@every_mode
def test_registers_that_stop_a_run(mode: str) -> None:
    layer = replace(SIZES[mode], weight=127)
    plan = compiled(layer.graph(), accumulator_width=20, overflow=Overflow.ERROR)
    codes = layer.codes(3)
    assert modes(plan) == [mode]
    codes[1] = 255
    with pytest.raises(AccumulatorError) as law:
        list(run(plan, codes[1:2], "numba"))
    for samples, threads in ((codes[1:2], 1), (codes[1:2], 3), (codes, 2)):
        with kernel("amx"), pytest.raises(AccumulatorError) as caught:
            list(run(plan, samples, "jit", threads))
        assert str(caught.value) == str(law.value)
    codes[1] = 128
    assert_bits(plan, codes[1:2], mode)


def with_residual(layer: Layer, first: bool) -> Plan:
    """Return a layer of as many channels as outputs whose output its own input is added to."""
    random = np.random.default_rng(layer.outputs)
    b = GraphBuilder("residual", candidates=((2, 2),))
    common: dict[str, Any] = {"scale": 1.0, "clip": (3, 250)}
    ways: dict[str, Any] = {
        "bias": random.integers(-9000, 9000, (1, layer.outputs)),
        "multiplier": random.integers(1 << 15, 1 << 16, (1, layer.outputs)),
        "shift": np.full((1, layer.outputs), 25),
    }
    x = b.input("x", (1, *layer.shape), zero_point=128, scale=1.0)
    weight = random.integers(0, 256, (layer.outputs, layer.channels, *layer.kernel), np.uint8)
    y = b.conv("y", x, weight=weight, **ways, row_widths=(8,), zero_point=99, pads=layer.pads, **common)
    sides = (x, y) if first else (y, x)
    b.output(b.add("sum", *sides, multiplier_a=40000, multiplier_b=30000, shift=16, zero_point=77, **common))
    return compiled(b.build([(8, 8)]))


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 16, 24, 48, 64, 80, 130])
@pytest.mark.parametrize("first", [False, True])
def test_additions_that_go_with_a_layer(channels: int, first: bool) -> None:
    """Also where a last tile adds to some pixels once more: the other operand is still there."""
    found = set()
    for out in ((3, 16), (3, 32), (5, 7), (3, 4), (7, 7), (9, 9)):
        layer = Layer(channels, channels, out, (3, 3), pads=(1, 1, 1, 1))
        plan = with_residual(layer, first)
        (mode,) = modes(plan)
        found.add(mode)
        assert_native(plan, layer.codes(), names=["amx"], threads=(1, 2, 3, 4))
        with kernel("amx"):
            assert native(plan).program.fused == {"sum"}
    assert found == ({"direct", "panels", "all panels"} if channels > 64 else {"direct", "panels"})


@every_mode
def test_batches(mode: str) -> None:
    layer = replace(SIZES[mode], channels=10)
    plan, codes = compiled(layer.graph()), layer.codes(7, seed=3)
    law = list(run(plan, codes, "numba"))
    assert modes(plan) == [mode]
    for threads in (1, 2, 3):
        with kernel("amx"):
            for found, expected in zip(run(plan, codes, "jit", threads), law, strict=True):
                same_result(found, expected)


@every_mode
def test_many_runs_by_threads(mode: str) -> None:
    """Whichever thread takes a chunk: it has its own matrix registers and its own panels."""
    layer = replace(SIZES[mode], out=(9, 32) if mode == "direct" else (9, 14) if mode == "panels" else (2, 3))
    plan, codes = compiled(replace(layer, outputs=100).graph()), layer.codes(2)
    law = list(run(plan, codes, "numba"))
    assert modes(plan) == [mode]
    with kernel("amx"):
        for turn in range(40):
            sample = turn % 2
            same_result(next(run(plan, codes[sample : sample + 1], "jit", turn % 4 + 1)), law[sample])


# ---- any layer ----


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kernel_shape = draw(st.sampled_from([*KERNELS, (4, 1), (1, 8)]))
    group = draw(st.sampled_from([1, 1, 1, 2, 3]))
    columns = draw(st.sampled_from([1, 2, 3, 5, 7, 8, 14, 15, 16, 17, 31, 32, 33, 48]))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    channels, outputs = (group * draw(st.integers(1, 80 // group)) for _ in range(2))
    pads = tuple(draw(st.integers(0, size // 2)) for size in (*kernel_shape, *kernel_shape))
    reach = draw(st.sampled_from([1, 1, 2]))
    layer = Layer(channels, outputs, (draw(st.integers(1, 6)), columns), kernel_shape, stride, (reach, reach), pads)  # type: ignore[arg-type]
    layer = replace(layer, group=group, z_x=draw(st.sampled_from([0, 128, 255])))
    if min(layer.shape) < 1:
        layer = replace(layer, pads=(0, 0, 0, 0))
    return replace(layer, bits=(draw(st.integers(1, 8)), draw(st.integers(1, 8))))


@given(layers(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_layer(layer: Layer, gathered: bool, together: bool, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        set_chunks(patch)
        if gathered:
            never_direct(patch)
        if together:
            set_groups(patch)
        plan = builders.compiled(layer.graph())
        (mode,) = modes(plan)
        event(mode)
        assert_native(plan, layer.codes(seed=seed), names=["amx"], threads=(1, 2))
