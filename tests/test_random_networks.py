"""Five engines that share no arithmetic, on whole random networks: every tensor equal, every flag equal."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dqtsim.engines.registry import engine, run
from dqtsim.engines.result import Result, Trace
from dqtsim.errors import AccumulatorError, TargetError
from dqtsim.graph import from_onnx, to_onnx, with_bits
from dqtsim.planner import Plan, plan
from dqtsim.spec import Overflow, Rounding, TapOrder
from dqtsim.target import Target, load_target

from .networks import Sample, samples
from .vectorkernels import kernel, kernels

WIDE = replace(load_target("default"), multiplier_width=31)


def execute(compiled: Plan, sample: Sample, name: str) -> tuple[Result, Trace]:
    trace = Trace()
    return engine(compiled, name)(sample.codes, [trace]), trace


def assert_same(expected: Trace, found: Trace) -> None:
    """Every tensor that the second engine shows equals the first one's."""
    assert set(found.tensors) <= set(expected.tensors)
    for name, array in found.tensors.items():
        assert array.dtype == expected.tensors[name].dtype, name
        assert np.array_equal(array, expected.tensors[name]), name


def assert_native(compiled: Plan, sample: Sample, by_law: Result, law: Trace) -> None:
    """Every kernel gives the law's tensors and flags; the same where nothing is observed and tensors share memory."""
    for name in kernels():
        with kernel(name):
            result, trace = execute(compiled, sample, "jit")
            alone, together, twice = (
                list(run(compiled, codes, "jit", threads))
                for codes, threads in ((sample.codes, 1), (sample.codes, 3), (np.concatenate([sample.codes] * 2), 1))
            )
        assert set(law.tensors) == set(trace.tensors)
        assert_same(law, trace)
        for found in (result, *alone, *together, *twice):
            assert (found.flags, found.bits) == (by_law.flags, by_law.bits), name
            assert all(np.array_equal(found.outputs[key], array) for key, array in by_law.outputs.items()), name


def assert_refused(compiled: Plan, sample: Sample, sentence: str) -> None:
    """Every kernel stops with the sentence of the law, whether it is observed or not, alone or in a batch."""
    three = np.concatenate([sample.codes] * 3)
    for name in kernels():
        with kernel(name):
            attempts: tuple[Callable[[], object], ...] = (
                lambda: execute(compiled, sample, "jit"),
                lambda: list(run(compiled, sample.codes, "jit")),
                lambda: list(run(compiled, sample.codes, "jit", 3)),
                lambda: list(run(compiled, three, "jit", 2)),
            )
            for attempt in attempts:
                with pytest.raises(AccumulatorError) as caught:
                    attempt()
                assert str(caught.value) == sentence, name


@given(samples())
def test_five_engines_give_the_same_tensors(sample: Sample) -> None:
    compiled = plan(sample.graph, WIDE)
    event("dynamic" if sample.graph.dynamic else "static")
    by_law, law = execute(compiled, sample, "spec")
    by_steps, steps = execute(compiled, sample, "numba")
    by_bodies, bodies = execute(compiled, sample, "onnxruntime")
    by_trainer, trainer = execute(compiled, sample, "torch")
    assert set(law.tensors) == set(steps.tensors) == set(trainer.tensors)
    assert_same(law, steps)
    assert_same(law, bodies)
    assert_same(law, trainer)
    assert by_law.flags == by_steps.flags == by_trainer.flags
    assert by_law.bits == by_steps.bits == by_bodies.bits == by_trainer.bits
    assert_native(compiled, sample, by_law, law)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    return replace(
        WIDE,
        accumulator_width=draw(st.one_of(st.integers(8, 16), st.integers(8, 48))),
        overflow=draw(st.sampled_from(Overflow)),
        tap_order=draw(st.sampled_from(TapOrder)),
        bias_width=draw(st.integers(8, 48)),
        rounding=draw(st.sampled_from([None, *Rounding])),
    )


@given(samples(), targets())
def test_spec_and_jit_agree_on_every_target(sample: Sample, target: Target) -> None:
    compiled = plan(sample.graph, target)
    event(f"{target.overflow}, {'proven' if compiled.proven() else 'unproven'}")
    try:
        by_law, law = execute(compiled, sample, "spec")
    except AccumulatorError as error:
        event("refused to overflow")
        assert_refused(compiled, sample, str(error))
        return
    by_steps, steps = execute(compiled, sample, "numba")
    assert set(law.tensors) == set(steps.tensors)
    assert_same(law, steps)
    assert by_law.flags == by_steps.flags
    assert_native(compiled, sample, by_law, law)
    if compiled.proven():
        assert all(flags is None or not flags.saturations + flags.wraps for flags in by_law.flags.values())


@given(samples(most=2), st.data())
def test_replacing_bits_runs_the_same_layers_at_other_widths(sample: Sample, data: st.DataObject) -> None:
    n = sample.graph.arithmetic.master_width
    width = st.integers(1, n)
    rows = [data.draw(st.tuples(width, width)) for _ in sample.graph.layers]
    static = with_bits(sample.graph, rows)
    assert not static.dynamic
    compiled = plan(static, WIDE)
    result, law = execute(compiled, sample, "spec")
    assert list(result.bits) == rows
    assert_same(law, execute(compiled, sample, "jit")[1])
    assert_same(law, execute(compiled, sample, "onnxruntime")[1])


@given(samples())
def test_a_file_says_what_the_graph_said(sample: Sample) -> None:
    model = to_onnx(sample.graph)
    again = to_onnx(from_onnx(model))
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@given(samples(most=3), st.integers(8, 24))
def test_onnxruntime_is_refused_just_where_a_register_could_overflow(sample: Sample, width: int) -> None:
    target = replace(WIDE, accumulator_width=width, overflow=Overflow.WRAP)
    compiled = plan(sample.graph, target)
    try:
        _, bodies = execute(compiled, sample, "onnxruntime")
    except TargetError:
        assert not compiled.proven()
        return
    assert compiled.proven()
    assert_same(execute(compiled, sample, "jit")[1], bodies)


@given(samples(most=3), st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_batch_is_its_samples_side_by_side(sample: Sample, count: int, threads: int, seed: int) -> None:
    """Neither the number of threads nor how a batch is split changes a bit, a width or a flag."""
    compiled = plan(sample.graph, WIDE)
    top = (1 << sample.graph.arithmetic.master_width) - 1
    shape = (count, *sample.codes.shape[1:])
    batch = np.random.default_rng(seed).integers(0, top, shape, np.uint8, endpoint=True)
    together = list(run(compiled, batch, "jit", threads))
    # all results are looked at after the last run: none may lie in memory that a later one uses
    execute = engine(compiled, "jit")
    together += [execute(batch[index : index + 1], ()) for index in range(count)]
    alone = [next(run(compiled, batch[index : index + 1], "spec")) for index in range(count)]
    for one, other in zip(together, alone * 2, strict=True):
        assert one.bits == other.bits
        assert one.flags == other.flags
        assert all(np.array_equal(one.outputs[name], array) for name, array in other.outputs.items())
