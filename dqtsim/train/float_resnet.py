"""ResNet-8 (MLPerf Tiny) in floating point: the network that nested training starts from."""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

GAMMA_FLOOR = 1e-3
CHANNELS = (16, 32, 64)


class PositiveBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose scale is |gamma|, at least GAMMA_FLOOR: a folded multiplier M (B4) is unsigned."""

    def positive_weight(self) -> torch.Tensor:
        """The scale really used: float32 [C], positive."""
        return self.weight.abs().clamp_min(GAMMA_FLOOR)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise [N, C, H, W] with batch statistics in training, running ones otherwise."""
        if self.running_mean is None or self.running_var is None:
            raise RuntimeError("batch norm without running statistics")
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.positive_weight(), self.bias,
            self.training, self.momentum or 0.1, self.eps,
        )  # fmt: skip


class FloatConv(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = PositiveBatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        return cast(torch.Tensor, self.norm(self.conv(x)))


class FloatBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FloatConv(inputs, outputs, 3, stride)
        self.conv2 = FloatConv(outputs, outputs, 3, 1)
        self.down = FloatConv(inputs, outputs, 1, stride) if stride != 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        y = self.conv2(functional.relu(self.conv1(x)))
        shortcut = x if self.down is None else self.down(x)
        return functional.relu(y + shortcut)


class FloatResNet8(nn.Module):
    """Stem 3x3x16, three blocks 16-32-64, global average pool, linear classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = FloatConv(3, CHANNELS[0], 3, 1)
        self.block1 = FloatBlock(CHANNELS[0], CHANNELS[0], 1)
        self.block2 = FloatBlock(CHANNELS[0], CHANNELS[1], 2)
        self.block3 = FloatBlock(CHANNELS[1], CHANNELS[2], 2)
        self.fc = nn.Linear(CHANNELS[2], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float pictures [N, 3, H, W] to logits [N, classes]."""
        x = functional.relu(self.stem(x))
        x = self.block3(self.block2(self.block1(x)))
        return cast(torch.Tensor, self.fc(x.mean((2, 3))))
