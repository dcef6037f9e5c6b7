"""Calibration: the same whatever the batches, statistics kept, rows and master codes fitted as the equations say."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from dqtsim.errors import InputError, ModelError
from dqtsim.train import NestedConfig, NestingRules, calibrate, export, prepare
from dqtsim.train.calibration.rounding import descend
from dqtsim.train.calibration.rows import Moments
from dqtsim.train.modules.base import Uniform
from dqtsim.train.nested import nested_values
from dqtsim.train.network import NestedNetwork

from .test_prepare import SHAPE, trained

RULES = NestingRules("CENTROID", candidates=((8, 8), (6, 6), (4, 8), (4, 4)))


class Small(nn.Module):
    """A residual block with a depthwise convolution and ReLU6, without a batch norm at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.narrow = nn.Conv2d(16, 8, 1)
        self.last = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.narrow(self.deep(self.wide(x)))
        result: torch.Tensor = self.last(x.mean((2, 3)))
        return result


def shown(count: int = 24) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


_PREPARED: dict[nn.Module, NestedNetwork] = {}


def prepared(model: nn.Module) -> NestedNetwork:
    """Return a copy of what prepare makes of the model, which takes seconds."""
    if model not in _PREPARED:
        _PREPARED[model] = prepare(model, NestedConfig(RULES, SHAPE))
    return copy.deepcopy(_PREPARED[model])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return trained(Small())


def decibels(model: nn.Module, network: NestedNetwork, pair: int) -> float:
    """Signal to noise of the logits against those of the float network."""
    pictures = shown()
    with torch.no_grad():
        wanted = model((pictures.float() - network.zero_point) * network.scale)
        off = network(pictures, Uniform(pair)) - wanted
    return float(10 * torch.log10((wanted - wanted.mean(0)).square().sum() / off.square().sum()))


def test_the_result_does_not_depend_on_how_pictures_are_batched(model: nn.Module) -> None:
    pictures = shown(12)
    whole = calibrate(prepared(model), pictures).state_dict()
    for sizes in ([1] * 12, [5, 7], [11, 1]):
        found = calibrate(prepared(model), list(torch.split(pictures, sizes))).state_dict()
        assert found.keys() == whole.keys()
        assert [name for name in whole if not torch.equal(found[name], whole[name])] == []


def test_all_pictures_count(model: nn.Module) -> None:
    pictures = shown(12)
    few, all_of_them = (calibrate(prepared(model), found).state_dict() for found in (pictures[:11], pictures))
    assert any(not torch.equal(few[name], all_of_them[name]) for name in few if "beta" in name)


def test_statistics_of_a_trained_network_are_kept(model: nn.Module) -> None:
    network = prepared(model)
    before = {layer.name: (layer.running_mean[0], layer.running_var[0]) for layer in network.nested_layers()}
    calibrate(network, shown())
    for layer in network.nested_layers():
        mean, variance = before[layer.name]
        if layer.tracked:
            assert (layer.running_mean == mean).all(), layer.name
            assert (layer.running_var == variance).all(), layer.name


def test_a_network_that_was_never_trained_gets_its_statistics_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = Small().eval()
    network = calibrate(prepared(model), shown())
    assert capsys.readouterr().err == (
        "The batch norms of this network have mean 0 and variance 1: it was never trained. Their statistics are "
        "measured on the calibration pictures.\n"
    )
    values = (shown().float() - network.zero_point) * network.scale
    with torch.no_grad():
        stem = model.stem[0](values)
    # A layer's mean is that before the bias.
    bias = model.get_parameter("stem.0.bias")
    found = next(iter(network.nested_layers())).running_mean[0] + bias
    assert torch.allclose(found, stem.mean((0, 2, 3)), atol=1e-5)


