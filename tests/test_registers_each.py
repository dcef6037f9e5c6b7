"""Registers that clamp after every product, in native code: corners by construction, then layers against the law."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native import native
from dqtsim.engines.registry import run, traced
from dqtsim.graph import GraphBuilder
from dqtsim.spec import Flags, Overflow
from dqtsim.spec.rules import TapOrder

from .builders import Array, codes_of, compiled, conv, dense
from .test_registers import assert_same, every_kernel, left_to_others
from .vectorkernels import kernel

EACH = Overflow.SATURATE_EACH
every_order = pytest.mark.parametrize("order", TapOrder)


def register_of(products: Sequence[int], width: int) -> tuple[int, int]:
    """Return what a register holds after these products, and how often it clamped: written down anew, not shared."""
    most, value, events = 2 ** (width - 1) - 1, 0, 0
    for product in products:
        value += product
        if value > most:
            value, events = most, events + 1
        if value < -most - 1:
            value, events = -most - 1, events + 1
    return value, events


def filled(total: int) -> list[int]:
    """Return products of 127 and less that add up to `total`."""
    sign = -1 if total < 0 else 1
    whole, left = divmod(abs(total), 127)
    return [127 * sign] * whole + [left * sign]


def windows(width: int) -> list[list[int]]:
    """Return products, at most 127 each way, that come to the limits and beside them, and back."""
    most = 2 ** (width - 1) - 1
    up, down = filled(most), filled(-most - 1)
    return [
        up,
        [*up, 1],
        [*up, 1, -1],
        [*up, -1, 1, 1],
        down,
        [*down, -1],
        [*down, -1, 1],
        [*down, 1, -1, -1],
        [*up, 127, *([-127] * 3), *up],
        [*down, -127, *up, *up, *down],
        [1, -1] * 4,
    ]


@every_kernel
@pytest.mark.parametrize("width", [8, 9, 12, 15])
@pytest.mark.parametrize("logits", [False, True], ids=["codes", "logits"])
def test_registers_at_the_limits(name: str, width: int, logits: bool) -> None:
    table = windows(width)
    taps = max(map(len, table))
    weight = np.array([[*row, *([0] * (taps - len(row)))] for row in table])
    # both ends of a product's range, too: codes of 1 leave the weights as they are
    x = np.ones((1, taps), np.uint8)
    expected = [register_of(row, width) for row in table]
    shift = max(0, width - 8)
    how: dict[str, Any] = {} if logits else {"multiplier": 1 << 10, "shift": 10 + shift}
    with kernel(name):
        made = compiled(dense(weight, logits=logits, z_x=0, **how), accumulator_width=width, overflow=EACH)
        assert left_to_others(made) == set()
        (result,) = assert_same(made, x, "spec")
        _, tensors = traced(made, x, "jit")
    held = [value for value, _ in expected]
    assert tensors["y.acc"].tolist() == [held]
    assert result.flags["y"] == Flags(sum(events for _, events in expected), 0, min(0, *held), max(0, *held))


@every_kernel
@pytest.mark.parametrize("weight", [[[-128, -128, 127]], [[127, 127, -128]]])
@pytest.mark.parametrize("code", [0, 1, 128, 255])
def test_the_largest_products(name: str, weight: list[list[int]], code: int) -> None:
    for z_x in (0, 128, 255):
        made = compiled(dense(weight, z_x=z_x), accumulator_width=16, overflow=EACH)
        with kernel(name):
            (result,) = assert_same(made, np.full((1, 3), code, np.uint8), "spec")
        value, events = register_of([w * (code - z_x) for w in weight[0]], 16)
        assert result.flags["y"] == Flags(events, 0, min(0, value), max(0, value))


@every_kernel
def test_extremes_are_of_registers_and_of_proven_sums(name: str) -> None:
    """An exact sum beyond the register is nobody's extreme; that of a channel that cannot leave it is."""
    weight = np.zeros((40, 4), np.int64)
    weight[0] = 127, 127, -127, -127
    weight[39] = 1, 1, 0, 0
    made = compiled(dense(weight, z_x=0), accumulator_width=9, overflow=EACH)
    with kernel(name):
        assert left_to_others(made) == set()
        results = assert_same(made, np.array([[100, 100, 0, 0], [1, 1, 1, 1], [0, 0, 100, 100]], np.uint8), "spec")
    assert [result.flags["y"] for result in results] == [
        Flags(2, 0, 0, 255), Flags(0, 0, 0, 2), Flags(2, 0, -256, 0)
    ]  # fmt: skip


