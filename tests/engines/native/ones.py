"""A network that may run one bit by one bit, where some kernels count instead of multiplying."""

from typing import Any

import numpy as np

from dqtsim.graph import Graph, GraphBuilder
from tests.builders import Array

CANDIDATES = ((1, 1), (1, 8), (8, 1), (8, 8))


def ones(rule: str) -> Graph:
    """Return two convolutions, the second with an addition, whose widths a controller chooses."""
    random = np.random.default_rng(3)
    b = GraphBuilder("ones", candidates=CANDIDATES, weight_rule=rule)
    common: dict[str, Any] = {"scale": 0.25, "clip": (0, 255)}

    def tables(channels: int, shift: int) -> dict[str, Any]:
        return {
            "bias": random.integers(-9000, 9000, (1, channels)),
            "multiplier": random.integers(1 << 15, 1 << 16, (1, channels)),
            "shift": np.full((1, channels), shift),
            "row_widths": (8,),
        }

    def weight(*shape: int) -> Array:
        return random.integers(0, 256, shape, np.uint8)

    x = b.input("x", (1, 32, 6, 6), zero_point=100, scale=1.0)
    seen = b.average_pool("seen", x, kernel=(3, 3), strides=(3, 3), multiplier=58254, shift=19, zero_point=0, **common)
    flat = b.flatten("flat", seen)
    hidden = b.gemm("hidden", flat, weight=weight(8, 128), **tables(8, 25), zero_point=90, controller=True, **common)
    bias = random.integers(-90, 90, (1, 8))
    b.control(b.logits("scores", hidden, weight=weight(8, 8), bias=bias, row_widths=(8,), controller=True))
    padded: dict[str, Any] = {"pads": (1, 1, 1, 1), "zero_point": 77, **common}
    left = b.conv("left", x, weight=weight(32, 32, 3, 3), **tables(32, 30), **padded)
    right = b.conv("right", left, weight=weight(32, 32, 3, 3), **tables(32, 30), **padded)
    b.output(b.add("sum", right, x, multiplier_a=40000, multiplier_b=30000, shift=17, zero_point=5, **common))
    return b.build()
