"""ResNets: He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016.

ResNet-8 is that of MLPerf Tiny (16-32-64). ResNet-20 has projections where the shape changes. ResNet-50 is v1.5: the
3 x 3 convolution of a bottleneck carries the stride.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from dqtsim.train.networks.blocks import ConvNorm, scaled


class Basic(nn.Module):
    """Two 3 x 3 convolutions beside the identity, or beside a 1 x 1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, channels, 3, stride)
        self.conv2 = ConvNorm(channels, channels, 3)
        self.down = ConvNorm(inputs, channels, 1, stride) if stride != 1 or inputs != channels else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        y = self.conv2(functional.relu(self.conv1(x)))
        shortcut = x if self.down is None else self.down(x)
        return functional.relu(y + shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions, the last with four times the channels, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.conv1 = ConvNorm(inputs, channels, 1)
        self.conv2 = ConvNorm(channels, channels, 3, stride)
        self.conv3 = ConvNorm(channels, outputs, 1)
        self.down = ConvNorm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, I, H, W] to [N, O, H/stride, W/stride]."""
        y = functional.relu(self.conv1(x))
        y = self.conv3(functional.relu(self.conv2(y)))
        shortcut = x if self.down is None else self.down(x)
        return functional.relu(y + shortcut)


class ResNet(nn.Module):
    """A stem, blocks `block1`, `block2`, ... in stages that halve the picture, average pool, classifier."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        channels: Sequence[int],
        counts: Sequence[int],
        classes: int,
        *,
        imagenet: bool = False,
    ) -> None:
        super().__init__()
        inputs = channels[0]
        self.stem = ConvNorm(3, inputs, 7, 2) if imagenet else ConvNorm(3, inputs, 3)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        self.names: list[str] = []
        for stage, (width, count) in enumerate(zip(channels, counts, strict=True)):
            for i in range(count):
                self.names.append(f"block{len(self.names) + 1}")
                self.add_module(self.names[-1], block(inputs, width, 2 if stage and not i else 1))
                inputs = block.expansion * width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float pictures [N, 3, H, W] to logits [N, classes]."""
        x = self.pool(functional.relu(self.stem(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        return cast(torch.Tensor, self.fc(x.mean((2, 3))))


def _channels(counts: Sequence[int], width: float) -> list[int]:
    return [scaled(count, width) for count in counts]


def resnet8(classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-8 for CIFAR-10."""
    return ResNet(Basic, _channels((16, 32, 64), width), (1, 1, 1), classes)


def resnet20(classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-20 for CIFAR-10."""
    return ResNet(Basic, _channels((16, 32, 64), width), (3, 3, 3), classes)


def resnet18(classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-18 with the CIFAR stem: a 3 x 3 convolution without stride or pool."""
    return ResNet(Basic, _channels((64, 128, 256, 512), width), (2, 2, 2, 2), classes)


def resnet18_imagenet(classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-18 with the ImageNet stem: 7 x 7, stride 2, max pool."""
    return ResNet(Basic, _channels((64, 128, 256, 512), width), (2, 2, 2, 2), classes, imagenet=True)


def resnet50(classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-50 v1.5 with the ImageNet stem."""
    return ResNet(Bottleneck, _channels((64, 128, 256, 512), width), (3, 4, 6, 3), classes, imagenet=True)
