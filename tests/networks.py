"""Whole small nested networks, drawn by hypothesis: branches, groups, odd sizes, every rule, static and dynamic bits.

Structure is drawn step by step, so that a failing network shrinks; weights and tables come from one drawn seed.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dqtsim.graph import Graph, GraphBuilder, Tensor
from dqtsim.graph.model import Array
from dqtsim.spec import Nesting, Rounding, Window

LARGEST_AREA = 81
KINDS = (
    *("add", "average_pool", "concat", "conv", "max_pool", "multiply", "requantize", "squeeze", "table"),
    *("border", "deepen", "shuffle", "split", "upsample"),
)


@dataclass(frozen=True)
class Sample:
    """A network and one input for it."""

    graph: Graph
    codes: Array

    def __repr__(self) -> str:
        """Show what a failing example needs."""
        nodes = ", ".join(f"{node.operator}({node.name})" for node in self.graph.nodes if node.operator != "Gather")
        return f"Sample({self.graph.arithmetic}, input {self.codes.shape}, {nodes})"


class _Sketch:
    """A network under construction: draws decide, `rng` fills."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
        self.n = draw(st.sampled_from([8, 8, 8, 8, 2, 3, 5, 7]), label="master width")
        self.top = (1 << self.n) - 1
        widths = draw(st.lists(st.integers(1, self.n), min_size=1, max_size=3, unique=True), label="candidates")
        together = draw(st.booleans(), label="weights and activations together")
        self.candidates = [(w, w) for w in widths] if together else list(product(widths, widths))
        self.row_widths = tuple(sorted({min(pair) for pair in self.candidates}))
        self.extreme = draw(st.booleans(), label="extreme codes")
        self.builder = GraphBuilder(
            "random",
            master_width=self.n,
            weight_rule=draw(st.sampled_from(Nesting), label="weight rule"),
            activation_rule=draw(st.sampled_from([Nesting.TIES_UP, Nesting.FLOOR]), label="activation rule"),
            rounding=draw(st.sampled_from(Rounding), label="rounding"),
            candidates=self.candidates,
        )
        self.count = 0

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def codes(self, *shape: int) -> Array:
        if self.extreme:
            corners = [0, 1, self.top // 2, self.top // 2 + 1, self.top - 1, self.top]
            return self.rng.choice(np.array(corners, np.uint8), shape)
        return self.rng.integers(0, self.top, shape, np.uint8, endpoint=True)

    def zero_point(self) -> int:
        return int(self.pick(0, (self.top + 1) // 2, int(self.rng.integers(0, self.top, endpoint=True))))

    def clip(self) -> tuple[int, int]:
        low, high = sorted(int(x) for x in self.rng.integers(0, self.top, 2, endpoint=True))
        chosen: tuple[int, int] = self.pick((0, self.top), (0, self.top), (low, high))
        return chosen

    def rows(self) -> dict[str, Any]:
        """What selects rows: widths, or, in some layers, pairs in any order."""
        if self.pick(False, False, True):
            pairs = sorted({*self.candidates, (self.n, self.n), (self.n, 1)})
            order = self.rng.permutation(len(pairs))[: int(self.rng.integers(1, len(pairs) + 1))]
            return {"row_pairs": [pairs[place] for place in order]}
        return {"row_widths": self.pick(self.row_widths, (self.n,))}

    def windows(self) -> list[int] | None:
        """In some layers, by how many bits lower each width is taken: at random, by none, or by all there are."""
        most = np.array([0, *range(self.n - 1, -1, -1)])
        chosen = self.pick(None, None, self.rng.integers(0, most, endpoint=True), most)
        return None if chosen is None else [int(j) for j in chosen]

    def tables(self, outputs: int, taps: int, rows: int) -> dict[str, Any]:
        """Multipliers and shifts that mostly spread the sums over the output codes, and corners."""
        spread = (taps.bit_length() + 1) // 2 + 2 * self.n - 4
        kind = self.pick("spread", "ties", "corners")
        if kind != "corners":
            multiplier = self.rng.integers(1 << 15, 1 << 16, (rows, outputs))
            if kind == "ties":  # a power of two meets ties all the time, another multiplier nearly never
                multiplier[:] = 1 << 15
            shift = self.rng.integers(15 + spread - self.n, 17 + spread - self.n + 3, (rows, outputs))
        else:
            multiplier = self.rng.choice([0, 1, 2, 255, (1 << 15) - 1, (1 << 16) - 1], (rows, outputs))
            shift = self.rng.choice([0, 1, 2, 15, 31, 61], (rows, outputs))
        bias = self.rng.integers(-(1 << spread), 1 << spread, (rows, outputs), endpoint=True)
        return {"bias": bias, "multiplier": multiplier, "shift": np.clip(shift, 0, 61)}

    def scalar(self, gain: int) -> tuple[int, int]:
        """A multiplier of 16 bits and a shift that divides by about `gain`."""
        multiplier = self.pick(1 << 15, int(self.rng.integers(1 << 15, 1 << 16)))
        return multiplier, int(np.clip(15 + gain.bit_length() - 1 + self.pick(-1, 0, 1), 0, 62))

    def conv(self, x: Tensor, *, keep: bool = False, like: Tensor | None = None, controlled: bool = False) -> Tensor:
        _, channels, height, width = x.shape
        outputs = like.shape[1] if like else self.pick(1, 2, 3, 4, 6)
        groups = [g for g in range(1, channels + 1) if channels % g == 0 and outputs % g == 0]
        group = self.draw(st.sampled_from(groups))
        sizes = [1] if keep else [k for k in (1, 2, 3) if k <= min(height, width)]
        kernel = (self.draw(st.sampled_from(sizes)), self.draw(st.sampled_from(sizes)))
        if keep:
            strides, dilations, pads = (1, 1), (1, 1), (0, 0, 0, 0)
        else:
            strides = (self.pick(1, 1, 2, 3), self.pick(1, 1, 2))
            dilations = (self.pick(1, 1, 2), self.pick(1, 1, 3))
            reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
            least = [max(0, r + 1 - size) for r, size in zip(reach, (height, width), strict=True)]
            pads = (self.pick(0, 1, 2) + least[0], self.pick(0, 1) + least[1], self.pick(0, 1), self.pick(0, 1, 2))
        rows = self.rows()
        taps = channels // group * kernel[0] * kernel[1]
        return self.builder.conv(
            self.name("conv"),
            x,
            weight=self.codes(outputs, channels // group, *kernel),
            **self.tables(outputs, taps, count(rows)),
            **rows,
            zero_point=self.zero_point(),
            scale=0.1,
            clip=self.clip(),
            strides=strides,
            pads=pads,
            dilations=dilations,
            group=group,
            windows=self.windows(),
            padding=self.codes(channels) if self.pick(False, False, True) else None,
            pinned=None if controlled or self.pick(True, True, True, False) else self.candidates[0],
        )

    def add(self, x: Tensor) -> Tensor:
        other = self.conv(x, keep=True, like=x)
        m_a, shift = self.scalar(2)
        m_b, _ = self.scalar(2)
        return self.builder.add(
            self.name("add"),
            x,
            other,
            multiplier_a=m_a,
            multiplier_b=m_b,
            shift=shift,
            zero_point=self.zero_point(),
            scale=0.1,
            clip=self.clip(),
        )

    def multiply(self, x: Tensor) -> Tensor:
        """The product of two branches."""
        return self.product(x, self.conv(x, keep=True, like=x))

    def squeeze(self, x: Tensor) -> Tensor:
        """Squeeze and excite: every channel times a code of its own, from its mean."""
        size, one = (x.shape[2], x.shape[3]), (1, 1)
        m, s = self.scalar(size[0] * size[1])
        how: dict[str, Any] = {"zero_point": self.zero_point(), "scale": 0.1, "clip": self.clip()}
        mean = self.builder.average_pool(self.name("mean"), x, kernel=size, strides=one, multiplier=m, shift=s, **how)
        return self.product(x, self.table(self.conv(mean, keep=True, like=x)))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        m, s = self.scalar(1 << self.n)
        how: dict[str, Any] = {"zero_point": self.zero_point(), "scale": 0.1, "clip": self.clip()}
        return self.builder.multiply(self.name("multiply"), a, b, multiplier=m, shift=s, **how)

    def requantize(self, x: Tensor, zero_point: int) -> Tensor:
        m, s = self.scalar(1)
        return self.builder.requantize(
            self.name("requantize"), x, multiplier=m, shift=s, zero_point=zero_point, scale=0.2, clip=self.clip()
        )

    def table(self, x: Tensor) -> Tensor:
        size = 1 << self.n
        entries = self.pick(
            self.codes(size),
            np.arange(size),
            np.arange(size)[::-1],
            np.full(size, self.top),
            self.codes(x.shape[1], size),
        )
        return self.builder.table(self.name("table"), x, entries, zero_point=self.zero_point(), scale=0.3)

    def shuffle(self, x: Tensor) -> Tensor:
        """Channels in another order: of groups, or in any."""
        channels, pixels = x.shape[1], x.shape[2:]
        groups = self.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        if self.draw(st.booleans(), label="any order"):
            return self.builder.take(self.name("shuffle"), x, 1, self.rng.permutation(channels).tolist())
        apart = self.builder.reshape(self.name("apart"), x, (groups, channels // groups, *pixels))
        turned = self.builder.transpose(self.name("turned"), apart, (0, 2, 1, 3, 4))
        return self.builder.reshape(self.name("shuffle"), turned, (channels, *pixels))

    def upsample(self, x: Tensor) -> Tensor:
        """Every row and every column twice, or one of both."""
        for axis in (2, 3):
            if x.shape[axis] <= 4 and self.draw(st.booleans(), label="twice"):
                x = self.builder.take(self.name("twice"), x, axis, np.repeat(np.arange(x.shape[axis]), 2).tolist())
        return x

    def deepen(self, x: Tensor) -> Tensor:
        """Depth to space where channels allow it, else space to depth, else rows and columns exchanged."""
        _, c, h, w = x.shape
        if c % 4 == 0:
            sizes, axes, joined = (c // 4, 2, 2, h, w), (0, 1, 4, 2, 5, 3), (c // 4, 2 * h, 2 * w)
        elif h % 2 == w % 2 == 0:
            sizes, axes, joined = (c, h // 2, 2, w // 2, 2), (0, 1, 3, 5, 2, 4), (4 * c, h // 2, w // 2)
        else:
            return self.builder.transpose(self.name("exchanged"), x, (0, 1, 3, 2))
        apart = self.builder.reshape(self.name("apart"), x, sizes)
        turned = self.builder.transpose(self.name("turned"), apart, axes)
        return self.builder.reshape(self.name("joined"), turned, joined)

    def split(self, x: Tensor) -> Tensor:
        """Two parts of the channels, of which one goes through a layer, joined in the other order."""
        at = self.draw(st.integers(1, x.shape[1]))
        zero_point = self.zero_point()
        first = self.conv(self.builder.take(self.name("first"), x, 1, range(at)), keep=True)
        parts = [self.requantize(first, zero_point)]
        if at < x.shape[1]:
            rest = self.builder.take(self.name("rest"), x, 1, range(at, x.shape[1]))
            parts.insert(0, self.requantize(rest, zero_point))
        return self.builder.concat(self.name("joined"), parts)

    def border(self, x: Tensor) -> Tensor:
        """Constants of the zero point around the rows, or between the columns."""
        between = [place for column in range(x.shape[3]) for place in (column, -1)]
        axis, places = self.pick((2, [-1, *range(x.shape[2]), -1]), (3, between))
        return self.builder.take(self.name("border"), x, axis, places)

    def concat(self, x: Tensor) -> Tensor:
        zero_point = self.zero_point()
        parts = [self.requantize(x, zero_point), self.requantize(self.conv(x, keep=True), zero_point)]
        return self.builder.concat(self.name("concat"), parts)

    def pool(self, x: Tensor, *, average: bool) -> Tensor:
        height, width = x.shape[2:]
        kernel = (self.pick(1, min(2, height), height), self.pick(1, min(2, width), width))
        pads = tuple(self.pick(0, min(1, k - 1)) for k in kernel) * 2
        where: dict[str, Any] = {"kernel": kernel, "strides": (self.pick(1, 2), self.pick(1, 2, 3)), "pads": pads}
        if not average:
            return self.builder.max_pool(self.name("max_pool"), x, **where)
        m, s = self.scalar(kernel[0] * kernel[1])
        where["multiplier"] = m
        if self.draw(st.booleans(), label="a multiplier per position"):
            window = Window(kernel, where["strides"], pads=pads)
            where["multiplier"] = self.rng.integers(0, 2 * m, window.output_size(height, width)) & 0xFFFF
        return self.builder.average_pool(
            self.name("average_pool"),
            x,
            shift=s,
            zero_point=self.zero_point(),
            scale=0.1,
            clip=self.clip(),
            **where,
        )

    def gemm(self, x: Tensor, outputs: int, *, controller: bool = False) -> Tensor:
        rows = {"row_widths": (self.n,)} if controller else self.rows()
        return self.builder.gemm(
            self.name("gemm"),
            x,
            weight=self.codes(outputs, x.shape[1]),
            **self.tables(outputs, x.shape[1], count(rows)),
            **rows,
            zero_point=self.zero_point(),
            scale=0.1,
            clip=self.clip(),
            windows=None if controller else self.windows(),
            controller=controller,
        )

    def logits(self, x: Tensor, outputs: int, *, controller: bool = False) -> Tensor:
        rows = {"row_widths": (self.n,)} if controller else self.rows()
        return self.builder.logits(
            "controller" if controller else "logits",
            x,
            weight=self.codes(outputs, x.shape[1]),
            bias=self.rng.integers(-2000, 2000, (count(rows), outputs), endpoint=True),
            **rows,
            windows=None if controller else self.windows(),
            controller=controller,
        )

    def flatten(self, x: Tensor) -> Tensor:
        return self.builder.flatten(self.name("flatten"), x) if len(x.shape) == 4 else x

    def body(self, x: Tensor, most: int) -> Tensor:
        for _ in range(self.draw(st.integers(0, most), label="steps")):
            x = self.step(self.draw(st.sampled_from(KINDS), label="kind"), x)
        return x

    def step(self, kind: str, x: Tensor) -> Tensor:
        if kind in ("average_pool", "max_pool"):
            return self.pool(x, average=kind == "average_pool")
        if kind == "requantize":
            return self.requantize(x, self.zero_point())
        made: Tensor = getattr(self, kind)(x)
        return made


def count(rows: dict[str, Any]) -> int:
    """Return how many rows a layer has."""
    return sum(map(len, rows.values()))


@st.composite
def samples(draw: Any, *, most: int = 4) -> Sample:
    """Draw a network of up to about twice `most` layers, and an input for it."""
    sketch = _Sketch(draw)
    height = draw(st.integers(1, 9), label="height")
    width = draw(st.integers(1, LARGEST_AREA // height if height > 8 else 9), label="width")
    shape = (1, draw(st.integers(1, 4), label="channels"), height, width)
    x = sketch.builder.input("input", shape, zero_point=sketch.zero_point(), scale=0.1)
    dynamic = draw(st.booleans(), label="dynamic")
    if not dynamic:
        x = sketch.body(x, most)
        if draw(st.booleans(), label="hidden layer"):
            x = sketch.gemm(sketch.flatten(x), draw(st.integers(1, 5)))
            x = sketch.table(x) if draw(st.booleans(), label="table of a flat tensor") else x
        x = sketch.logits(sketch.flatten(x), draw(st.integers(1, 5)))
        sketch.builder.output(x)
        layers = sketch.builder.layer_count
        pairs = st.tuples(st.integers(1, sketch.n), st.integers(1, sketch.n))
        bits = draw(st.lists(pairs, min_size=layers, max_size=layers), label="bits")
        return Sample(sketch.builder.build(bits), sketch.codes(*shape))
    head = sketch.gemm(sketch.flatten(x), draw(st.integers(1, 4)), controller=True)
    # the controller comes first, so the number of layers that it decides is drawn before they are
    layers = draw(st.integers(1, 4), label="controlled layers")
    sketch.builder.control(sketch.logits(head, layers * len(sketch.candidates), controller=True))
    for _ in range(layers - 1):
        x = sketch.conv(x, controlled=True)
        x = sketch.table(x) if draw(st.booleans(), label="table") else x
        x = sketch.product(x, x) if draw(st.booleans(), label="square") else x
        if draw(st.booleans(), label="pool"):
            x = sketch.pool(x, average=draw(st.booleans(), label="average"))
    x = sketch.logits(sketch.flatten(x), draw(st.integers(1, 5)))
    sketch.builder.output(x)
    return Sample(sketch.builder.build(), sketch.codes(*shape))
