"""The column of ones of a layer: U, the sum of the operands of the activations over each window (B2')."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from .. import spec
from ..graph.model import Array
from ..ops.operator import Machine
from ..spec.rules import Nesting


def has_column_of_ones(weight_rule: Nesting) -> bool:
    """Return whether the circuit adds the operands of the activations, to take half a weight step off them (B2')."""
    match weight_rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return False
        case Nesting.CENTROID:
            return True
        case _:
            assert_never(weight_rule)


def column_sums(config: Mapping[str, int], x: Array, padding: Array, j: int, machine: Machine) -> Array:
    """Return U, int64 (groups, rows, columns), by the law; it is below 2^(n + 16) in magnitude.

    `x` uint8 (C, H, W) or (C): master codes; `padding` uint8 (C): those of padded taps; `j`: the window (A6).
    """
    n, z, b = machine.n, config["z_x"], config["b_a"]
    operands = [spec.window_operand(q, z, b, j, n, machine.activation_rule) for q in range(1 << n)]
    of_code = np.array(operands, np.int64)
    groups, rows, columns = (config[name] for name in ("groups", "out_height", "out_width"))
    height, width = config["height"], config["width"]
    # how far the last window reaches; what strides leave over is not read
    reach_y, reach_x = (
        (config[out] - 1) * config[stride] + (config[kernel] - 1) * config[dilation] + 1
        for out, stride, kernel, dilation in (
            ("out_height", "stride_y", "kernel_y", "dilation_y"),
            ("out_width", "stride_x", "kernel_x", "dilation_x"),
        )
    )
    top, left = config["pad_top"], config["pad_left"]
    channels = len(padding)
    planes = np.empty((channels, max(reach_y, top + height), max(reach_x, left + width)), np.int64)
    planes[:] = of_code[padding][:, None, None]
    planes[:, top : top + height, left : left + width] = of_code[x].reshape(channels, height, width)
    by_group = planes.reshape(groups, channels // groups, *planes.shape[1:]).sum(1)
    sums = np.zeros((groups, rows, columns), np.int64)
    for ky in range(config["kernel_y"]):
        for kx in range(config["kernel_x"]):
            y, at = ky * config["dilation_y"], kx * config["dilation_x"]
            sums += by_group[:, y :: config["stride_y"], at :: config["stride_x"]][:, :rows, :columns]
    return sums
