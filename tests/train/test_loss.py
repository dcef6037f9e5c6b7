import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.train.controller import decide, sample
from dqtsim.train.loss import bits_cost, information

CANDIDATES = ((2, 2), (4, 4), (8, 8))


def test_expected_bits_is_the_mean_of_probability_times_width() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25]], [[0.25, 0.25, 0.5]]]))
    assert float(bits_cost(1, CANDIDATES, None).loss(logits)) == pytest.approx((4.0 + 5.5) / 2)
    assert float(bits_cost(1, CANDIDATES, 4.0).loss(logits)) == pytest.approx(0.75)


def test_information_rewards_choices_that_differ_between_pictures() -> None:
    same = torch.tensor([[[9.0, 0.0, 0.0]]] * 3)
    apart = torch.eye(3)[:, None] * 20
    assert float(information(same)) == pytest.approx(0, abs=1e-5)
    assert float(information(apart)) == pytest.approx(float(torch.log(torch.tensor(3.0))), abs=1e-3)


def test_a_tie_goes_to_the_lowest_candidate() -> None:
    assert decide(torch.tensor([[[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]])).choice.tolist() == [[0, 1]]


def test_a_sample_is_one_hot_and_soft_backward() -> None:
    logits = torch.zeros((500, 2, 3), requires_grad=True)
    mixed = sample(logits, 1.0, torch.Generator().manual_seed(0))
    assert mixed.explore
    assert torch.equal(mixed.probabilities.argmax(-1), mixed.choice)
    assert set(mixed.probabilities.detach().round(decimals=4).flatten().tolist()) == {0.0, 1.0}
    assert torch.bincount(mixed.choice.flatten()).min() > 250
    torch.autograd.backward(mixed.probabilities[..., 0].sum())
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) > 0
