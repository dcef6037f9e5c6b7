"""MobileNetV2: Sandler et al., *Inverted Residuals and Linear Bottlenecks*, CVPR 2018, table 2."""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from dqtsim.train.networks.blocks import ConvNorm, scaled

# expansion, output channels, blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


class InvertedResidual(nn.Module):
    """1 x 1 expansion, 3 x 3 depthwise, 1 x 1 projection without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNorm(inputs, hidden, 1) if expansion != 1 else None
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return cast(torch.Tensor, x + y if self.shortcut else y)


class MobileNetV2(nn.Module):
    """Stem with stride 2, inverted residuals `block1`, `block2`, ..., last 1 x 1 convolution, pool, classifier."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        inputs = scaled(_STEM, width)
        self.stem = ConvNorm(3, inputs, 3, 2)
        self.names: list[str] = []
        for expansion, channels, count, first in _STAGES:
            for i in range(count):
                outputs = scaled(channels, width)
                self.names.append(f"block{len(self.names) + 1}")
                self.add_module(self.names[-1], InvertedResidual(inputs, outputs, expansion, 1 if i else first))
                inputs = outputs
        self.last = ConvNorm(inputs, scaled(_LAST, width), 1)
        self.fc = nn.Linear(scaled(_LAST, width), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float pictures [N, 3, H, W] to logits [N, classes]."""
        x = functional.relu6(self.stem(x))
        for name in self.names:
            x = getattr(self, name)(x)
        x = functional.relu6(self.last(x))
        return cast(torch.Tensor, self.fc(x.mean((2, 3))))


def mobilenetv2(classes: int, width: float = 1.0) -> nn.Module:
    """MobileNetV2 of the paper, for pictures from 32 pixels."""
    return MobileNetV2(classes, width)
