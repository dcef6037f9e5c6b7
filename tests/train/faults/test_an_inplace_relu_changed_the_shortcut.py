"""An operation in place changes what others read, too: a trace that follows names exported the network without that."""

from typing import cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn

from .whole import NEAR, deviations


class Branch(nn.Module):
    """conv(relu(x)) + relu(x), because the ReLU is in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 3)
        self.branch = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return cast(torch.Tensor, self.fc((self.branch(x) + x).flatten(1)))


class Sum(nn.Module):
    """`out += f(out)`, where another name still holds `out`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = before = torch.relu(self.stem(x))
        out += self.one(out)
        return cast(torch.Tensor, self.fc((torch.relu(out) + before).flatten(1)))


def test_both_operands_are_after_the_relu() -> None:
    assert deviations(Branch()) < NEAR


def test_both_names_hold_the_sum() -> None:
    assert deviations(Sum()) < NEAR
