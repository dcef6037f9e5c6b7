"""What is counted: multiply-accumulates by widths, and the other primitives that hardware executes."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from ..graph.model import Widths


class Operation(StrEnum):
    """The operation whose energy a primitive has: an addition, a multiplication, or reading a table from its memory."""

    ADD = "add"
    MULTIPLY = "multiply"
    READ = "read"


class Size(StrEnum):
    """The width of a primitive: that of a code, an accumulator, a multiplier, or a product of the last two."""

    CODE = "code"
    REGISTER = "register"
    MULTIPLIER = "multiplier"
    PRODUCT = "product"


@dataclass(frozen=True, order=True)
class Primitive:
    """An operation of the hardware other than multiply-accumulate, defined in README.md; an operator may add one.

    value: the name that tells it from others. part: where its energy belongs. operation, sizes: what determines its
    energy.
    """

    value: str
    part: str = field(compare=False)
    operation: Operation = field(compare=False)
    sizes: tuple[Size, ...] = field(compare=False)


def _as_addition(value: str, size: Size, part: str = "requantize") -> Primitive:
    """Return a primitive with the energy of an addition; shifts, clips, ORs and compares have the same."""
    return Primitive(value, part, Operation.ADD, (size,))


def _as_product(value: str, size: Size) -> Primitive:
    return Primitive(value, "requantize", Operation.MULTIPLY, (size, Size.MULTIPLIER))


WEIGHT_SHIFT = _as_addition("weight_nest_shifts", Size.CODE, "nesting")
WEIGHT_INCREMENT = _as_addition("weight_nest_increments", Size.CODE, "nesting")
WEIGHT_CLIP = _as_addition("weight_nest_clips", Size.CODE, "nesting")
WEIGHT_OR = _as_addition("weight_nest_ors", Size.CODE, "nesting")
ACTIVATION_SHIFT = _as_addition("activation_nest_shifts", Size.CODE, "nesting")
ACTIVATION_INCREMENT = _as_addition("activation_nest_increments", Size.CODE, "nesting")
ACTIVATION_CLIP = _as_addition("activation_nest_clips", Size.CODE, "nesting")
ALIGN_SHIFT = _as_addition("align_shifts", Size.REGISTER)
BIAS_ADD = _as_addition("bias_adds", Size.REGISTER)
REQUANTIZE_MULTIPLY = _as_product("requantize_multiplies", Size.REGISTER)
REQUANTIZE_ADD = _as_addition("requantize_adds", Size.PRODUCT)
REQUANTIZE_SHIFT = _as_addition("requantize_shifts", Size.PRODUCT)
REQUANTIZE_CLIP = _as_addition("requantize_clips", Size.CODE)
RESIDUAL_MULTIPLY = _as_product("residual_multiplies", Size.CODE)
RESIDUAL_ADD = _as_addition("residual_adds", Size.PRODUCT)
POOL_ADD = _as_addition("pool_adds", Size.REGISTER)
COMPARE = _as_addition("compares", Size.CODE)

# of CENTROID weights only (B2')
COLUMN_ADD = _as_addition("column_adds", Size.REGISTER)
HALF_SHIFT = _as_addition("half_shifts", Size.REGISTER)
HALF_SUBTRACT = _as_addition("half_subtractions", Size.REGISTER)

WEIGHT_NESTING = (WEIGHT_SHIFT, WEIGHT_INCREMENT, WEIGHT_CLIP, WEIGHT_OR)
# those that belong to no single operator or are as old as the format, in the order of the columns of a table
COMMON = (
    *WEIGHT_NESTING,
    *(ACTIVATION_SHIFT, ACTIVATION_INCREMENT, ACTIVATION_CLIP, ALIGN_SHIFT, BIAS_ADD),
    *(REQUANTIZE_MULTIPLY, REQUANTIZE_ADD, REQUANTIZE_SHIFT, REQUANTIZE_CLIP),
    *(RESIDUAL_MULTIPLY, RESIDUAL_ADD, POOL_ADD, COMPARE),
)


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