@every_kernel
@every_order
def test_the_order_of_the_taps_is_the_targets(name: str, order: TapOrder) -> None:
    """Up by the first channel and down by the second: row by row they meet, channel by channel they do not."""
    weight = np.array([[[[100, 100]], [[-100, -100]]]])
    made = compiled(conv((2, 1, 2), weight, z_x=0), accumulator_width=8, overflow=EACH, tap_order=order)
    with kernel(name):
        (result,) = assert_same(made, np.ones((1, 2, 1, 2), np.uint8), "spec")
    events = 0 if order == TapOrder.ROW_COLUMN_CHANNEL else 1
    assert result.flags["y"] == Flags(events, 0, 0 if not events else -73, 0)


@every_kernel
@every_order
@pytest.mark.parametrize(
    ("channels", "outputs", "how"),
    [
        (3, 5, {}),
        (4, 40, {"pads": (1, 1, 1, 1)}),
        (16, 17, {"pads": (0, 1, 1, 0), "strides": (2, 1)}),
        (17, 3, {"dilations": (2, 2), "pads": (2, 2, 2, 2)}),
        (24, 24, {"group": 24, "pads": (1, 1, 1, 1)}),
        (8, 16, {"group": 4}),
        (33, 66, {"group": 3, "pads": (1, 0, 1, 0)}),
    ],
    ids=str,
)
def test_layers(name: str, order: TapOrder, channels: int, outputs: int, how: dict[str, Any]) -> None:
    random = np.random.default_rng(channels)
    weight = random.integers(-128, 128, (outputs, channels // how.get("group", 1), 3, 3))
    # half of the vectors can leave the register, the last ones where each channel has codes of its own
    half = slice(outputs // 2) if how.get("group") == channels else slice(outputs // 2, None)
    weight[half] //= 64
    # and some channels of these cannot
    weight[1::3] //= 64
    graph = conv((channels, 7, 9), weight, multiplier=1 << 15, shift=18, **how)
    made = compiled(graph, accumulator_width=12, overflow=EACH, tap_order=order)
    with kernel(name):
        assert left_to_others(made) == set()
        results = assert_same(made, random.integers(0, 256, (2, channels, 7, 9), np.uint8))
    assert all(result.flags["y"].saturations > 0 for result in results)  # type: ignore[union-attr]


@every_kernel
def test_every_width_has_its_own_operands(name: str) -> None:
    random = np.random.default_rng(3)
    b = GraphBuilder("widths", candidates=((2, 2),), weight_rule="MIDPOINT")
    x = b.input("x", (1, 16, 5, 5), zero_point=100, scale=1.0)
    tables: dict[str, Any] = {"bias": [[7] * 8], "multiplier": [[1 << 15] * 8], "shift": [[20] * 8]}
    weight = codes_of(random.integers(-128, 128, (8, 16, 3, 3)))
    b.output(b.conv("y", x, weight=weight, **tables, row_widths=(8,), scale=1.0, zero_point=128, clip=(0, 255)))
    codes = random.integers(0, 256, (1, 16, 5, 5), np.uint8)
    for pair in ((8, 8), (1, 1), (2, 8), (8, 2), (3, 5), (7, 4)):
        for width in (8, 10, 14):
            made = compiled(b.build([pair]), accumulator_width=width, overflow=EACH)
            with kernel(name):
                assert left_to_others(made) == set()
                assert_same(made, codes, "spec")


@every_kernel
def test_threads_share_a_large_layer(name: str) -> None:
    random = np.random.default_rng(6)
    graph = conv((4, 40, 40), random.integers(-128, 128, (32, 4, 3, 3)), shift=18)
    made = compiled(graph, accumulator_width=12, overflow=EACH)
    with kernel(name):
        records = [op for op in native(made).program.operations if getattr(op, "function", "") == "each"]
        assert [record.chunks > 1 for record in records] == [True]  # type: ignore[union-attr]
        for _ in range(3):
            assert_same(made, random.integers(0, 256, (1, 4, 40, 40), np.uint8))


@given(st.integers(8, 17), st.lists(st.integers(-128, 127), min_size=1, max_size=40), st.data())
def test_any_window(width: int, weights: list[int], data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 255), min_size=len(weights), max_size=len(weights)))
    z_x = data.draw(st.integers(0, 255))
    made = compiled(dense([weights], logits=True, z_x=z_x), accumulator_width=width, overflow=EACH)
    held, events = register_of([w * (c - z_x) for w, c in zip(weights, codes, strict=True)], width)
    sample: Array = np.array([codes], np.uint8)
    (result,) = run(made, sample, "jit")
    assert result.outputs["y"].tolist() == [[held]]
    assert result.flags["y"] == Flags(events, 0, min(0, held), max(0, held))
