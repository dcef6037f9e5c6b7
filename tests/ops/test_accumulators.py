"""The accumulator register (B1, C2, C3): every policy, width and tap order, by the law and by the kernels."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.numba import mac
from dqtsim.errors import AccumulatorError
from dqtsim.graph import Graph
from dqtsim.planner import Plan
from dqtsim.spec import Flags, Overflow, TapOrder
from tests.builders import Array, compiled, conv, dense, run

ENGINES = ("spec", "numba", "jit")
REGISTERS = [policy for policy in Overflow if policy != Overflow.ERROR]
WIDTHS = range(8, 49)
BOUNDARY_WIDTHS = range(8, 21)  # wider registers need more taps than a small test has


def outcome(plan: Plan, x: Any) -> tuple[list[int], Flags]:
    """Return the accumulators of 'y' and their flags, which the law and the kernels give alike."""
    found = []
    for name in ENGINES:
        result, tensors = run(plan, name, x)
        flags = result.flags["y"]
        assert flags is not None
        assert all(type(count) is int for count in vars(flags).values())
        found.append((tensors["y.acc"].reshape(-1).tolist(), flags, tensors["y"].tolist()))
    assert found[0] == found[1] == found[2]
    return found[0][:2]


def refusal(plan: Plan, x: Any) -> str:
    """Return the sentence of an overflow, which the law and the kernels give alike."""
    texts = []
    for name in ENGINES:
        with pytest.raises(AccumulatorError) as caught:
            run(plan, name, x)
        texts.append(str(caught.value))
    assert texts[0] == texts[1] == texts[2]
    return texts[0]


# products 100, 100, -100 in an 8-bit register: the sum fits, a partial sum does not
@pytest.mark.parametrize("order", TapOrder)
@pytest.mark.parametrize(
    ("policy", "sums", "flags"),
    [
        (Overflow.ERROR, [100], Flags(0, 0, 0, 100)),
        (Overflow.WRAP, [100], Flags(0, 0, 0, 100)),
        (Overflow.SATURATE, [100], Flags(0, 0, 0, 100)),
        (Overflow.SATURATE_EACH, [27], Flags(1, 0, 0, 27)),
    ],
)
def test_a_partial_sum_may_leave_the_register(policy: Overflow, order: TapOrder, sums: list[int], flags: Flags) -> None:
    plan = compiled(dense([[100, 100, -100]]), accumulator_width=8, overflow=policy, tap_order=order)
    assert outcome(plan, [129, 129, 129]) == (sums, flags)


@pytest.mark.parametrize(
    ("policy", "sums", "flags"),
    [
        (Overflow.WRAP, [127, -128, 127, -128, -32], Flags(0, 3, -129, 16096)),
        (Overflow.SATURATE, [127, 127, -128, -128, 127], Flags(3, 0, -129, 16096)),
        (Overflow.SATURATE_EACH, [127, 127, -128, -128, 127], Flags(3, 0, -128, 127)),
    ],
)
def test_sums_past_the_limits(policy: Overflow, sums: list[int], flags: Flags) -> None:
    # 127, 128, -129, -128 and 127 * 127 - 33 = 16096 = 63 * 256 - 32
    weights = [[0, 0, 127], [0, 1, 127], [0, -2, -127], [0, -1, -127], [127, -33, 0]]
    plan = compiled(dense(weights, logits=True), accumulator_width=8, overflow=policy)
    if policy == Overflow.SATURATE_EACH:
        sums, flags = [127, 127, -128, -128, 94], Flags(3, 0, -128, 127)  # 127 after the first product, less 33
    assert outcome(plan, [255, 129, 129]) == (sums, flags)


# one output of two channels and two columns; products 100, -100 | 100, 50
@pytest.mark.parametrize(("order", "sums"), [("CHANNEL_ROW_COLUMN", 127), ("ROW_COLUMN_CHANNEL", 77)])
def test_only_saturate_each_tells_tap_orders_apart(order: str, sums: int) -> None:
    graph = conv((2, 1, 2), [[[[100, -100]], [[100, 50]]]])
    each = compiled(graph, accumulator_width=8, overflow=Overflow.SATURATE_EACH, tap_order=TapOrder(order))
    assert outcome(each, [[[129, 129]], [[129, 129]]]) == ([sums], Flags(1, 0, 0, sums))
    for policy, value in ((Overflow.WRAP, -106), (Overflow.SATURATE, 127)):
        plan = compiled(graph, accumulator_width=8, overflow=policy, tap_order=TapOrder(order))
        assert outcome(plan, [[[129, 129]], [[129, 129]]])[0] == [value]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("policy", Overflow)
def test_a_register_that_is_wide_enough_changes_nothing(policy: Overflow, width: int) -> None:
    plan = compiled(dense([[100, -100], [-128, 127]], logits=True), accumulator_width=width, overflow=policy)
    assert outcome(plan, [129, 129]) == ([0, -1], Flags(0, 0, -1, 0))


def weights_of(total: int) -> list[int]:
    """Return weights of one sign, at most 127 each, that sum to `total`."""
    sign = -1 if total < 0 else 1
    whole, rest = divmod(abs(total), 127)
    return [sign * 127] * whole + [sign * rest]


def near_proof() -> Iterator[tuple[int, int, int]]:
    """Yield (width, sum of weights, their sum on inputs of -128) around what the proof of `width` bits allows."""
    for width in BOUNDARY_WIDTHS:
        exact = 1 << (width - 8)
        for total in (exact - 1, exact, exact + 1, -(exact - 1), -exact, -(exact + 1)):
            yield width, total, -128 * total


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the calls of the ordinary kernels that look at every sum."""
    calls: list[str] = []
    for name in ("narrow", "conv_saturate_each"):
        kernel: Callable[..., Any] = getattr(mac, name)

        def counted(*arguments: Any, kernel: Callable[..., Any] = kernel, name: str = name) -> Any:
            calls.append(name)
            return kernel(*arguments)

        monkeypatch.setattr(mac, name, counted)
    return calls


