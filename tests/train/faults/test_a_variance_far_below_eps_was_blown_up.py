"""A channel of tiny variance is constant in float, because of batch norm's eps: integers made noise of it."""

from typing import cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn

from .whole import exported, floats, pictures, real


class Net(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(4, eps=1e-3, momentum=None), nn.Linear(4, 3)
        with torch.no_grad():
            self.two.weight[2] *= factor
            self.norm.bias[2] = 0.7
            self(floats(pictures()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(torch.relu(self.norm(self.two(self.one(x)))).mean((2, 3))))


@pytest.mark.parametrize("factor", [1e-3, 1e-6])
def test_the_channel_is_beta(factor: float) -> None:
    model = Net(factor)
    assert float(model.norm.running_var[2]) < 1e-5  # type: ignore[index]
    channel = real(exported(model), "two")[:, 2]
    assert float((channel - 0.7).abs().max()) < 0.1
