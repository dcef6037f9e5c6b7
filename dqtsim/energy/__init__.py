"""Energy tables: the energy of one operation, read from a cited TOML file and interpolated to other widths.

Energies are floats in picojoule: they are estimates of cost and never take part in the arithmetic of a network.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from .. import limits
from ..errors import TargetError, cut, listed, reason

DEFAULT = "horowitz-45nm"
_RULES = (
    "has name and source, [add] and [multiply] with two widths each, [memory] with access_bits and one entry a memory, "
    "and [placement] of weights, activations and tables in memories; energies are pJ from 0 up"
)


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
        """Return the energy of reading `bits` of 'weights', 'activations' or 'tables' from their memory."""
        return bits * self.memory_bit[self.placement[what]]

    def reads_addition(self, bits: int) -> bool:
        """Return whether the energy of this addition is read from the source; others are interpolated."""
        return bits in self.add

    def reads_multiplication(self, bits_a: int, bits_b: int) -> bool:
        """Return whether the energy of this product is read from the source; others are interpolated."""
        return bits_a == bits_b and bits_a in self.multiply


def load_energy(name: str | os.PathLike[str] = DEFAULT) -> EnergyTable:
    """Return the built-in table `name`, or the one in the TOML file `name`. Raises TargetError."""
    text = str(name)
    if text.endswith(".toml"):
        where = f"the energy table '{text}'"
        try:
            content = limits.read_text(text)
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(f"{where} cannot be read: {reason(error)}.") from None
    else:
        where = f"energy table '{text}'"
        entry = resources.files("dqtsim") / "energy" / f"{text}.toml"
        if not entry.is_file():
            raise TargetError(f"an energy table is {DEFAULT} or a .toml file; found '{text}'.")
        content = entry.read_text(encoding="utf-8")
    try:
        return _table(limits.toml_tree(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"{where} {_RULES}; {_found(error)}.") from None


def _found(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error) if str(error).endswith("...") else str(error).rstrip(".")


def _table(tree: Mapping[str, Any]) -> EnergyTable:
    memory = dict(_section(tree, "memory"))
    access = memory.pop("access_bits")
    if type(access) is not int or access < 1:
        raise ValueError(f"'memory.access_bits' is {cut(repr(access))}")
    per_bit = {where: _energy_of(pj, f"memory.{where}") / access for where, pj in memory.items()}
    placement = _section(tree, "placement")
    places = {what: str(placement[what]) for what in ("weights", "activations", "tables")}
    for what, place in places.items():
        if place not in per_bit:
            raise ValueError(f"'placement.{what}' is {cut(repr(place))}")
    return EnergyTable(
        _text(tree, "name"), _text(tree, "source"), _widths(tree, "add"), _widths(tree, "multiply"), per_bit, places
    )


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(tree[name], dict):
        raise ValueError(f"'{name}' is {cut(repr(tree[name]))}")
    section: Mapping[str, Any] = tree[name]
    return section


def _text(tree: Mapping[str, Any], name: str) -> str:
    if not isinstance(tree[name], str):
        raise ValueError(f"'{name}' is {cut(repr(tree[name]))}")
    return str(tree[name])


def _widths(tree: Mapping[str, Any], name: str) -> dict[int, float]:
    section = _section(tree, name)
    if len(section) != 2 or not all(re.fullmatch("[1-9][0-9]?", width) for width in section):
        raise ValueError(f"'{name}' has {listed([cut(width) for width in section]) or 'none'}")
    return {int(width): _energy_of(pj, f"{name}.{width}") for width, pj in section.items()}


def _energy_of(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"'{name}' is {cut(repr(value))}")
    return float(value)
