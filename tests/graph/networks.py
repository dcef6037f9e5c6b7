"""Small networks with every operator, random arrays and awkward parameters."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dqtsim.graph import Graph, GraphBuilder
from dqtsim.graph.builder import Tensor

Array = npt.NDArray[Any]
Widths = tuple[int, int]


class Drawer:
    """Draws the arrays of layers; multipliers are normalised to 16 bits, zero points and clips are awkward."""

    def __init__(
        self,
        builder: GraphBuilder,
        seed: int,
        row_widths: tuple[int, ...],
        row_pairs: tuple[Widths, ...] = (),
        lowered: bool = False,
    ) -> None:
        self.builder = builder
        self.random = np.random.default_rng(seed)
        self.rows: dict[str, Any] = {"row_pairs": row_pairs} if row_pairs else {"row_widths": row_widths}
        self.n = builder.arithmetic.master_width
        self.lowered = lowered

    def windows(self) -> dict[str, Any]:
        """Return windows that lower each width by some bits, if this network has any."""
        most = [0, *range(self.n - 1, -1, -1)]
        return {"windows": self.random.integers(0, most, endpoint=True)} if self.lowered else {}

    def weight(self, *shape: int) -> Array:
        return self.random.integers(0, 1 << self.n, shape, np.uint8)

    def tables(self, channels: int, taps: int) -> dict[str, Any]:
        """Return bias, multiplier and shift rows that bring sums of `taps` products back into the code range."""
        shape = (sum(map(len, self.rows.values())), channels)
        spread = 15 + self.n - 1 + taps.bit_length() // 2
        return {
            "bias": self.random.integers(-(1 << (2 * self.n - 2)), 1 << (2 * self.n - 2), shape),
            "multiplier": self.random.integers(1 << 15, 1 << 16, shape),
            "shift": self.random.integers(spread - 1, spread + 2, shape),
        }

    def conv(self, name: str, x: Tensor, channels: int, kernel: tuple[int, int], z: int, **geometry: Any) -> Tensor:
        inner = x.shape[1] // int(geometry.get("group", 1))
        weight = self.weight(channels, inner, *kernel)
        tables = self.tables(channels, inner * kernel[0] * kernel[1])
        if self.lowered and "pads" in geometry:
            geometry["padding"] = self.random.integers(0, 1 << self.n, x.shape[1])
        top = (1 << self.n) - 1
        clip = (z, top) if z < top // 2 else (0, top)
        return self.builder.conv(
            name,
            x,
            weight=weight,
            **self.rows,
            zero_point=z,
            scale=0.125,
            clip=clip,
            **tables,
            **geometry,
            **self.windows(),
        )

    def gemm(self, name: str, x: Tensor, channels: int, z: int, **options: Any) -> Tensor:
        weight = self.weight(channels, x.shape[1])
        tables = self.tables(channels, x.shape[1])
        clip = (0, (1 << self.n) - 1)
        return self.builder.gemm(
            name,
            x,
            weight=weight,
            **self.rows,
            zero_point=z,
            scale=0.5,
            clip=clip,
            **tables,
            **self.windows(),
            **options,
        )

    def logits(self, name: str, x: Tensor, channels: int, **options: Any) -> Tensor:
        weight = self.weight(channels, x.shape[1])
        bias = self.tables(channels, x.shape[1])["bias"]
        return self.builder.logits(name, x, weight=weight, bias=bias, **self.rows, **self.windows(), **options)


def everything(
    *,
    n: int = 8,
    weight_rule: str = "TIES_UP",
    activation_rule: str = "TIES_UP",
    rounding: str = "TIES_UP",
    row_widths: tuple[int, ...] = (2, 4, 8),
    seed: int = 1,
    controlled: bool = False,
    row_pairs: tuple[Widths, ...] = (),
    lowered: bool = False,
) -> Graph:
    """Return a network with every operator of format 1; all results are outputs. Zero points are 2^(n-1), 0 and 7.

    With `lowered` all layers have windows, and those with a border padding codes.

    With `controlled` a controller reads the stem, which is pinned, and chooses the widths of all later layers.
    """
    half, top = 1 << (n - 1), (1 << n) - 1
    odd = min(7, top - 1)
    builder = GraphBuilder(
        "everything",
        master_width=n,
        weight_rule=weight_rule,
        activation_rule=activation_rule,
        rounding=rounding,
        candidates=tuple((b, max(1, b - 1)) for b in row_widths),
        class_names=("cat", "dog", "fish"),
        producer={"name": "tests", "seed": str(seed)},
    )
    draw = Drawer(builder, seed, row_widths, row_pairs, lowered)
    x = builder.input("x", (1, 2, 7, 6), zero_point=half, scale=0.1)
    pinned = (n, max(2, n - 2)) if controlled else None
    stem = draw.conv("stem", x, 4, (3, 3), odd, pads=(1, 0, 2, 1), pinned=pinned)
    if controlled:
        pooled = builder.average_pool(
            "seen",
            stem,
            kernel=(4, 4),
            strides=(4, 1),
            multiplier=1 << 15,
            shift=19,
            zero_point=0,
            scale=1.0,
            clip=(0, top),
        )
        seen = builder.flatten("seen.flat", pooled)
        hidden = draw.gemm("hidden", seen, 8, 0, controller=True)
        scores = draw.logits("scores", hidden, 4 * len(row_widths), controller=True)
        builder.control(scores)
    grouped = draw.conv("grouped", stem, 6, (2, 3), half, strides=(2, 1), dilations=(1, 2), pads=(0, 2, 1, 2), group=2)
    depthwise = draw.conv("depthwise", grouped, 6, (3, 1), 0, pads=(1, 0, 1, 0), group=6)
    scaled = builder.requantize(
        "scaled", depthwise, multiplier=40001, shift=15, zero_point=odd, scale=0.1, clip=(1, top)
    )
    total = builder.add(
        "sum",
        grouped,
        scaled,
        multiplier_a=33333,
        multiplier_b=65535,
        shift=16,
        zero_point=half,
        scale=0.2,
        clip=(0, top),
    )
    widest = builder.max_pool("widest", total, kernel=(2, 2), strides=(1, 1), pads=(1, 0, 0, 1))
    both = builder.concat("both", [total, widest])
    mean = builder.average_pool(
        "mean",
        both,
        kernel=(2, 3),
        strides=(2, 1),
        pads=(1, 1, 0, 2),
        multiplier=43691,
        shift=18,
        zero_point=odd,
        scale=0.2,
        clip=(0, top),
    )
    flat = builder.flatten("flat", mean)
    dense = draw.gemm("dense", flat, 5, half)
    result = draw.logits("class", dense, 3)
    for tensor in (stem, grouped, depthwise, scaled, total, widest, both, mean, dense):
        builder.output(tensor)
    builder.output(result, classes=True)
    return builder.build()


def tiny(rounding: str = "TIES_UP") -> Graph:
    """Return the smallest network worth breaking: one convolution, one classifier."""
    builder = GraphBuilder("tiny", rounding=rounding, class_names=("no", "yes"))
    draw = Drawer(builder, 3, (2, 8))
    x = builder.input("x", (1, 1, 3, 3), zero_point=128, scale=0.1)
    conv = draw.conv("conv", x, 2, (3, 3), 0)
    flat = builder.flatten("flat", conv)
    result = draw.logits("class", flat, 2)
    builder.output(result, classes=True)
    return builder.build()