@pytest.mark.parametrize(("width", "total", "sum_"), list(near_proof()))
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_proof_at_its_boundary(kind: str, width: int, total: int, sum_: int, slow_calls: list[str]) -> None:
    weights = weights_of(total)
    half = 1 << (width - 1)
    fits = -half <= sum_ < half
    graph: Graph = dense([weights]) if kind == "dense" else conv((len(weights), 1, 1), [[[[w]] for w in weights]])
    x = np.zeros(graph.input.shape[1:], np.uint8)
    for policy in Overflow:
        slow_calls.clear()
        plan = compiled(graph, accumulator_width=width, overflow=policy)
        assert plan.proven() == fits
        if policy == Overflow.ERROR and not fits:
            place = " at (0, 0)" if kind == "conv" else ""
            operator = "NestedConv" if kind == "conv" else "NestedGemm"
            assert refusal(plan, x) == (
                f"the sum {sum_} of output channel 0{place} of node 'y' (dqtsim.{operator}) does not fit the "
                f"{width}-bit accumulator of target 'test', whose overflow policy is ERROR."
            )
        else:
            wrapped = (sum_ + half) % (2 * half) - half
            clamped = min(max(sum_, -half), half - 1)
            sums, flags = outcome(plan, x)
            assert sums == [sum_ if fits else wrapped if policy == Overflow.WRAP else clamped]
            extreme = sums[0] if policy == Overflow.SATURATE_EACH else sum_
            assert (flags.lowest, flags.highest) == (min(extreme, 0), max(extreme, 0))
            assert flags.wraps == (not fits and policy == Overflow.WRAP)
            assert flags.saturations == (not fits and policy in (Overflow.SATURATE, Overflow.SATURATE_EACH))
        # jit narrows and clamps by itself; it asks the ordinary kernels for an error's sentence
        expected = {Overflow.ERROR: ["narrow", "narrow"], Overflow.SATURATE_EACH: ["conv_saturate_each"]}
        assert slow_calls == ([] if fits else expected.get(policy, ["narrow"]))


