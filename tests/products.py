"""A network with products of codes (B10): a squeeze-and-excite block, a product of branches, one of flat tensors."""

from typing import Any

import numpy as np

from dqtsim.graph import Graph, GraphBuilder, Tensor

from .builders import Array, rows_of, tabled


def products(*, channels: int = 3, width: int = 5, n: int = 8, seed: int = 0, rounding: str = "TIES_UP") -> Graph:
    """Return a network on codes 'x' (channels, 6, width); a convolution with a border reads what 'gated' gives."""
    random = np.random.default_rng(seed)
    b = GraphBuilder("products", master_width=n, rounding=rounding, candidates=((2, 2), (n, n)))
    top = (1 << n) - 1
    common: dict[str, Any] = {"scale": 0.5, "clip": (0, top)}

    def weight(*shape: int) -> Array:
        return random.integers(0, 1 << n, shape, np.uint8)

    def conv(name: str, x: Tensor, size: int, zero_point: int) -> Tensor:
        rows: dict[str, Any] = {"bias": rows_of(5, 1, channels), "multiplier": rows_of(40000, 1, channels)}
        rows["shift"] = rows_of(12 + n + size, 1, channels)
        geometry: dict[str, Any] = {"pads": (size // 2,) * 4, "row_widths": (n,), "zero_point": zero_point}
        return b.conv(name, x, weight=weight(channels, channels, size, size), **rows, **geometry, **common)

    def multiply(name: str, one: Tensor, other: Tensor, zero_point: int) -> Tensor:
        return b.multiply(name, one, other, multiplier=50000, shift=14 + n, zero_point=zero_point, **common)

    x = b.input("x", (1, channels, 6, width), zero_point=3, scale=0.1)
    stem = conv("stem", x, 3, top // 2)
    mean = b.average_pool(
        "mean", stem, kernel=(6, width), strides=(1, 1), multiplier=40000, shift=18, zero_point=2, **common
    )
    gate = tabled(b, "gate", conv("excite", mean, 1, 1), sorted(weight(1 << n).tolist()), zero_point=0)
    gated = multiply("gated", stem, gate, top // 2)
    both = multiply("both", conv("branch", gated, 3, 1), gated, 1)
    flat = b.flatten("flat", b.max_pool("widest", both, kernel=(2, 2), strides=(2, 2)))
    square = multiply("square", flat, flat, 0)
    for result in (gated, both, square):
        b.output(result)
    b.output(b.logits("result", square, weight=weight(3, flat.shape[1]), bias=[[1, 2, 3]], row_widths=(n,)))
    return b.build([(2, n), (n, n), (n, 2), (n, n)])
