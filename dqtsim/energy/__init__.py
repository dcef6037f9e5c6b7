"""Energy tables: what one operation costs, read from a cited TOML file and interpolated to other widths.

Energies are floats in picojoule: they are estimates of cost and never take part in the arithmetic of a network.
"""

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import TargetError

DEFAULT = "horowitz-45nm"


@dataclass(frozen=True)
class EnergyTable:
    """Energies in pJ; `add` and `multiply` map the widths that were read to their energies."""

    name: str
    source: str
    add: Mapping[int, float]
    multiply: Mapping[int, float]
    memory_bit: Mapping[str, float]
    placement: Mapping[str, str]

    def addition(self, bits: int) -> float:
        """Return the energy of an addition, shift, clip or comparison of `bits`: the line through the read widths."""
        (low, at_low), (high, at_high) = sorted(self.add.items())
        return max(0.0, at_low + (at_high - at_low) * (bits - low) / (high - low))

    def multiplication(self, bits_a: int, bits_b: int) -> float:
        """Return the energy of a product of unlike widths: the parabola at their geometric mean.

        The parabola a * b^2 + c * b goes through zero and both read widths.
        """
        (low, at_low), (high, at_high) = sorted(self.multiply.items())
        square = (at_high / high - at_low / low) / (high - low)
        linear = at_low / low - square * low
        mean_square = bits_a * bits_b
        return max(0.0, square * mean_square + linear * math.sqrt(mean_square))

    def traffic(self, bits: int, what: str) -> float:
        """Return the energy of moving `bits` of 'weights', 'activations' or 'tables' from where they lie."""
        return bits * self.memory_bit[self.placement[what]]

    def is_read(self, bits: int) -> bool:
        """Return whether the energies of this width stand in the source; others are interpolated."""
        return bits in self.add and bits in self.multiply


def load_energy(name: str | os.PathLike[str] = DEFAULT) -> EnergyTable:
    """Return the built-in table `name`, or the one in the TOML file `name`. Raises TargetError."""
    text = str(name)
    if text.endswith(".toml"):
        where = f"the energy table '{text}'"
        try:
            content = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise TargetError(f"{where} cannot be read.") from None
    else:
        where = f"energy table '{text}'"
        entry = resources.files("dqtsim") / "energy" / f"{text}.toml"
        if not entry.is_file():
            raise TargetError(f"an energy table is {DEFAULT} or a .toml file; found '{text}'.")
        content = entry.read_text(encoding="utf-8")
    try:
        return _table(tomllib.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TargetError(
            f"{where} must hold name, source, [add] and [multiply] with two widths each, [memory] and [placement]."
        ) from None


def _table(tree: Mapping[str, Any]) -> EnergyTable:
    memory = dict(tree["memory"])
    bits = int(memory.pop("access_bits"))
    add, multiply = ({int(width): float(pj) for width, pj in tree[kind].items()} for kind in ("add", "multiply"))
    placement = {what: str(tree["placement"][what]) for what in ("weights", "activations", "tables")}
    per_bit = {where: float(pj) / bits for where, pj in memory.items()}
    if len(add) != 2 or len(multiply) != 2 or not set(placement.values()) <= set(per_bit):
        raise ValueError
    return EnergyTable(str(tree["name"]), str(tree["source"]), add, multiply, per_bit, placement)