def test_the_first_overflow_in_the_order_of_positions_is_reported() -> None:
    # channel 1 leaves the register at (0, 0), channel 0 only at (0, 1)
    plan = compiled(conv((1, 1, 2), [[[[-1]]], [[[2]]]]), accumulator_width=8)
    assert refusal(plan, [[[192, 0]]]) == (
        "the sum 128 of output channel 1 at (0, 0) of node 'y' (dqtsim.NestedConv) does not fit the 8-bit accumulator "
        "of target 'test', whose overflow policy is ERROR."
    )
    logits = compiled(dense([[1], [-1], [2]], logits=True), accumulator_width=8)
    assert refusal(logits, [0]) == (
        "the sum 128 of output channel 1 of node 'y' (dqtsim.NestedLogits) does not fit the 8-bit accumulator of "
        "target 'test', whose overflow policy is ERROR."
    )


def clamped_sums(x: Array, weights: Array, order: TapOrder, width: int, geometry: dict[str, Any]) -> tuple[Array, int]:
    """Return the sums of a convolution of signed operands, clamped after each product, and how often that happened."""
    (sy, sx), (dy, dx), (top, left, bottom, right) = geometry["strides"], geometry["dilations"], geometry["pads"]
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    o, channels, rows, columns = weights.shape
    taps = list(product(range(channels), range(rows), range(columns)))
    if order == TapOrder.ROW_COLUMN_CHANNEL:
        taps.sort(key=lambda tap: (tap[1], tap[2], tap[0]))
    high = (padded.shape[1] - dy * (rows - 1) - 1) // sy + 1
    wide = (padded.shape[2] - dx * (columns - 1) - 1) // sx + 1
    out = np.zeros((o, high, wide), np.int64)
    events, half = 0, 1 << (width - 1)
    for k, i, j in np.ndindex(out.shape):
        first = k // (o // geometry["group"]) * channels
        for c, ky, kx in taps:
            exact = int(out[k, i, j]) + int(weights[k, c, ky, kx]) * int(
                padded[first + c, i * sy + ky * dy, j * sx + kx * dx]
            )
            out[k, i, j] = min(max(exact, -half), half - 1)
            events += int(out[k, i, j]) != exact
    return out, events


GEOMETRIES: Sequence[dict[str, Any]] = (
    {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0), "group": 1},
    {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 2, 3), "group": 2},
    {"strides": (1, 3), "dilations": (2, 1), "pads": (0, 2, 1, 0), "group": 4},
)


@pytest.mark.parametrize("order", TapOrder)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["plain", "groups", "depthwise"])
@pytest.mark.parametrize("width", [8, 12, 15, 16])
def test_saturate_each_over_windows(width: int, geometry: dict[str, Any], order: TapOrder) -> None:
    random = np.random.default_rng(width)
    weights = random.integers(-128, 128, (4, 4 // geometry["group"], 2, 3))
    weights[1] //= 64  # one channel that wide registers cannot lose
    x = random.integers(-128, 128, (4, 5, 6))
    plan = compiled(
        conv(x.shape, weights, **geometry), accumulator_width=width, overflow=Overflow.SATURATE_EACH, tap_order=order
    )
    sums, flags = outcome(plan, x + 128)
    expected, events = clamped_sums(x, weights, order, width, geometry)
    assert sums == expected.reshape(-1).tolist()
    assert flags == Flags(events, 0, min(0, int(expected.min())), max(0, int(expected.max())))


def test_channels_are_proven_one_by_one() -> None:
    plan = compiled(dense([[1, 0], [127, 127], [0, -1]]), accumulator_width=9, overflow=Overflow.SATURATE)
    (step,) = plan.layer_steps()
    assert step.call.bounds[8, 8].unproven(9).tolist() == [1]
    assert outcome(plan, [255, 255]) == ([127, 255, -127], Flags(1, 0, -127, 2 * 127 * 127))


@pytest.mark.parametrize("policy", REGISTERS)
def test_narrow_widths_reach_less_of_the_register(policy: Overflow) -> None:
    # at (2, 2) a product is at most 2 * 2, so 8 bits are proven; at (8, 8) they are not
    weights = [[-128] * 5]
    narrow = compiled(dense(weights, bits=(2, 2)), accumulator_width=8, overflow=policy)
    assert narrow.proven()
    assert outcome(narrow, [0] * 5) == ([20], Flags(0, 0, 0, 20))
    wide = compiled(dense(weights), accumulator_width=8, overflow=policy)
    assert not wide.proven()
    assert outcome(wide, [0] * 5)[0] != [5 * 128 * 128]
