"""One row: exact lines are found exactly, noise has its share, and channels that no line fits are held."""

import numpy as np
import numpy.typing as npt
import pytest

from dqtsim.calibration.fit import Moments, Row, fit
from dqtsim.errors import ModelError

SUMS = np.array([[-300, 5, 70, 1000]])


def reference(bias: int = 0, multiplier: int = 1 << 15, shift: int = 23) -> Row:
    """A row of one channel; its factor is 2^-8 unless a test says otherwise."""
    return Row(*(np.array([value]) for value in (bias, multiplier, shift)))


def fitted(sums: npt.ArrayLike, targets: npt.ArrayLike, row: Row) -> tuple[int, ...]:
    """Bias, multiplier and shift of the fitted row."""
    found = fit(Moments.of(np.asarray(sums), np.asarray(targets, np.float64)), row, "conv")
    return tuple(int(part[0]) for part in (found.bias, found.multiplier, found.shift) if part is not None)


def test_an_exact_line_is_found() -> None:
    assert fitted(SUMS, 3 * 2.0**-9 * (SUMS + 77), reference()) == (77, 3 << 14, 23)


def test_noise_makes_a_factor_between_least_squares_and_equal_variance() -> None:
    signal, noise = np.array([[512, 512, -512, -512]]), np.array([[512, -512, 512, -512]])
    # least squares would halve the factor, equal variance divide it by the root of 2
    assert fitted(signal + noise, 2.0**-8 * signal, reference()) == (0, round(2**16 * 2**-0.75), 24)


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    targets = 2.0**-9 * (SUMS - 8)
    parts = Moments.of(SUMS[:, :1], targets[:, :1]) + Moments.of(SUMS[:, 1:], targets[:, 1:])
    assert np.array_equal(parts.line(reference().factor, fixed=False), ([2.0**-9], [-8 * 2.0**-9]))


@pytest.mark.parametrize(("slope", "shift"), [(0.0, 24), (2.0**-12, 24), (2.0**-9, 24), (2.0**-7, 22), (1.0, 22)])
def test_a_factor_is_at_most_twice_or_half_the_reference(slope: float, shift: int) -> None:
    joint = slope * SUMS + 1e-9 * SUMS
    assert fitted(SUMS, joint, reference())[1:] == (1 << 15, shift)


@pytest.mark.parametrize(
    ("sums", "targets"), [([[5, 5, 5]], [[1.0, 2.0, 3.0]]), ([[1, 2, 3]], [[3.0, 2.0, 1.0]]), ([[0]], [[2.0]])]
)
def test_a_channel_without_a_slope_keeps_the_factor_and_gets_the_mean(
    sums: list[list[int]], targets: list[list[float]]
) -> None:
    bias = round(np.mean(targets) * 256 - np.mean(sums))
    assert fitted(sums, targets, reference()) == (bias, 1 << 15, 23)


def test_a_channel_of_factor_zero_keeps_its_row() -> None:
    assert fitted(SUMS, SUMS * 0, reference(bias=9, multiplier=0, shift=4)) == (9, 0, 4)


def test_a_bias_that_would_not_fit_keeps_the_factor() -> None:
    row = reference(bias=2**31 - 2000, multiplier=1 << 15, shift=31)
    targets = row.targets(SUMS) - row.targets(SUMS).mean()
    # half the slope needs twice the bias
    assert fitted(SUMS, targets / 2 + row.targets(SUMS).mean(), row)[1:] == (1 << 15, 31)


def test_a_bias_past_32_bits_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        fitted(SUMS, SUMS * 2.0**-8 + 2.0**24, reference())
    assert str(caught.value) == "a bias has 32 bits; output channel 0 of layer 'conv' would need 4.295e+09."


def test_logits_get_the_mean_difference() -> None:
    row = Row(np.array([50, -7]))
    sums = np.array([[10, 20], [1, 2]])
    found = fit(Moments.of(sums, row.targets(sums + np.array([[3], [-4]]))), row, "fc")
    assert (found.bias.tolist(), found.multiplier, found.shift) == ([53, -11], None, None)


def test_the_bias_of_the_reference_is_the_one_that_its_register_holds() -> None:
    assert Row(np.array([2**40])).targets(np.array([[1]])).tolist() == [[2.0**31]]


def test_the_bias_refers_to_the_factor_as_it_is_written() -> None:
    sums = SUMS + 10**6
    targets = 1.23456789 * 2.0**-8 * sums
    found = fit(Moments.of(sums, targets), reference(), "conv")
    # on average the row is off by the rounding of B alone
    assert abs(float((found.targets(sums) - targets).mean())) <= float(found.factor[0]) / 2
