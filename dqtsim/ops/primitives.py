"""What is counted: multiply-accumulates by widths, and the primitives that hardware executes besides."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from ..graph.model import Widths


class Primitive(StrEnum):
    """What hardware does besides multiply-accumulates."""

    WEIGHT_SHIFT = "weight_nest_shifts"
    WEIGHT_INCREMENT = "weight_nest_increments"
    WEIGHT_CLIP = "weight_nest_clips"
    WEIGHT_OR = "weight_nest_ors"
    ACTIVATION_SHIFT = "activation_nest_shifts"
    ACTIVATION_INCREMENT = "activation_nest_increments"
    ACTIVATION_CLIP = "activation_nest_clips"
    ALIGN_SHIFT = "align_shifts"
    BIAS_ADD = "bias_adds"
    REQUANTIZE_MULTIPLY = "requantize_multiplies"
    REQUANTIZE_ADD = "requantize_adds"
    REQUANTIZE_SHIFT = "requantize_shifts"
    REQUANTIZE_CLIP = "requantize_clips"
    RESIDUAL_MULTIPLY = "residual_multiplies"
    RESIDUAL_ADD = "residual_adds"
    POOL_ADD = "pool_adds"
    COMPARE = "compares"


@dataclass
class Cost:
    """Counts of one node, or of many added up. `macs` is by (weight width, activation width)."""

    macs: Counter[Widths] = field(default_factory=Counter)
    primitives: Counter[Primitive] = field(default_factory=Counter)

    def add(self, other: "Cost") -> None:
        """Add the counts of `other`."""
        self.macs.update(other.macs)
        self.primitives.update(other.primitives)

    @property
    def bitops(self) -> int:
        """Return the sum of MACs times both widths."""
        return sum(count * b_w * b_a for (b_w, b_a), count in self.macs.items())
