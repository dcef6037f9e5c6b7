"""Registers that sums may leave, in native code: corners by construction, then networks against the other engines."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqtsim.engines.native import native
from dqtsim.engines.native.program import Fallback
from dqtsim.engines.registry import run, traced
from dqtsim.engines.result import Result
from dqtsim.errors import AccumulatorError
from dqtsim.graph import Graph, GraphBuilder, with_bits
from dqtsim.planner import Plan, plan
from dqtsim.spec import Flags, Overflow, Rounding

from .builders import Array, compiled, conv, dense, network, picture, target
from .networks import Sample, samples
from .vectorkernels import kernel, kernels

AFTERWARDS = (Overflow.ERROR, Overflow.WRAP, Overflow.SATURATE)
every_kernel = pytest.mark.parametrize("name", kernels())
every_register = pytest.mark.parametrize("policy", [Overflow.WRAP, Overflow.SATURATE])
every_change = pytest.mark.parametrize("policy", [Overflow.WRAP, Overflow.SATURATE, Overflow.SATURATE_EACH])


def left_to_others(made: Plan) -> set[str]:
    """Return the layers that run by their ordinary kernels."""
    operations = native(made).program.operations
    return {op.step for op in operations if isinstance(op, Fallback)} & made.macs.keys()


def assert_same(made: Plan, codes: Array, reference: str = "numba") -> list[Result]:
    """The native engine gives what the reference gives: observed, alone, by threads together, and in batches."""
    expected = []
    for index in range(len(codes)):
        sample = codes[index : index + 1]
        result, tensors = traced(made, sample, reference)
        again, seen = traced(made, sample, "jit")
        assert set(tensors) == set(seen)
        for key, array in tensors.items():
            assert np.array_equal(array, seen[key]), key
        (alone,), (together,) = (list(run(made, sample, "jit", threads)) for threads in (1, 3))
        for found in (again, alone, together):
            assert_equal(found, result)
        expected.append(result)
    for threads in (1, 2):
        for found, result in zip(run(made, codes, "jit", threads), expected, strict=True):
            assert_equal(found, result)
    return expected


def assert_equal(found: Result, expected: Result) -> None:
    assert (dict(found.flags), found.bits) == (dict(expected.flags), expected.bits)
    for key, array in expected.outputs.items():
        assert np.array_equal(found.outputs[key], array), key


# ---- corners ----


def weights_of(totals: Sequence[int]) -> tuple[Array, Array]:
    """Return signed weights (len(totals), K) and inputs (K) in 0 .. 255 whose sums are these totals."""
    unit = 127 * 255
    most = max(abs(total) for total in totals) // unit
    table = np.zeros((len(totals), most + 3), np.int64)
    for row, total in zip(table, totals, strict=True):
        sign, left = (-1 if total < 0 else 1), abs(total)
        whole, left = divmod(left, unit)
        row[:whole] = 127 * sign
        row[most] = sign * (left // 255)
        rest = left % 255
        row[most + 1 :] = sign * (rest // 2), sign * (rest - rest // 2)
    return table, np.array([255] * (most + 1) + [1, 1], np.uint8)


def corners(width: int) -> list[int]:
    """Return sums at and beside the limits of a register, and far beyond, but within 32 bits for all inputs."""
    half = 1 << (width - 1)
    far = min(half, 1 << 22)
    return [0, half - 1, half, half + 1, -half, -half - 1, -half + 1, half + far - 1, -half - far]


@every_kernel
@every_register
@pytest.mark.parametrize("width", [8, 9, 16, 24, 31])
@pytest.mark.parametrize("logits", [False, True], ids=["codes", "logits"])
def test_sums_at_the_limits(name: str, policy: Overflow, width: int, logits: bool) -> None:
    totals = corners(width)
    table, x = weights_of(totals)
    shift = max(0, width - 8)
    how: dict[str, Any] = {} if logits else {"multiplier": 1 << 10, "shift": 10 + shift}
    half = 1 << (width - 1)
    wraps = policy == Overflow.WRAP
    held = [(p + half) % (2 * half) - half if wraps else max(-half, min(half - 1, p)) for p in totals]
    lost = sum(not -half <= p < half for p in totals)
    with kernel(name):
        made = compiled(dense(table, logits=logits, z_x=0, **how), accumulator_width=width, overflow=policy)
        assert left_to_others(made) == set()
        codes = x[None]
        _, tensors = traced(made, codes, "jit")
        results = [result for threads in (1, 2) for result in run(made, np.concatenate([codes] * 2), "jit", threads)]
        results += [result for threads in (1, 2) for result in run(made, codes, "jit", threads)]
    assert tensors["y.acc"].tolist() == [held]
    rounded = [max(0, min(255, 128 + ((p + (1 << shift >> 1)) >> shift))) for p in held]
    for result in results:
        assert result.outputs["y"].tolist() == [held if logits else rounded]
        assert result.flags["y"] == Flags(0 if wraps else lost, lost if wraps else 0, min(totals), max(totals))


@every_kernel
@pytest.mark.parametrize("policy", AFTERWARDS)
@pytest.mark.parametrize("beyond", [False, True])
def test_sums_at_the_limits_of_32_bits(name: str, policy: Overflow, beyond: bool) -> None:
    """Inputs of at most 128 times weights that sum to -2^24: the sum is the least of 32 bits, and is proven to be."""
    taps = 1 << 17
    weight = np.repeat([[-128], [127], [0]], taps, axis=1)
    if beyond:
        weight = np.pad(weight, ((0, 0), (0, 1)), constant_values=-1)
    b = GraphBuilder("sums", candidates=((2, 2),))
    x = b.input("x", (1, weight.shape[1]), zero_point=0, scale=1.0)
    x = b.requantize("half", x, multiplier=1, shift=0, zero_point=0, scale=1.0, clip=(0, 128))
    way: dict[str, Any] = {"bias": [[0] * 3], "multiplier": [[1 << 15] * 3], "shift": [[40] * 3]}
    weight = (weight + 128).astype(np.uint8)
    b.output(b.gemm("y", x, weight=weight, **way, row_widths=(8,), zero_point=128, scale=1.0, clip=(0, 255)))
    made = compiled(b.build([(8, 8)]), accumulator_width=32, overflow=policy)
    (step,) = made.layer_steps()
    assert step.call.bounds[8, 8].bits == 32 + beyond
    with kernel(name):
        assert left_to_others(made) == ({"y"} if beyond else set())
        if not beyond:
            (result,) = assert_same(made, np.full((1, taps), 255, np.uint8))
            assert result.flags["y"] == Flags(0, 0, -(1 << 31), 127 << 24)
            assert result.outputs["y"].tolist() == [[128 - 64, 128 + 64, 128]]


@every_kernel
def test_nothing_is_counted_where_nothing_happens(name: str) -> None:
    """Channels that could leave the register, and do not, under every policy that looks at the end of a window."""
    table, _ = weights_of([128, -129])
    for policy in AFTERWARDS:
        with kernel(name):
            made = compiled(dense(table), accumulator_width=8, overflow=policy)
            assert not made.proven() and left_to_others(made) == set()
            (result,) = assert_same(made, np.full((1, table.shape[1]), 128, np.uint8), "spec")
        assert result.flags["y"] == Flags()


@every_kernel
def test_a_sum_that_wraps_may_end_where_no_exact_sum_is(name: str) -> None:
    """All sums are at least 0 and no more than 255, of which 0 to 127 give one code; 128 is held as -128."""
    graph = dense([[1], [1]], z_x=0, multiplier=1 << 10, shift=20, bias=[0, 5])
    made = compiled(graph, accumulator_width=8, overflow=Overflow.WRAP, rounding=Rounding.FLOOR)
    with kernel(name):
        assert left_to_others(made) == set()
        results = assert_same(made, np.array([[127], [128]], np.uint8), "spec")
    assert [result.outputs["y"].tolist() for result in results] == [[[128, 128]], [[127, 127]]]


# ---- layers ----


def many_channels(outputs: int, wide: Sequence[int], **how: Any) -> Graph:
    """Return a convolution whose channels `wide` can leave 12 bits and the others cannot."""
    random = np.random.default_rng(outputs)
    group = how.get("group", 1)
    weight = random.integers(-1, 2, (outputs, 4 // group, 2, 2))
    weight[:, :, 0, 0] = 0
    weight[list(wide)] = random.integers(-128, 128, (len(wide), 4 // group, 2, 2))
    return conv(
        (4, 9, 7),
        weight,
        bias=random.integers(-2000, 2000, outputs),
        multiplier=random.integers(1 << 14, 1 << 16, outputs),
        shift=random.integers(18, 22, outputs),
        z_y=100,
        clip=(5, 250),
        **how,
    )


@every_kernel
@every_change
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("wide", [[0], [39], [17, 18], [3, 21], list(range(40))], ids=str)
def test_some_channels_of_many(name: str, policy: Overflow, rounding: Rounding, wide: list[int]) -> None:
    graph = many_channels(40, wide, pads=(1, 0, 0, 1))
    made = compiled(graph, accumulator_width=12, overflow=policy, rounding=rounding)
    (step,) = made.layer_steps()
    assert step.call.bounds[8, 8].unproven(12).tolist() == wide
    codes = np.random.default_rng(1).integers(0, 256, (2, 4, 9, 7), np.uint8)
    with kernel(name):
        assert left_to_others(made) == set()
        results = assert_same(made, codes)
    for result in results:
        flags = result.flags["y"]
        assert flags is not None and flags.saturations + flags.wraps > 0


@every_kernel
@every_change
@pytest.mark.parametrize("outputs", [1, 3, 4, 5, 16])
@pytest.mark.parametrize("group", [1, 4])
def test_few_channels_and_groups(name: str, policy: Overflow, outputs: int, group: int) -> None:
    """Codes of up to four channels lie closer than vectors; four and sixteen channels in groups."""
    if outputs % group:
        return
    made = compiled(many_channels(outputs, [0], group=group), accumulator_width=12, overflow=policy)
    codes = np.random.default_rng(2).integers(0, 256, (3, 4, 9, 7), np.uint8)
    with kernel(name):
        assert left_to_others(made) == set()
        assert_same(made, codes)


@every_kernel
@every_change
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_depthwise(name: str, policy: Overflow, strides: tuple[int, int]) -> None:
    random = np.random.default_rng(4)
    weight = random.integers(-128, 128, (20, 1, 3, 3))
    weight[4:18] //= 64
    graph = conv((20, 6, 7), weight, group=20, pads=(1, 1, 1, 1), strides=strides, shift=18)
    made = compiled(graph, accumulator_width=12, overflow=policy)
    with kernel(name):
        assert left_to_others(made) == set()
        assert_same(made, random.integers(0, 256, (2, 20, 6, 7), np.uint8))


@every_kernel
@pytest.mark.parametrize("outputs", [2, 32])
def test_chunks_of_a_large_layer(name: str, outputs: int) -> None:
    """So many sums that several threads take part."""
    random = np.random.default_rng(6)
    graph = conv((4, 72, 72), random.integers(-128, 128, (outputs, 4, 1, 1)), shift=18)
    made = compiled(graph, accumulator_width=14, overflow=Overflow.WRAP)
    with kernel(name):
        chunks = [op.chunks for op in native(made).program.operations if not isinstance(op, Fallback)]
        assert (max(chunks) > 1) == (outputs > 4)
        for _ in range(5):
            assert_same(made, random.integers(0, 256, (1, 4, 72, 72), np.uint8))


@every_kernel
@every_change
def test_what_is_added_is_what_the_register_held(name: str, policy: Overflow) -> None:
    """A NestedAdd is done with the convolution before it only where no register stands between the two."""
    random = np.random.default_rng(9)
    b = GraphBuilder("residual", candidates=((2, 2),))
    common: dict[str, Any] = {"scale": 1.0, "zero_point": 128, "clip": (0, 255)}
    tables: dict[str, Any] = {"bias": [[0] * 4], "multiplier": [[1 << 15] * 4], "shift": [[19] * 4]}
    x = b.input("x", (1, 4, 5, 5), zero_point=128, scale=1.0)
    y = b.conv("y", x, weight=random.integers(0, 256, (4, 4, 1, 1), np.uint8), **tables, row_widths=(8,), **common)
    b.output(b.add("sum", y, x, multiplier_a=1 << 14, multiplier_b=1 << 14, shift=15, **common))
    graph = b.build([(8, 8)])
    codes = random.integers(0, 256, (2, 4, 5, 5), np.uint8)
    for width in (12, 32):
        made = compiled(graph, accumulator_width=width, overflow=policy)
        with kernel(name):
            assert native(made).program.fused == ({"sum"} if made.proven() else set())
            assert_same(made, codes)


@every_kernel
@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("outputs", [3, 4, 20])
def test_chunks_in_any_order_give_the_same(name: str, width: int, outputs: int) -> None:
    """A vector of codes may reach into the next pixel only where one thread stores both."""
    random = np.random.default_rng(8)
    graph = conv((16, 128, 130), random.integers(-128, 128, (outputs, 16, 3, 3)), shift=21)
    made = compiled(graph, accumulator_width=width, overflow=Overflow.SATURATE)
    codes = random.integers(0, 256, (1, 16, 128, 130), np.uint8)
    with kernel(name):
        engine = native(made)
    instance = engine.loaded.instance()
    instance.execute(codes)
    expected = instance.value("y")
    records, address = instance.segments[0]  # type: ignore[misc]
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    assert (int(records[:, 1].max()) > 1) == (outputs > 4 or engine.library.isa.lanes == 4)
    for number, row in enumerate(records):
        for chunk in reversed(range(int(row[1]))):
            call(int(row[0]))(address + number * records.strides[0], chunk)
    assert np.array_equal(instance.value("y"), expected)


@every_kernel
@pytest.mark.parametrize("policy", Overflow)
def test_a_controller_may_choose_widths_that_are_proven_and_others(name: str, policy: Overflow) -> None:
    """Whatever it chooses, only the proof of the chosen widths counts."""
    made = compiled(network(), accumulator_width=15, overflow=policy)
    mixed = {
        step.node.name
        for step in made.layer_steps()
        if len({bool(bound.unproven(15).size) for bound in step.call.bounds.values()}) == 2
    }
    assert mixed >= {"left", "right"}
    codes = np.concatenate([picture(5, 30), np.full((1, 3, 6, 6), 255, np.uint8)])
    chosen = set()
    with kernel(name):
        assert left_to_others(made) == set()
        for index in range(len(codes)):
            sample = codes[index : index + 1]
            try:
                (expected,) = run(made, sample, "numba")
            except AccumulatorError as error:
                assert policy == Overflow.ERROR
                assert refusal(made, sample) == str(error)
                continue
            chosen |= set(expected.bits)
            assert_same(made, sample)
    assert policy == Overflow.ERROR or len(chosen) > 1


# ---- the policy ERROR ----


def refusal(made: Plan, codes: Array, threads: int = 1) -> str:
    """Return the sentence with which the native engine stops, the same whether observed or not."""
    with pytest.raises(AccumulatorError) as caught:
        list(run(made, codes, "jit", threads))
    if len(codes) == 1:
        with pytest.raises(AccumulatorError) as observed:
            traced(made, codes, "jit")
        assert str(observed.value) == str(caught.value)
    return str(caught.value)


@every_kernel
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_sample_that_fails_is_reported(name: str, threads: int) -> None:
    made = compiled(dense([[2], [-1]], logits=True), accumulator_width=8)
    fits, one, other = ([[128]], [[0]], [[255]])
    sentence = (
        "the sum {} of output channel 0 of node 'y' (dqtsim.NestedLogits) does not fit the 8-bit accumulator of target "
        "'test', whose overflow policy is ERROR."
    )
    with kernel(name):
        assert left_to_others(made) == set()
        codes = np.array([*fits, *fits, *other, *one], np.uint8)
        assert refusal(made, codes, threads) == sentence.format(254)
        assert refusal(made, codes[::-1].copy(), threads) == sentence.format(-256)
        # the engine goes on as if nothing had been
        assert [r.outputs["y"].tolist() for r in run(made, codes[:2], "jit", threads)] == [[[0, 0]]] * 2
        assert [r.flags["y"] for r in run(made, codes[:2], "jit", threads)] == [Flags()] * 2


@every_kernel
@pytest.mark.parametrize("ordinary", [False, True])
def test_the_first_layer_that_fails_is_reported(name: str, ordinary: bool) -> None:
    """What follows a sum that did not fit may fail too, natively or not; it is no reason."""
    b = GraphBuilder("two", candidates=((4, 4),))
    common: dict[str, Any] = {"row_widths": (8,), "scale": 1.0, "clip": (0, 255), "zero_point": 128, "bias": [[0]]}
    x = b.input("x", (1, 1, 2, 2), zero_point=128, scale=1.0)
    weight = np.full((1, 1, 1, 1), 255, np.uint8)
    x = b.conv("first", x, weight=weight, multiplier=[[1 << 15]], shift=[[15]], **common)
    # such a multiplier, aligned, has more than the native kernels' 32 bits
    multiplier, shift = ([[(1 << 31) - 1]], [[38]]) if ordinary else ([[1 << 15]], [[23]])
    weight = np.full((1, 1, 2, 2), 255, np.uint8)
    b.output(b.conv("second", x, weight=weight, multiplier=multiplier, shift=shift, **common))
    made = plan(b.build([(8, 8), (4, 4)]), target(accumulator_width=8, multiplier_width=31))
    with kernel(name):
        assert left_to_others(made) == ({"second"} if ordinary else set())
        # 2 * 127 is too much for the first layer, whatever follows; 127 is not, but 4 * 7 * 7 is for the second
        for code, layer in ((130, "first"), (129, "second")):
            sample = np.full((1, 1, 2, 2), code, np.uint8)
            with pytest.raises(AccumulatorError) as law:
                list(run(made, sample, "spec"))
            assert f"node '{layer}'" in str(law.value)
            assert refusal(made, sample) == refusal(made, sample, 3) == str(law.value)


# ---- what is left to the ordinary kernels ----


@pytest.mark.parametrize("policy", Overflow)
@pytest.mark.parametrize("width", [8, 12, 16, 20])
@pytest.mark.parametrize("dynamic", [False, True])
def test_no_layer_is_left_to_the_ordinary_kernels(policy: Overflow, width: int, dynamic: bool) -> None:
    graph = network() if dynamic else with_bits(network(dynamic=False), [(8, 8), (4, 8), (2, 2), (8, 8)])
    made = compiled(graph, accumulator_width=width, overflow=policy)
    program = native(made).program
    assert left_to_others(made) == set()
    assert program.whole
    unproven = {
        step.node.name
        for step in made.layer_steps()
        if any(bound.unproven(width).size for bound in step.call.bounds.values())
    }
    assert set(program.overflow_counts) == unproven
    assert unproven or width == 20


@given(samples(), st.integers(8, 20), st.sampled_from([Overflow.ERROR, Overflow.SATURATE]))
def test_a_register_that_clamps_leaves_no_more_layers(sample: Sample, width: int, policy: Overflow) -> None:
    """Sums of a smaller range need fewer bits on their way out, so that only the tables can forbid native code."""
    wide, narrow = (compiled(sample.graph, accumulator_width=w, overflow=policy) for w in (48, width))
    assert left_to_others(narrow) <= left_to_others(wide)
