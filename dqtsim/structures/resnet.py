"""ResNets: He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016.

ResNet-50 is v1.5: the 3 x 3 convolution of a bottleneck carries the stride. ResNet-8 is that of MLPerf Tiny (16-32-64).
"""

from collections.abc import Sequence

from ..graph.builder import Tensor
from .layers import Sketch


def resnet8(sketch: Sketch) -> None:
    """Add ResNet-8 for CIFAR-10."""
    _basic(sketch, _cifar_stem(sketch, 16), (16, 32, 64), (1, 1, 1))


def resnet20(sketch: Sketch) -> None:
    """Add ResNet-20 for CIFAR-10, with projection shortcuts where the shape changes."""
    _basic(sketch, _cifar_stem(sketch, 16), (16, 32, 64), (3, 3, 3))


def resnet18(sketch: Sketch) -> None:
    """Add ResNet-18 with the CIFAR stem: a 3 x 3 convolution without stride or pool."""
    _basic(sketch, _cifar_stem(sketch, 64), (64, 128, 256, 512), (2, 2, 2, 2))


def resnet18_imagenet(sketch: Sketch) -> None:
    """Add ResNet-18 with the ImageNet stem."""
    _basic(sketch, sketch.stem(sketch.input, 64, kernel=7, stride=2), (64, 128, 256, 512), (2, 2, 2, 2), pool=True)


def resnet50(sketch: Sketch) -> None:
    """Add ResNet-50 v1.5 with the ImageNet stem."""
    blocks = (3, 4, 6, 3)
    stem = sketch.stem(sketch.input, 64, kernel=7, stride=2)
    sketch.control(stem, 3 * sum(blocks) + len(blocks) + 1)
    x = sketch.max_pool("stem.pool", stem)
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for block in range(count):
            x = _bottleneck(sketch, f"stage{stage}.block{block + 1}", x, width, 2 if stage > 1 and block == 0 else 1)
    sketch.classify(x)


def _cifar_stem(sketch: Sketch, width: int) -> Tensor:
    return sketch.stem(sketch.input, width, kernel=3, stride=1)


def _basic(sketch: Sketch, stem: Tensor, widths: Sequence[int], blocks: Sequence[int], *, pool: bool = False) -> None:
    """Add stages of two-convolution blocks and the classifier."""
    sketch.control(stem, 2 * sum(blocks) + len(widths) - 1 + 1)
    x = sketch.max_pool("stem.pool", stem) if pool else stem
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
        for block in range(count):
            name, stride = f"stage{stage}.block{block + 1}", 2 if stage > 1 and block == 0 else 1
            y = sketch.conv(f"{name}.conv1", x, width, kernel=3, stride=stride)
            y = sketch.conv(f"{name}.conv2", y, width, kernel=3, relu=False)
            x = sketch.add(f"{name}.add", y, _shortcut(sketch, name, x, width, stride))
    sketch.classify(x)


def _bottleneck(sketch: Sketch, name: str, x: Tensor, width: int, stride: int) -> Tensor:
    y = sketch.conv(f"{name}.conv1", x, width, kernel=1)
    y = sketch.conv(f"{name}.conv2", y, width, kernel=3, stride=stride)
    y = sketch.conv(f"{name}.conv3", y, 4 * width, kernel=1, relu=False)
    return sketch.add(f"{name}.add", y, _shortcut(sketch, name, x, 4 * width, stride))


def _shortcut(sketch: Sketch, name: str, x: Tensor, outputs: int, stride: int) -> Tensor:
    if stride == 1 and x.shape[1] == outputs:
        return x
    return sketch.conv(f"{name}.down", x, outputs, kernel=1, stride=stride, relu=False)
