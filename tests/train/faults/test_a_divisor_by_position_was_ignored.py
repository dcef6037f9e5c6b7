"""avg_pool2d's seventh argument was read by keyword alone: by position, the sum was divided by the window's area."""

from collections.abc import Callable
from typing import cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from .whole import NEAR, deviations

Pool = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, pool: Pool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 3), pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(self.pool(torch.relu(self.stem(x))).flatten(1)))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: avg_pool2d(x, 2, 2, 0, False, True, 1),
        lambda x: avg_pool2d(x, 2, divisor_override=1),
        nn.AvgPool2d(2, divisor_override=1),
    ],
    ids=["position", "keyword", "module"],
)
def test_the_sum_is_divided_by_it(pool: Pool) -> None:
    assert deviations(Net(pool)) < NEAR
