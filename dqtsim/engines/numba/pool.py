"""Pools (B6, B6')."""

from ...graph.model import Array
from ...numbers import RoundingNumber
from .compile import kernel
from .requantize import shift_right


@kernel
def average_pool(
    x: Array,
    kernel_shape: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int],
    zeros: tuple[int, int],
    multipliers: Array,
    s: int,
    low: int,
    high: int,
    rounding: RoundingNumber,
    out: Array,
) -> None:
    """Write the pooled codes of `x` uint8 (C, H, W) into `out` (C, OH, OW); `pads` are top and left.

    `multipliers` int64 (OH, OW), or (1, 1) for all positions.
    """
    everywhere = multipliers.size == 1
    height, width = x.shape[1], x.shape[2]
    for c in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                y, x0 = oy * strides[0] - pads[0], ox * strides[1] - pads[1]
                total = 0
                for row in range(max(y, 0), min(y + kernel_shape[0], height)):
                    for column in range(max(x0, 0), min(x0 + kernel_shape[1], width)):
                        total += x[c, row, column] - zeros[0]
                multiplier = multipliers[0, 0] if everywhere else multipliers[oy, ox]
                code = zeros[1] + shift_right(total * multiplier, s, rounding)
                out[c, oy, ox] = max(low, min(high, code))


@kernel
def max_pool(
    x: Array,
    kernel_shape: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int],
    out: Array,
) -> None:
    """Write the largest codes of `x` uint8 (C, H, W) into `out` (C, OH, OW); padded taps do not take part."""
    height, width = x.shape[1], x.shape[2]
    for c in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                largest = 0
                for ky in range(kernel_shape[0]):
                    row = oy * strides[0] + ky * dilations[0] - pads[0]
                    if 0 <= row < height:
                        for kx in range(kernel_shape[1]):
                            column = ox * strides[1] + kx * dilations[1] - pads[1]
                            if 0 <= column < width:
                                largest = max(largest, x[c, row, column])
                out[c, oy, ox] = largest
