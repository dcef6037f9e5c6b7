"""The layers of every structure: random weights, and scales that keep random sums within the range of codes."""

import math

import numpy as np

from ..graph.builder import GraphBuilder, Tensor
from ..graph.model import Array, Graph

CANDIDATES = ((2, 2), (4, 4), (8, 8))
ROW_WIDTHS = (2, 4, 8)
# Standard deviation of the codes of weights and activations, about; outputs are scaled back to it.
_WEIGHT_SPREAD = 30
_SPREAD = 40
_HIDDEN = 64


class Sketch:
    """A network under construction: the builder, the random numbers, and the input."""

    def __init__(self, name: str, size: int, classes: int, seed: int, dynamic: bool) -> None:
        self.classes = classes
        self._dynamic = dynamic
        self._rng = np.random.default_rng(seed)
        self._builder = GraphBuilder(
            name,
            weight_rule="MIDPOINT",
            candidates=CANDIDATES,
            producer={"name": "dqtsim new", "structure": name, "seed": str(seed), "weights": "random"},
        )
        self.input = self._builder.input("input", (1, 3, size, size), zero_point=128, scale=1 / 64)

    def stem(self, x: Tensor, outputs: int, *, kernel: int, stride: int) -> Tensor:
        """Add the first convolution, pinned in a dynamic network, because the controller reads it."""
        pinned = (8, 8) if self._dynamic else None
        return self._conv("stem", x, outputs, kernel, stride, 1, 0, pinned)

    def conv(
        self, name: str, x: Tensor, outputs: int, *, kernel: int, stride: int = 1, group: int = 1, relu: bool = True
    ) -> Tensor:
        """Add a convolution with 'same' padding; with `relu` its codes start at 0, else they are signed."""
        return self._conv(name, x, outputs, kernel, stride, group, 0 if relu else 128, None)

    def add(self, name: str, a: Tensor, b: Tensor, *, relu: bool = True) -> Tensor:
        """Add two tensors."""
        return self._builder.add(
            name,
            a,
            b,
            multiplier_a=40000,
            multiplier_b=40000,
            shift=16,
            zero_point=0 if relu else 128,
            scale=1.0,
            clip=(0, 255),
        )

    def max_pool(self, name: str, x: Tensor) -> Tensor:
        """Add the 3 x 3 max pool with stride 2 of ImageNet stems."""
        return self._builder.max_pool(name, x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))

    def classify(self, x: Tensor) -> None:
        """Add global average pool and classifier, and end the network."""
        kernel = (x.shape[2], x.shape[3])
        multiplier, shift = _fixed_point(1 / (kernel[0] * kernel[1]))
        y = self._builder.average_pool(
            "pool",
            x,
            kernel=kernel,
            strides=kernel,
            multiplier=multiplier,
            shift=shift,
            zero_point=x.quantization.zero_point if x.quantization else 0,
            scale=1.0,
            clip=(0, 255),
        )
        y = self._builder.flatten("flatten", y)
        bias = self._rng.integers(-1000, 1001, (len(ROW_WIDTHS), self.classes))
        weight = self._weights(self.classes, y.shape[1])
        self._builder.output(self._builder.logits("fc", y, weight=weight, bias=bias, row_widths=ROW_WIDTHS))

    def control(self, stem: Tensor, layers: int) -> None:
        """Add a controller over `stem` for the `layers` layers that follow; nothing in a static network."""
        if not self._dynamic:
            return
        builder, side = self._builder, min(4, stem.shape[2])
        kernel = (stem.shape[2] // side, stem.shape[3] // side)
        mean, places = _fixed_point(1 / (kernel[0] * kernel[1]))
        x = builder.average_pool(
            "controller.pool",
            stem,
            kernel=kernel,
            strides=kernel,
            multiplier=mean,
            shift=places,
            zero_point=0,
            scale=1.0,
            clip=(0, 255),
        )
        x = builder.flatten("controller.flatten", x)
        bias, multiplier, shift = self._tables(_HIDDEN, x.shape[1], 1)
        x = builder.gemm(
            "controller.hidden",
            x,
            weight=self._weights(_HIDDEN, x.shape[1]),
            bias=bias,
            multiplier=multiplier,
            shift=shift,
            row_widths=(8,),
            zero_point=0,
            scale=1.0,
            clip=(0, 255),
            controller=True,
        )
        logits = layers * len(CANDIDATES)
        bias = self._rng.integers(-1000, 1001, (1, logits))
        weight = self._weights(logits, _HIDDEN)
        builder.control(
            builder.logits("controller.logits", x, weight=weight, bias=bias, row_widths=(8,), controller=True)
        )

    def build(self) -> Graph:
        """Return the network."""
        return self._builder.build()

    def _conv(
        self,
        name: str,
        x: Tensor,
        outputs: int,
        kernel: int,
        stride: int,
        group: int,
        zero_point: int,
        pinned: tuple[int, int] | None,
    ) -> Tensor:
        inputs = x.shape[1] // group
        weight = self._weights(outputs, inputs, kernel, kernel)
        pad = (kernel - 1) // 2
        bias, multiplier, shift = self._tables(outputs, inputs * kernel * kernel, len(ROW_WIDTHS))
        return self._builder.conv(
            name,
            x,
            weight=weight,
            bias=bias,
            multiplier=multiplier,
            shift=shift,
            row_widths=ROW_WIDTHS,
            zero_point=zero_point,
            scale=1.0,
            clip=(0, 255),
            strides=(stride, stride),
            pads=(pad, pad, pad, pad),
            group=group,
            pinned=pinned,
        )

    def _weights(self, *shape: int) -> Array:
        codes = np.rint(self._rng.normal(128, _WEIGHT_SPREAD, shape))
        return np.clip(codes, 0, 255).astype(np.uint8)

    def _tables(self, outputs: int, taps: int, rows: int) -> tuple[Array, Array, Array]:
        """Rows of (B, M, S): sums of `taps` products are scaled back to the usual spread of codes."""
        sums = math.sqrt(taps) * _WEIGHT_SPREAD * _SPREAD
        multiplier, shift = _fixed_point(_SPREAD / sums)
        bias = self._rng.integers(-int(sums), int(sums) + 1, (rows, outputs))
        multipliers = np.clip(multiplier + self._rng.integers(-2000, 2001, (rows, outputs)), 1 << 15, (1 << 16) - 1)
        return bias, multipliers, np.full((rows, outputs), shift)


def _fixed_point(value: float) -> tuple[int, int]:
    """Return (M, S) with M of 16 bits, its top bit set, and M / 2^S near `value`."""
    mantissa, exponent = math.frexp(value)
    return min(round(mantissa * (1 << 16)), (1 << 16) - 1), 16 - exponent
