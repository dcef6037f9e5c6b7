"""NestedAdd fused into the convolution before it (B5)."""

from dataclasses import dataclass

from ....graph.model import Array
from ....planner import Step
from ..memory import Planes, Word
from ..proofs import tables
from .state import Known

# half of it, rounded up, must fit 15 bits
MOST_HALVED = (1 << 16) - 2


@dataclass(frozen=True)
class Residual:
    """An addition of a convolution's output, with the multiplier `own`, and another tensor that is computed already."""

    step: Step
    other: Planes
    own: int
    others: int
    addend: int
    shift: int

    @property
    def output(self) -> str:
        """Return the name of the sum."""
        return self.step.node.outputs[0]

    def offsets(self, y: Array, x: Array) -> Array:
        """Return the offsets of output pixels (y, x) in the other operand."""
        found: Array = y * self.other.row + x * self.other.step
        return found

    def words(self) -> dict[str, Word]:
        """Return its fields, except the table of offsets."""
        node = self.step.node
        return {
            "residual": self.other.origin,
            "own_multiplier": self.own,
            "other_multiplier": self.others,
            "addend": self.addend,
            "add_shift": self.shift,
            "add_low": node.integer("low"),
            "add_high": node.integer("high"),
        }


def residual_of(known: Known, step: Step) -> Residual | None:
    """Return the addition that may be fused into a convolution: its only consumer, all in 32 bits."""
    name = step.node.outputs[0]
    readers = known.uses.get(name, [])
    if known.keep or name in known.outputs or len(readers) != 1:
        return None
    add = readers[0]
    if add.node.operator != "NestedAdd":
        return None
    first = add.node.operand("a") == name
    other = known.planes(add.node.operand("b" if first else "a"))
    if other is None:
        return None
    z_a, z_b, z_y = known.scalars(add, "a_zero_point", "b_zero_point", "y_zero_point")
    m_a, m_b, s = known.scalars(add, "a_multiplier", "b_multiplier", "shift")
    half = tables.folded_half(s, step.call.machine.rounding)
    if s > 30 or half is None:
        return None
    addend = -z_a * m_a - z_b * m_b + (z_y << s) + half
    if known.isa.packs and max(m_a, m_b) > MOST_HALVED:
        return None
    if abs(addend) + 255 * (m_a + m_b) >= 1 << 31:
        return None
    own, others = (m_a, m_b) if first else (m_b, m_a)
    return Residual(add, other, own, others, addend, s)
