"""How a layer nests its input at each width: its window, its zero point, the codes of its border (A1-A6, B1')."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ....graph.model import Array
from ....graph.rows import window_of
from ....ops import Machine
from ....planner import Step
from ....spec.rules import Nesting
from . import tables


@dataclass(frozen=True, eq=False)
class Activations:
    """The input of a layer with the zero point `zero`, master width n.

    windows: how many bits lower its codes are taken, for widths 0 to n (A6). padding: the master code of padded taps,
    for each channel, or None for the zero point (B1').
    """

    n: int
    rule: Nesting
    zero: int
    windows: tuple[int, ...]
    padding: Array | None

    def codes(self, b: int) -> Array:
        """Return int64: the nested code of each master code at width `b`."""
        return self._nested(np.arange(1 << self.n), b)

    def _nested(self, codes: Array, b: int) -> Array:
        n, rule, j = self.n, self.rule, self.windows[b]
        plain = tables.nested(codes, b + j, n, rule)
        if j == 0:
            return plain
        # the zero point stays where it is without a window, and the code saturates
        moved = plain - tables.zeta(self.zero, b + j, n, rule) + tables.zeta(self.zero, b, n, rule)
        limited: Array = np.clip(moved, 0, (1 << b) - 1)
        return limited

    def zeta(self, b: int) -> int:
        """Return the nested zero point at width `b`."""
        return tables.zeta(self.zero, b, self.n, self.rule)

    def border(self, b: int) -> Array:
        """Return int64: the code of padded taps at width `b`, one for each channel, or one for all."""
        return np.array([self.zeta(b)]) if self.padding is None else self._nested(self.padding, b)

    def greatest(self, b: int) -> int:
        """Return the greatest byte in the nested input, of its codes and its border."""
        return max(int(self.codes(b).max()), int(self.border(b).max()))

    def exponent(self, b: int) -> int:
        """Return the exponent that puts an operand of width `b` into master steps."""
        return tables.dropped(b + self.windows[b], self.n, self.rule)

    @cached_property
    def plain(self) -> bool:
        """Return whether there is neither a window nor padding."""
        return self.padding is None and not any(self.windows)


def activations_of(step: Step, constants: Mapping[str, Array]) -> Activations:
    """Return how a layer nests its input; `constants` are its constant inputs by role."""
    machine: Machine = step.call.machine
    windows = tuple(window_of(step.node, constants, b) for b in range(machine.n + 1))
    padding = constants["padding"] if "padding" in step.node.form else None
    return Activations(machine.n, machine.activation_rule, int(constants["x_zero_point"]), windows, padding)