def test_a_trained_network_says_nothing(model: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate(prepared(model), shown(5))
    assert capsys.readouterr() == ("", "")


def test_export_refuses_a_network_that_was_not_calibrated(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        export(prepared(model), shown(1), tmp_path / "no.onnx")
    assert str(raised.value) == "this network was not calibrated; call calibrate(network, batches) before export."
    assert list(tmp_path.iterdir()) == []


def test_a_network_is_calibrated_once(model: nn.Module) -> None:
    network = calibrate(prepared(model), shown(5))
    with pytest.raises(InputError) as raised:
        calibrate(network, shown(5))
    assert str(raised.value) == "this network has been calibrated; calibrate what prepare returns."


@pytest.mark.parametrize("equalized", [False, True])
def test_eight_bits_are_near_float_and_narrower_widths_follow_in_steps(model: nn.Module, equalized: bool) -> None:
    network = calibrate(prepared(model), shown(), equalized=equalized)
    eight, six, mixed, four = (decibels(model, network, k) for k in range(4))
    assert eight >= 24
    assert eight > six > four > 6
    assert eight > mixed > four


def test_a_row_gives_floats_own_values_where_it_can() -> None:
    a = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    factor, constant = torch.tensor([1.5, 0.75, 1.0]), torch.tensor([3.0, -2.0, 0.0])
    wanted = a * factor.reshape(-1, 1, 1) + constant.reshape(-1, 1, 1)
    moments = Moments([a[:4], a[4:]], [wanted[:4], wanted[4:]])
    found = moments.fit(torch.ones(3), fixed=False)
    assert torch.allclose(found[0], factor.double(), atol=1e-6)
    assert torch.allclose(found[1], constant.double(), atol=1e-6)
    assert float(moments.error(*found).abs().max()) < 1e-6


def test_the_factor_of_noisy_accumulators_is_between_least_squares_and_equal_variance() -> None:
    generator = torch.Generator().manual_seed(3)
    wanted, noise = torch.randn(1, 1, 100, 100, generator=generator), torch.randn(1, 1, 100, 100, generator=generator)
    factor, constant = Moments([wanted + noise], [wanted]).fit(torch.ones(1), fixed=False)
    # noise of the signal's own size: least squares 1/2, equal variance 1/sqrt(2)
    assert abs(float(factor) - 0.5**0.75) < 0.01
    assert abs(float(constant)) < 0.03


def test_a_factor_stays_near_the_weights_own_and_a_dead_channel_keeps_it() -> None:
    a = torch.stack([torch.linspace(-1, 1, 50), torch.zeros(50)], 1)
    factor, constant = Moments([a], [a * 10 + 1]).fit(torch.ones(2), fixed=False)
    assert factor.tolist() == [2.0, 1.0]
    assert torch.allclose(constant, torch.ones(2).double())


def objective(codes: torch.Tensor, wanted: torch.Tensor, covariance: torch.Tensor, width: int) -> float:
    error = nested_values(codes.clone(), width, 128, "CENTROID") - wanted
    return float((error @ covariance * error).sum())


def test_descent_lowers_the_error_of_every_width_on_correlated_inputs() -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(200, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    covariance = (inputs.T @ inputs / 200)[None]
    wanted = torch.randn(1, 5, 12, generator=generator) * 30
    nearest = (wanted + 128.5).floor().clamp(0, 255)
    found = descend(nearest, wanted, torch.ones(1, 5, 1), covariance, (4, 6, 8), "CENTROID")
    assert ((found - nearest).abs() > 0).any()
    before, after = ({b: objective(c, wanted, covariance, b) for b in (4, 6, 8)} for c in (nearest, found))
    assert sum(0.7**b * after[b] / before[b] for b in before) < sum(0.7**b for b in before)


def test_descent_ends_where_no_single_code_can_be_better() -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(50, 3, generator=generator)
    covariance = (inputs.T @ inputs / 50)[None]
    wanted = torch.randn(1, 1, 3, generator=generator) * 30
    nearest = (wanted + 128.5).floor()
    found = descend(nearest, wanted, torch.ones(1, 1, 1), covariance, (4,), "CENTROID")
    least = objective(found, wanted, covariance, 4)
    for i in range(3):
        for move in range(-10, 11):
            other = found.clone()
            other[0, 0, i] += move
            assert objective(other, wanted, covariance, 4) >= least * (1 - 1e-5)
