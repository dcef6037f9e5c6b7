"""Adapted master codes: narrow pairs gain, 8 bits stay, the same every time, and exact in every engine."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from torch import nn

from dqtsim.cli import main
from dqtsim.errors import InputError
from dqtsim.train import NestedConfig, NestingRules, calibrate, export, prepare
from dqtsim.train.calibration import descent
from dqtsim.train.calibration.descent import CodeArray, Reals
from dqtsim.train.modules.base import Uniform
from dqtsim.train.network import NestedNetwork

from .test_calibration import RULES, Small, shown
from .test_prepare import SHAPE, trained

REACH = 16
# Calibrated on the first, measured on the others.
PICTURES = shown(192)
FIRST, OTHERS = PICTURES[:128], PICTURES[128:]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return trained(Small())


@pytest.fixture(scope="module")
def network(model: nn.Module) -> NestedNetwork:
    return prepare(model, NestedConfig(RULES, SHAPE))


@pytest.fixture(scope="module")
def adapted(network: NestedNetwork) -> NestedNetwork:
    return calibrate(copy.deepcopy(network), FIRST, adapt=3)


def decibels(network: NestedNetwork, pictures: torch.Tensor, pair: int) -> float:
    """Signal to noise of the logits against those of the float network."""
    with torch.no_grad():
        wanted = network.activations(pictures)[network.classifier]
        off = network(pictures, Uniform(pair)) - wanted
    return float(10 * torch.log10((wanted - wanted.mean(0)).square().sum() / off.square().sum()))


def test_narrow_pairs_gain_and_eight_bits_lose_less_than_a_decibel(
    network: NestedNetwork, adapted: NestedNetwork
) -> None:
    plain = calibrate(copy.deepcopy(network), FIRST)
    for pictures in (FIRST, OTHERS):
        gained = [decibels(adapted, pictures, k) - decibels(plain, pictures, k) for k in range(4)]
        eight, six, mixed, four = gained
        assert mixed > 0.4, gained
        assert four > -0.1, gained
        assert six > -0.3, gained
        assert eight > -1, gained


def test_the_result_is_the_same_every_time_however_pictures_come_in_batches(
    network: NestedNetwork, adapted: NestedNetwork
) -> None:
    again = calibrate(copy.deepcopy(network), torch.split(FIRST, [1, 100, 27]), adapt=3).state_dict()
    found = adapted.state_dict()
    assert [name for name in found if not torch.equal(found[name], again[name])] == []


def test_every_engine_agrees_on_what_is_exported(adapted: NestedNetwork, tmp_path: Path) -> None:
    export(adapted, PICTURES[:1], tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", OTHERS[0].numpy())
    for bits in ("8", "6", "w4a8", "4"):
        engines = "spec,numba,native,torch,onnxruntime"
        words = ["compare", str(tmp_path / "net.onnx"), "--input", str(tmp_path / "x.npy"), "--bits", bits]
        result = CliRunner().invoke(main, [*words, "--engines", engines])
        assert (result.exit_code, result.stdout.count(": 0 different")) == (0, 4), result.output


def test_the_statistics_and_what_is_pinned_stay(network: NestedNetwork, adapted: NestedNetwork) -> None:
    plain = calibrate(copy.deepcopy(network), FIRST)
    for one, other in zip(plain.nested_layers(), adapted.nested_layers(), strict=True):
        assert torch.equal(one.running_mean, other.running_mean)
        assert torch.equal(one.running_var, other.running_var)
        assert torch.equal(one.weight, other.weight) == (one.layer is None), one.name


def test_progress_says_what_each_layer_gained(network: NestedNetwork) -> None:
    said: list[str] = []
    calibrate(copy.deepcopy(network), PICTURES[:5], adapt=1, progress=said.append)
    lines = [line for line in said if not line.startswith("fitting")]
    assert [line.split()[0] for line in lines] == ["wide", "deep", "narrow", "last"]
    assert re.fullmatch(r"wide adapted, dB: w8a8 [+-]\d\.\d\d, w6a6 [+-].*, w4a8 [+-].*, w4a4 [+-]\d\.\d\d", lines[0])
    assert lines[3] == "last stays as it was"


def test_a_round_is_refused_where_nothing_could_gain(model: nn.Module, network: NestedNetwork) -> None:
    with pytest.raises(InputError) as raised:
        calibrate(copy.deepcopy(network), PICTURES[:5], adapt=-1)
    assert str(raised.value) == "adapt must be 0 or more, but is -1."
    wide = prepare(model, NestedConfig(NestingRules(candidates=((8, 8), (7, 7))), SHAPE))
    with pytest.raises(InputError) as raised:
        calibrate(wide, PICTURES[:5], adapt=1)
    assert str(raised.value) == "there is nothing to adapt: no pair of widths has a width of 6 bits or fewer."
    assert calibrate(wide, PICTURES[:5]).calibrated


def test_a_round_ends_where_its_own_model_of_the_cost_is_lower() -> None:
    generator = np.random.default_rng(3)
    inputs = generator.normal(size=(2, 1, 40, 5)) @ generator.normal(size=(5, 5))
    found = np.einsum("pbsi,pbsj->bpij", inputs, inputs).astype(np.float32) / 40
    codes = generator.integers(100, 150, (1, 3, 5), np.uint8)
    wanted = (codes - 128 + generator.normal(size=codes.shape) * 6).astype(np.float32)
    operands = np.stack([np.arange(256) - 128, (np.arange(256) >> 4) * 16 + 7.5 - 128]).astype(np.float32)
    share = np.array([[[1.0, 0.2]] * 3], np.float32)

    def errors(codes: CodeArray) -> Reals:
        return np.stack([table[codes] - wanted for table in operands], 2).astype(np.float32)

    def cost(codes: CodeArray) -> float:
        return float(np.einsum("bopi,bpij,bopj,bop->", errors(codes), found, errors(codes), share))

    slope = np.einsum("bopi,bpij->bopj", errors(codes), found).astype(np.float32)
    moved = codes.copy()
    descent.descend(moved, slope, found, share, operands, reach=REACH, sweeps=1, threads=2)
    assert (moved != codes).any()
    assert cost(moved) < cost(codes)
    # what followed is the slope of where the codes are now
    assert np.allclose(slope, np.einsum("bopi,bpij->bopj", errors(moved), found), rtol=1e-4, atol=1e-2)


def test_a_single_code_moves_to_the_best_of_its_neighbours() -> None:
    operands = np.stack([np.arange(256) - 128, (np.arange(256) >> 4) * 16 + 7.5 - 128]).astype(np.float32)
    found, share = np.array([[[[2.0]], [[0.5]]]], np.float32), np.array([[[1.0, 3.0]]], np.float32)
    for start, wanted in ((120, -3.25), (100, -20.0), (3, -140.0), (250, 60.0)):
        cost = share[0, 0] @ (found[0, :, 0, 0, None] * (operands - wanted) ** 2)
        near = range(max(0, start - REACH), min(255, start + REACH) + 1)
        codes = np.full((1, 1, 1), start, np.uint8)
        slope = (found[0, :, 0] * (operands[:, [start]] - wanted))[None, None].astype(np.float32)
        descent.descend(codes, slope, found, share, operands, reach=REACH, sweeps=1, threads=1)
        assert cost[codes[0, 0, 0]] == min(cost[code] for code in near)
