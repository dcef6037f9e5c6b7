"""MobileNetV2, width 1.0, after table 2 of its paper.

Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018.
"""

from ..graph.builder import Tensor
from .layers import Sketch

# expansion, output channels, blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST = 1280


def mobilenetv2(sketch: Sketch) -> None:
    """Add MobileNetV2: stem, inverted residuals, last 1 x 1 convolution, classifier."""
    x = sketch.stem(sketch.input, 32, kernel=3, stride=2)
    sketch.control(x, sum(count * (2 if expansion == 1 else 3) for expansion, _, count, _ in _STAGES) + 2)
    for stage, (expansion, outputs, count, first) in enumerate(_STAGES, 1):
        for block in range(count):
            stride = first if block == 0 else 1
            x = _inverted_residual(sketch, f"stage{stage}.block{block + 1}", x, expansion, outputs, stride)
    sketch.classify(sketch.conv("last", x, _LAST, kernel=1))


def _inverted_residual(sketch: Sketch, name: str, x: Tensor, expansion: int, outputs: int, stride: int) -> Tensor:
    hidden = x.shape[1] * expansion
    y = x if expansion == 1 else sketch.conv(f"{name}.expand", x, hidden, kernel=1)
    y = sketch.conv(f"{name}.depthwise", y, hidden, kernel=3, stride=stride, group=hidden)
    y = sketch.conv(f"{name}.project", y, outputs, kernel=1, relu=False)
    if stride == 1 and x.shape[1] == outputs:
        return sketch.add(f"{name}.add", x, y, relu=False)
    return y
