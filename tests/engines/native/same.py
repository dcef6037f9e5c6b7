"""The native engine against the ordinary kernels, by every kernel of this machine, with and without an observer."""

from collections.abc import Sequence

import numpy as np

from dqtsim.engines.native import native
from dqtsim.engines.registry import run, traced
from dqtsim.engines.result import Result
from dqtsim.planner import Plan
from tests.builders import Array
from tests.vectorkernels import kernel, kernels


def same_result(found: Result, expected: Result) -> None:
    """Widths, flags and outputs are equal."""
    assert (found.bits, found.macs, found.bitops) == (expected.bits, expected.macs, expected.bitops)
    assert found.flags == expected.flags
    assert found.outputs.keys() == expected.outputs.keys()
    for name, array in expected.outputs.items():
        assert found.outputs[name].dtype == array.dtype
        assert np.array_equal(found.outputs[name], array), name


def assert_native(
    plan: Plan,
    codes: Array,
    *,
    names: Sequence[str] = kernels(),
    threads: Sequence[int] = (1,),
    whole: bool = True,
    reference: str = "numba",
) -> None:
    """Compare all tensors and flags of one sample; `whole`: no step is left to an ordinary kernel."""
    result, tensors = traced(plan, codes, reference)
    for name in names:
        with kernel(name):
            assert native(plan).program.whole == whole, name
            own, found = traced(plan, codes, "jit")
            assert found.keys() == tensors.keys()
            for key, array in tensors.items():
                assert found[key].dtype == array.dtype, (name, key)
                assert np.array_equal(found[key], array), (name, key)
            same_result(own, result)
            for count in threads:
                same_result(next(run(plan, codes, "jit", count)), result)
