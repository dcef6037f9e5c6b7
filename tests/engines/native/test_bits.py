"""One bit by one bit: convolutions that count bits give the bits of the ordinary kernels, and which ones do."""

import ctypes
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from dqtsim import spec
from dqtsim.engines.native import native
from dqtsim.engines.native.compile import build
from dqtsim.engines.native.compile.functions import Functions, can_count
from dqtsim.engines.native.emit import epilogue as codes
from dqtsim.engines.native.emit import one_bit as kernel_bits
from dqtsim.engines.native.emit.choice import ELSEWHERE
from dqtsim.engines.native.emit.one_bit import BITS, CHANNELS
from dqtsim.engines.native.isa import AND, ISAS, XOR
from dqtsim.engines.native.lower import one_bit
from dqtsim.engines.native.memory import NOWHERE, Planes
from dqtsim.engines.native.program import Operation
from dqtsim.engines.native.proofs.activations import Activations
from dqtsim.engines.registry import run
from dqtsim.planner import Plan
from dqtsim.spec import Nesting, Overflow, Rounding
from tests import builders
from tests.builders import Array
from tests.engines.emit.compiled import Chosen
from tests.vectorkernels import kernel, kernels

from .matrices import as_many_as_allowed
from .ones import ones
from .same import assert_native, same_result

VNNI512 = next(isa for isa in ISAS if isa.name == "vnni512")
only_counting = pytest.mark.skipif(
    "vnni512" not in kernels() or not can_count(VNNI512), reason="this machine counts no bits of vectors"
)
RULES = [
    {"weight_rule": weight_rule, "activation_rule": activation_rule}
    for weight_rule, activation_rule in product(("TIES_UP", "FLOOR", "MIDPOINT"), ("TIES_UP", "FLOOR"))
]
every_rule = pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules.values()))


def operations(plan: Plan) -> list[str]:
    """Return the names of all operations that belong to a step."""
    with kernel("vnni512"):
        program = native(plan).program
    return [o.function for o in program.operations if isinstance(o, Operation) and o.step]


def assert_counted(plan: Plan, codes: Array, expected: bool = True, **options: Any) -> None:
    """The only layer counts bits or does not, as expected, and all is as the ordinary kernels have it."""
    assert ("bits" in operations(plan)) == expected
    assert_native(plan, codes, names=["vnni512"], **options)


# ---- bits of codes ----


