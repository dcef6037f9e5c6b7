"""TensorFlow's SAME pads more at the end: as ZeroPad2d or functional.pad it could not come from PyTorch."""

from collections.abc import Callable
from typing import cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.nn.functional import pad

from .whole import NEAR, deviations, exported

Padding = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, padding: Padding) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2)
        self.fc, self.padding = nn.Linear(64, 3), padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(torch.relu(self.two(self.padding(torch.relu(self.stem(x))))).flatten(1)))


@pytest.mark.parametrize("padding", [nn.ZeroPad2d((0, 1, 0, 1)), lambda x: pad(x, (0, 1, 0, 1))], ids=["module", "pad"])
def test_the_convolution_has_the_pads(padding: Padding) -> None:
    assert exported(Net(padding)).node("two").integers("pads") == (0, 0, 1, 1)
    assert deviations(Net(padding)) < NEAR
