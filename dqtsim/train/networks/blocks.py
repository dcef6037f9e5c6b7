"""Shared parts of the networks."""

from typing import cast

import torch
from torch import nn


class ConvNorm(nn.Module):
    """Convolution without bias and 'same' padding, then batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        return cast(torch.Tensor, self.norm(self.conv(x)))


def scaled(channels: int, width: float) -> int:
    """A channel count times `width`: a multiple of 4, at least 4."""
    return max(4, 4 * round(channels * width / 4))