@pytest.mark.parametrize("n", range(2, 9))
@pytest.mark.parametrize("rule", [Nesting.TIES_UP, Nesting.FLOOR])
def test_a_code_is_1_from_the_threshold_on(n: int, rule: Nesting) -> None:
    for z in (0, 1, (1 << n) // 2 - 1, (1 << n) // 2, (1 << n) - 1):
        for j in range(n):
            least = one_bit.threshold(Activations(n, rule, z, (0, j, *[0] * (n - 1)), None))
            codes = [spec.nest_window(q, z, 1, j, n, rule) for q in range(1 << n)]
            assert codes == [int(q >= least) for q in range(1 << n)]


@only_counting
@pytest.mark.parametrize("channels", [1, 16, 31, 32, 33, 64, 80])
@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("chunks", [1, 3, 20])
def test_words_and_border(channels: int, zero: int, chunks: int) -> None:
    """Each bit is that of its channel; channels that do not exist have none, and nothing else is written."""
    random = np.random.default_rng(channels)
    height, width, (top, left, bottom, right), limit = 4, 5, (1, 2, 3, 0), 64
    place = Planes(NOWHERE, channels, height, width)
    source = random.integers(limit - 1, limit + 1, (height, width, place.step)).astype(np.uint8)
    flat = np.concatenate([source.reshape(-1), np.full(64, 255, np.uint8)])
    words = -(-channels // CHANNELS)
    guard = 8
    target = np.full(2 * guard + (top + height + bottom) * (left + width + right) * words, 0xA5A5A5A5, np.uint32)
    chosen = Chosen((1, 1), {(1, 1): 0, (1, 2): ELSEWHERE, (2, 1): ELSEWHERE, (8, 8): ELSEWHERE})
    record = np.array(
        BITS.words(
            function=0,
            chunks=chunks,
            **chosen.words,
            threshold=limit,
            zero=zero,
            source=int(flat.ctypes.data),
            source_row=width * place.step,
            source_step=place.step,
            target=int(target.ctypes.data) + 4 * guard,
            height=height,
            width=width,
            words=words,
            last=(1 << (channels - 1) % CHANNELS + 1) - 1,
            top=top,
            left=left,
            bottom=bottom,
            right=right,
        ),
        np.int64,
    )
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(Functions(VNNI512, Rounding.TIES_UP)["bits"])
    untouched = target.copy()
    for other in ([1, 2], [2, 1], [8, 8]):
        chosen.widths[:] = other
        function(int(record.ctypes.data), 0)
    assert np.array_equal(target, untouched)
    chosen.widths[:] = 1
    for chunk in reversed(range(chunks)):
        function(int(record.ctypes.data), chunk)
    codes = np.full((top + height + bottom, left + width + right, channels), zero)
    codes[top : top + height, left : left + width] = source[:, :, :channels] >= limit
    expected = [
        sum(int(bit) << number for number, bit in enumerate(pixel[first : first + CHANNELS]))
        for pixel in codes.reshape(-1, channels)
        for first in range(0, channels, CHANNELS)
    ]
    assert target[guard:-guard].tolist() == expected
    assert (target[:guard] == 0xA5A5A5A5).all()
    assert (target[-guard:] == 0xA5A5A5A5).all()


@pytest.mark.parametrize("channels", [16, 32, 33])
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 4)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 2)])
def test_each_tap_is_one_bit(channels: int, kernel_shape: tuple[int, int], dilation: tuple[int, int]) -> None:
    place, row = Planes(NOWHERE, channels, 9, 9), 1000
    segments, runs = one_bit.taps_of_bits(place, row, kernel_shape, dilation)
    met = {
        int(tap): 8 * begin + at
        for begin, run_ in zip(segments.tolist(), runs, strict=True)
        for at, tap in enumerate(run_)
        if tap >= 0
    }
    rows, columns = kernel_shape
    step = 4 * -(-channels // 32)
    assert met == {
        (c * rows + y) * columns + x: 8 * (y * dilation[0] * row + x * dilation[1] * step) + c
        for c, y, x in product(range(channels), range(rows), range(columns))
    }
    assert (runs >= 0).sum() == len(met)


# ---- layers ----


@only_counting
@every_rule
@pytest.mark.parametrize("ends", ["any", "least", "greatest", "alternating"])
def test_codes_and_weights_of_one_kind(rules: dict[str, str], ends: str) -> None:
    """The greatest and the least sums that there can be, at each zero point, with a border."""
    random = np.random.default_rng(1)
    weight = random.integers(-128, 128, (32, 32, 3, 3))
    codes = random.integers(0, 256, (1, 32, 5, 4), np.uint8)
    if ends != "any":
        weight[:] = 127 if ends == "greatest" else -128
        codes[:] = 255
    if ends == "alternating":
        weight[::2], codes[:, ::2] = 127, 0
        weight[:, 1::2] = -1 - weight[:, 1::2]
    for z_x in (0, 63, 64, 127, 128, 255):
        graph = builders.conv((32, 5, 4), weight, bits=(1, 1), z_x=z_x, shift=15 + 15, pads=(1, 2, 0, 1), rules=rules)
        assert_counted(builders.compiled(graph), codes)


GEOMETRIES: list[tuple[int, int, tuple[int, int], dict[str, Any]]] = [
    (16, 16, (3, 3), {"pads": (1, 1, 1, 1)}),
    (32, 16, (1, 1), {}),
    (33, 48, (2, 2), {"strides": (2, 1)}),
    (48, 64, (3, 1), {"pads": (0, 3, 2, 1), "strides": (1, 2)}),
    (64, 80, (3, 3), {"pads": (2, 2, 2, 2), "dilations": (1, 2)}),
    (65, 128, (1, 5), {"pads": (0, 2, 0, 2), "dilations": (3, 1)}),
    (96, 32, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
]


@only_counting
@every_rule
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: f"{geometry[0]}to{geometry[1]}")
@pytest.mark.parametrize("n", [8, 3])
def test_geometries(geometry: tuple[int, int, tuple[int, int], dict[str, Any]], rules: dict[str, str], n: int) -> None:
    channels, outputs, kernel_shape, rest = geometry
    random = np.random.default_rng(channels)
    top, middle = (1 << n) - 1, 1 << (n - 1)
    graph = builders.conv(
        (channels, 7, 9),
        random.integers(-middle, middle, (outputs, channels, *kernel_shape)),
        bits=(1, 1),
        bias=random.integers(-1000, 1000, outputs),
        z_x=(0, middle, top, middle // 2)[channels % 4],
        z_y=middle,
        shift=15 + n + 4,
        rules={**rules, "master_width": n},
        **rest,
    )
    codes = random.integers(0, top + 1, (1, channels, 7, 9), np.uint8)
    assert_counted(builders.compiled(graph), codes, threads=(1, 2))


@only_counting
@pytest.mark.parametrize("outputs", [1, 5, 17, 47])
@pytest.mark.parametrize("pixels", [1, 2, 5, 6, 7, 16, 49])
def test_tiles_and_channels_that_do_not_fill(outputs: int, pixels: int) -> None:
    random = np.random.default_rng(outputs)
    weight = random.integers(-128, 128, (outputs, 40, 1, 1))
    codes = random.integers(0, 256, (1, 40, 1, pixels), np.uint8)
    for rule in ("TIES_UP", "FLOOR", "MIDPOINT"):
        graph = builders.conv((40, 1, pixels), weight, bits=(1, 1), shift=15 + 12, rules={"weight_rule": rule})
        # lanes without a channel have no operand 0 there
        assert_counted(builders.compiled(graph), codes, expected=rule != "MIDPOINT")


@only_counting
def test_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layer", "nest", "one_bit"):
        monkeypatch.setattr(import_module(f"dqtsim.engines.native.lower.{name}"), "spread", as_many_as_allowed)
    random = np.random.default_rng(4)
    for outputs, size in ((32, (9, 11)), (320, (2, 2))):
        weight = random.integers(-128, 128, (outputs, 32, 3, 3))
        graph = builders.conv((32, *size), weight, bits=(1, 1), shift=15 + 14, pads=(1, 1, 1, 1))
        assert_counted(builders.compiled(graph), random.integers(0, 256, (1, 32, *size), np.uint8), threads=(1, 2, 3))


@only_counting
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "change"),
    [
        (15, 16, (3, 3), {}),
        (16, 16, (1, 1), {}),
        (32, 32, (3, 3), {"group": 2}),
        (32, 32, (3, 3), {"group": 32}),
        (32, 32, (3, 3), {"bits": (1, 2)}),
        (32, 32, (3, 3), {"bits": (2, 1)}),
    ],
)
def test_layers_that_multiply(channels: int, outputs: int, size: tuple[int, int], change: dict[str, Any]) -> None:
    random = np.random.default_rng(6)
    weight = random.integers(-128, 128, (outputs, channels // change.get("group", 1), *size))
    graph = builders.conv((channels, 4, 4), weight, shift=15 + 12, **{"bits": (1, 1), **change})
    codes = random.integers(0, 256, (1, channels, 4, 4), np.uint8)
    assert_counted(builders.compiled(graph), codes, expected=False)


@only_counting
@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH])
@pytest.mark.parametrize("rule", ["FLOOR", "MIDPOINT"])
def test_registers_that_overflow(overflow: Overflow, rule: str) -> None:
    """Sums are wrapped and clamped as they are; products one at a time need bytes."""
    random = np.random.default_rng(8)
    weight = random.integers(-128, 128, (32, 32, 3, 3))
    weight[:7] = -128
    graph = builders.conv(
        (32, 4, 4), weight, bits=(1, 1), z_x=0, shift=15 + 8, pads=(1, 1, 1, 1), rules={"weight_rule": rule}
    )
    codes = random.integers(100, 256, (1, 32, 4, 4), np.uint8)
    plan = builders.compiled(graph, accumulator_width=8, overflow=overflow)
    assert_counted(plan, codes, expected=overflow != Overflow.SATURATE_EACH)


