"""Random networks through the circuit, on random targets, with corners in place of their codes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dqtsim.errors import AccumulatorError
from dqtsim.planner import plan
from dqtsim.rtl import cosim, vectors
from dqtsim.rtl.corner import corner
from dqtsim.spec.rules import Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode, Target, load_target
from tests.networks import Sample, samples
from tests.rtl.conftest import need


@st.composite
def targets(draw: st.DrawFn) -> Target:
    return replace(
        load_target("mult31"),
        accumulator_width=draw(st.integers(8, 48)),
        overflow=draw(st.sampled_from(Overflow)),
        tap_order=draw(st.sampled_from(TapOrder)),
        rounding=draw(st.sampled_from([None, *Rounding])),
        bias_width=draw(st.integers(8, 48)),
        rows=draw(st.integers(1, 5)),
        columns=draw(st.integers(1, 5)),
        mode=draw(st.sampled_from(ArrayMode)),
    )


@settings(max_examples=8)
@given(samples(most=1), targets(), st.integers(0, 99))
def test_random_networks(sample: Sample, target: Target, seed: int) -> None:
    need("icarus")
    compiled = plan(sample.graph, target)
    try:
        recorded = vectors.record(compiled, sample.codes)
        recorded += [corner(compiled, vector, seed) for vector in recorded]
    except AccumulatorError:
        return
    hardware = vectors.parameters(compiled)
    bench = cosim.build(hardware, recorded, "icarus")
    assert [cosim.simulate(bench, hardware, vector).fault for vector in recorded] == [""] * len(recorded)
