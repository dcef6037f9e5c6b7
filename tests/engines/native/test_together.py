"""Samples of a batch that go through a program side by side, each in its own arena, give what each gives alone."""

from collections.abc import Iterator

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.run import loaded as engine
from dqtsim.engines.registry import run
from dqtsim.engines.result import Result
from dqtsim.errors import AccumulatorError
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.planner import Plan
from dqtsim.spec.rules import Overflow
from dqtsim.structures import build
from dqtsim.widths import apply_bits
from tests import builders
from tests.builders import Array, network
from tests.vectorkernels import kernel, kernels

from .same import same_result


def registers(overflow: Overflow) -> Plan:
    """Return a network some of whose sums leave a register of 12 bits."""
    return builders.compiled(apply_bits(network(), "8")[0], accumulator_width=12, overflow=overflow)


PLANS = {
    "small": builders.compiled(network()),
    "resnet8": builders.compiled(build("resnet8", dynamic=True)),
    "wraps": registers(Overflow.WRAP),
    "clamps": registers(Overflow.SATURATE),
    "clamps each": registers(Overflow.SATURATE_EACH),
}
COUNTS = (1, 2, 3, 4, 5, 9)


def samples(plan: Plan, count: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, *plan.graph.input.shape[1:]), np.uint8)


@pytest.fixture(scope="module")
def law() -> dict[str, list[Result]]:
    """What the engine numba gives for as many samples as any test takes."""
    return {name: list(run(plan, samples(plan, max(COUNTS)), "numba")) for name, plan in PLANS.items()}


@pytest.fixture(params=kernels())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with kernel(request.param):
        yield request.param


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("together", [1, 2, 4])
def test_turns(
    isa: str, name: str, together: int, law: dict[str, list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of samples, by one thread or more, whether all operations are done together or none."""
    plan = PLANS[name]
    loaded = native(plan).loaded
    codes = samples(plan, max(COUNTS))
    monkeypatch.setattr(loaded, "together", together)
    operations = len(loaded.program.operations)
    for alone in (0, 1, operations // 2, operations):
        monkeypatch.setattr(loaded, "alone", alone)
        for count in COUNTS:
            for threads in (1, 2):
                found = list(run(plan, codes[:count], "jit", threads))
                for one, other in zip(found, law[name][:count], strict=True):
                    same_result(one, other)


def test_the_first_sum_that_does_not_fit_is_named(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = registers(Overflow.ERROR)
    codes = samples(plan, 6)
    # black pictures keep to the register
    codes[[0, 1, 3, 4]] = codes[0] // 64
    loaded = native(plan).loaded
    sentences = []
    for together, alone in ((1, 0), (4, 0), (4, len(loaded.program.operations))):
        monkeypatch.setattr(loaded, "together", together)
        monkeypatch.setattr(loaded, "alone", alone)
        with pytest.raises(AccumulatorError) as raised:
            list(run(plan, codes, "jit"))
        sentences.append(str(raised.value))
    with pytest.raises(AccumulatorError) as raised:
        list(run(plan, codes, "numba"))
    assert sentences == [str(raised.value)] * 3


def layers(*sizes: tuple[int, int, int]) -> Graph:
    """Return a chain of 1x1 convolutions: (rows and columns of the input, channels in, channels out); strides halve."""
    random = np.random.default_rng(3)
    b = GraphBuilder("chain", candidates=((8, 8),))
    side, channels, _ = sizes[0]
    x = b.input("x", (1, channels, side, side), zero_point=128, scale=1.0)
    for number, (_, inputs, outputs) in enumerate(sizes):
        x = b.conv(
            f"layer{number}",
            x,
            weight=random.integers(0, 256, (outputs, inputs, 1, 1), np.uint8),
            bias=np.zeros((1, outputs), int),
            multiplier=np.full((1, outputs), 1 << 15),
            shift=np.full((1, outputs), 24),
            row_widths=(8,),
            zero_point=128,
            scale=1.0,
            clip=(0, 255),
            strides=(2, 2),
        )
    b.output(x)
    return b.build([(8, 8)] * len(sizes))


def test_who_does_what_alone() -> None:
    """Samples part with the last layer whose weights are fewer bytes than its input and output."""
    # 16 * 16 pixels by 32 channels against 32 * 32 weights; then 4 * 4 by 64, 64 * 64; then 2 * 2 by 64, 64 * 64
    plan = builders.compiled(layers((32, 32, 32), (16, 32, 64), (8, 64, 64), (4, 64, 64)))
    program = native(plan).program
    first = [operation.function for operation in program.operations].index("conv")  # type: ignore[union-attr]
    steps = [getattr(operation, "step", "") for operation in program.operations]
    assert program.alone > first
    assert "layer2" not in steps[: program.alone]
    assert steps[program.alone - 1] == "layer1"


def test_who_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has more constants than stay near, and arenas that do."""
    for constants, arena, together in ((0, 1 << 30, 4), (1 << 30, 1 << 30, 1), (0, 0, 1)):
        monkeypatch.setattr(engine, "FAR_CONSTANTS", constants)
        monkeypatch.setattr(engine, "NEAR_ARENA", arena)
        loaded = native(builders.compiled(network())).loaded
        assert loaded.together == together
        assert loaded.program.arena_bytes > 0
    assert (engine.TOGETHER, engine.FAR_CONSTANTS < engine.NEAR_ARENA) == (4, False)