# ---- networks whose widths change ----


@only_counting
@pytest.mark.parametrize("rule", ["TIES_UP", "MIDPOINT"])
def test_widths_that_a_controller_chooses(rule: str) -> None:
    plan = builders.compiled(ones(rule))
    with kernel("vnni512"):
        program = native(plan).program
    natives = [o for o in program.operations if isinstance(o, Operation)]
    names = [o.function for o in natives if o.step in ("left", "right")]
    assert names == 2 * ["nest", "bits", "conv", "conv"]
    random = np.random.default_rng(12)
    batch = random.integers(0, 256, (60, 32, 6, 6)).astype(np.uint8)
    batch[::2] //= random.integers(1, 9, (30, 1, 1, 1)).astype(np.uint8)
    law = list(run(plan, batch, "numba"))
    chosen = {widths for result in law for widths in result.bits}
    assert {(1, 1), (8, 8)} <= chosen
    with kernel("vnni512"):
        for threads in (1, 2):
            # one arena after the other sample's: what a skipped operation left there must not matter
            for one, other in zip(run(plan, batch, "jit", threads), law, strict=True):
                same_result(one, other)
    for sample in batch[:6]:
        assert_native(plan, sample[None], names=["vnni512"], threads=(1, 2))


def test_a_word_has_32_channels() -> None:
    assert kernel_bits.CHANNELS == 8 * one_bit.WORD_BYTES


@only_counting
def test_kernels_that_count() -> None:
    """They are there for every shape, in libraries of their own, and are made of one instruction of that kind."""
    names = set(Functions(VNNI512, Rounding.TIES_UP))
    shapes = {name for name in names if name.startswith("tile_")}
    for prefix in (AND, XOR):
        assert {name for name in names if name.startswith(prefix)} == {prefix + name for name in shapes}
        module = ir.Module()
        codes.emit_tile(module, VNNI512, Rounding.TIES_UP, 6, 4, product=prefix)
        parsed, machine = build.optimized(module, VNNI512)
        lines = machine.emit_assembly(parsed).splitlines()
        counted = [line for line in lines if "vpopcnt" in line]
        assert len(counted) == 6 * 4
        assert all("vpopcntd" in line and "zmm" in line for line in counted)
