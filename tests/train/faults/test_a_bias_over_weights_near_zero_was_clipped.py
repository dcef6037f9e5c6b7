"""Weights near zero make the bias's step small: B was clipped to 32 bits, and the channel was not its constant."""

from typing import cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn

from .whole import NEAR, deviations, exported, real


class Net(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        with torch.no_grad():
            self.two.weight[2] *= factor
            self.two.bias[2] = 5.0  # type: ignore[index]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3))))


@pytest.mark.parametrize("factor", [1e-3, 1e-6, 0.0])
def test_the_channel_is_its_constant(factor: float) -> None:
    graph = exported(Net(factor))
    assert float((real(graph, "two")[:, 2] - 5.0).abs().max()) < 0.05
    assert int(abs(graph.initializers["two.bias"]).max()) < 2**31 - 1


def test_the_logits_are_the_networks() -> None:
    assert deviations(Net(1e-6)) < NEAR
