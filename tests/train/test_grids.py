"""Ends and zero points of activations: what a nearer end costs is counted on all values, whatever their size."""

import pytest
import torch

from dqtsim.train import steps
from dqtsim.train.calibration.ranges import Reads, fit_grid
from dqtsim.train.modules.pointwise import NestedRescale
from dqtsim.train.rules import MASTER_WIDTH


def step_of(values: torch.Tensor, *, positive: bool = True, widths: tuple[int, ...] = (MASTER_WIDTH,)) -> float:
    """Return 255 times the step of a rectified tensor [N, C, ...], its grid's end."""
    step = steps.Rectify("x", ("input",), tuple(values.shape[1:]), positive, steps.Activation(positive))
    module = NestedRescale(step)
    fit_grid(module, [values], None, Reads(frozenset(widths), None, "FLOOR"))
    return float(module.step().item()) * 255


def even(count: int = 100_000) -> torch.Tensor:
    """Return values from 0 to 1, mixed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return (order.float() / (count - 1)).reshape(1, 1, -1, 100)


def test_even_values_keep_their_end() -> None:
    assert step_of(even()) == pytest.approx(1, abs=0.01)


def test_one_value_far_away_is_cut_off() -> None:
    values = even(2_000_000)
    values[0, 0, 0, 0] = 30.0
    # at 30 the error would be (30 / 255)^2 / 12, which is more than 18^2 / 2,000,000 and (12 / 255)^2 / 12 together
    assert step_of(values) < 15


def test_a_value_that_no_sample_holds_is_counted() -> None:
    values = even()
    # cut off at 1, its error alone would be 10^10 / 10^5 on average
    values[0, 0, 7, 3] = 1e5
    assert step_of(values) == pytest.approx(1e5)


@pytest.mark.parametrize("size", [1e-15, 1e-6, 1e6])
def test_the_size_of_values_does_not_matter(size: float) -> None:
    values = even()
    values[0, 0, 0, 0] = 30.0
    assert step_of(values * size) == pytest.approx(step_of(values) * size, rel=1e-4, abs=0)


def test_all_zeros_have_some_grid() -> None:
    assert step_of(torch.zeros(1, 1, 10, 10)) > 0
