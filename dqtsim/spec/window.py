"""Which taps an output reads: the geometry of convolutions and pools (B1, B1', B6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from .rules import TapOrder


@dataclass(frozen=True)
class Window:
    """Kernel, strides, dilations and pads, each (rows, columns); pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the output's rows and columns: floor((in + pads - dilation * (kernel - 1) - 1) / stride) + 1."""
        sizes = (height + self.pads[0] + self.pads[2], width + self.pads[1] + self.pads[3])
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        rows, columns = ((size - r) // stride + 1 for size, r, stride in zip(sizes, reach, self.strides, strict=True))
        return rows, columns

    def positions(self, oy: int, ox: int) -> Iterator[tuple[int, int]]:
        """Yield (row, column) of the taps of output (oy, ox), row by row; padded taps lie outside the picture."""
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                yield (
                    oy * self.strides[0] + ky * self.dilations[0] - self.pads[0],
                    ox * self.strides[1] + kx * self.dilations[1] - self.pads[1],
                )


def gather(
    planes: Sequence[Sequence[Sequence[int]]],
    window: Window,
    oy: int,
    ox: int,
    order: TapOrder,
    padding: Sequence[int] = (),
) -> list[int]:
    """Return the operands under one window of `planes` [channel][row][column], in tap order.

    Padded taps hold the nested zero point, whose operand is exactly 0, or, of each channel, the operand in `padding`.
    """
    outside = padding or [0] * len(planes)
    height, width = len(planes[0]), len(planes[0][0])
    inside = [(y, x) if 0 <= y < height and 0 <= x < width else None for y, x in window.positions(oy, ox)]
    match order:
        case TapOrder.CHANNEL_ROW_COLUMN:
            return [plane[at[0]][at[1]] if at else p for plane, p in zip(planes, outside, strict=True) for at in inside]
        case TapOrder.ROW_COLUMN_CHANNEL:
            return [plane[at[0]][at[1]] if at else p for at in inside for plane, p in zip(planes, outside, strict=True)]
        case _:
            assert_never(order)
