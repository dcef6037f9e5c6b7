"""Layers of few taps, which the kernel `amx` leaves to vectors."""

import numpy as np
import pytest

from dqtsim.engines.native.lower.tiles import LEAST_EIGHTHS
from dqtsim.engines.registry import run, traced
from tests.builders import compiled
from tests.vectorkernels import kernel

from .matrices import Layer, modes, only_amx
from .same import same_result

pytestmark = only_amx


@pytest.mark.parametrize(
    ("channels", "window", "mode"),
    [(3, (3, 3), "vectors"), (12, (1, 3), "vectors"), (36, (1, 1), "vectors"), (40, (1, 1), ""), (20, (1, 2), "")],
)
@pytest.mark.parametrize("outputs", [1, 16, 33, 80, 130])
@pytest.mark.parametrize("pixels", [2, 6, 13, 48])
def test_layers_of_few_taps_are_left_to_vectors(
    channels: int, window: tuple[int, int], mode: str, outputs: int, pixels: int
) -> None:
    """Up to 36 bytes; the tiles of vectors are others, and all that is compiled of them is there."""
    layer = Layer(channels, outputs, (4, pixels), window)
    plan = compiled(layer.graph())
    with kernel("amx", least_eighths=LEAST_EIGHTHS):
        found = [traced(plan, layer.codes(), "jit"), *((r, {}) for r in run(plan, layer.codes(), "jit", 3))]
        assert (modes(plan) == ["vectors"]) == (mode == "vectors")
    result, tensors = traced(plan, layer.codes(), "numba")
    for own, seen in found:
        same_result(own, result)
        for name, array in seen.items():
            assert np.array_equal(array, tensors[name]), name
    assert found[0][1].keys() == tensors.keys()
