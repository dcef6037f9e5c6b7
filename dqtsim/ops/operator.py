"""The definition of an operator: types, meaning by the law, and count, registered in one place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from ..errors import AccumulatorError, ModelError
from ..graph.model import Array, Node, Widths, same_array
from ..spec.mac import Flags
from ..spec.rules import Nesting, Overflow, Rounding, TapOrder
from .primitives import Cost, Primitive


@dataclass(frozen=True)
class TensorType:
    """dtype name, shape, and the least and greatest value that can occur."""

    dtype: str
    shape: tuple[int, ...]
    low: int
    high: int


@dataclass(frozen=True)
class Machine:
    """Everything that the arithmetic of a run depends on: the model's rules on a target's registers."""

    n: int
    weight_rule: Nesting
    activation_rule: Nesting
    rounding: Rounding
    accumulator_width: int
    overflow: Overflow
    tap_order: TapOrder
    bias_width: int
    target: str


def register_width(lowest: int, highest: int) -> int:
    """Return the bits of the narrowest two's-complement register that holds `lowest`, 0 and `highest`."""
    return max((-lowest - 1).bit_length() if lowest < 0 else 0, highest.bit_length()) + 1


@dataclass(frozen=True, eq=False)
class Bound:
    """Proven extremes of every prefix of the sums of one layer at one pair of widths, int64 (O) each."""

    lowest: Array
    highest: Array

    def __eq__(self, other: object) -> bool:
        """Return whether another bound has the same extremes."""
        if not isinstance(other, Bound):
            return NotImplemented
        return same_array(self.lowest, other.lowest) and same_array(self.highest, other.highest)

    __hash__ = None  # type: ignore[assignment]

    def unproven(self, width: int) -> Array:
        """Return the indices of the output channels that could leave a register of `width` bits."""
        half = 1 << (width - 1)
        return np.flatnonzero((self.lowest < -half) | (self.highest >= half))

    @property
    def bits(self) -> int:
        """Return the width of the narrowest register that no output channel can leave."""
        return register_width(int(self.lowest.min()), int(self.highest.max()))


class Bounds(Mapping[tuple[int, int], Bound]):
    """The bounds of a layer at each pair of widths at which it may run; each is proven when it is first needed."""

    def __init__(self, pairs: Sequence[tuple[int, int]], prove: Callable[[tuple[int, int]], Bound]) -> None:
        self._proven: dict[tuple[int, int], Bound | None] = dict.fromkeys(pairs)
        self._prove = prove

    def __getitem__(self, pair: tuple[int, int]) -> Bound:
        """Return the bound at the widths `pair`."""
        bound = self._proven[pair]
        if bound is None:
            bound = self._proven[pair] = self._prove(pair)
        return bound

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of widths."""
        return iter(self._proven)

    def __len__(self) -> int:
        """Return the number of pairs of widths."""
        return len(self._proven)

    def __contains__(self, pair: object) -> bool:
        """Return whether the layer may run at the widths `pair`; proves nothing."""
        return pair in self._proven


@dataclass(frozen=True)
class Call:
    """One node in one run: what it needs besides its input arrays."""

    node: Node
    machine: Machine
    type: TensorType
    bounds: Mapping[tuple[int, int], Bound] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of a node: its output and, if it multiplies and accumulates, the accumulators P and their flags."""

    output: Array
    accumulator: Array | None = None
    flags: Flags | None = None


# inputs by role, as in `Node.operands`; constants are present if the node has them
Types = Mapping[str, TensorType]
Arrays = Mapping[str, Array]
Infer = Callable[[Node, Types, Arrays], TensorType]
Execute = Callable[[Call, Arrays], Outcome]
Macs = Callable[[Node, Types, TensorType], int]
# from the arguments of a function of the law to what its execution counts
Watch = Callable[[Mapping[str, Any]], Mapping[Primitive, int]]
CostOf = Callable[[Node, Types, Arrays, TensorType, Machine, tuple[int, int]], Cost]


def no_macs(_node: Node, _inputs: Types, _output: TensorType) -> int:
    """Return 0: the operator multiplies no operands."""
    return 0


@dataclass(frozen=True)
class Operator:
    """One operator. Its functions take inputs by role, `inputs["bias"]`.

    infer: output type from input types (and constants where the shape depends on them).
    law: the meaning, by the law in `spec/`.
        The function of an operator that only moves data serves every engine.
    cost: what one execution costs at given widths, from types and constants; without it an operator cannot be counted.
    macs: multiply-accumulates of one execution, padded taps included.
    watched: the functions of the law that this operator alone calls, and what each call counts, not from shapes.
    """

    domain: str
    name: str
    infer: Infer
    law: Execute
    cost: CostOf
    macs: Macs = no_macs
    watched: tuple[tuple[Callable[..., object], Watch], ...] = ()


def overflow_error(call: Call, value: int, channel: int, position: tuple[int, ...]) -> AccumulatorError:
    """Return the error of a sum that left the accumulator under the policy ERROR."""
    machine = call.machine
    place = f" at {position}" if position else ""
    return AccumulatorError(
        f"the sum {value} of output channel {channel}{place} of {call.node.title} does not fit the "
        f"{machine.accumulator_width}-bit accumulator of target '{machine.target}', whose overflow policy is ERROR."
    )


def refuse_widths(node: Node, pair: Widths) -> NoReturn:
    """Raise ModelError for a layer that meets widths for which it was not planned; every engine uses this (B8)."""
    raise ModelError(f"{node.title} runs only at widths that were planned for it; found {pair}.")


def integers(array: Array) -> list[Any]:
    """Return `array` as nested lists of Python ints, which is what the law computes on."""
    nested = array.tolist()
    assert isinstance(nested, list)
    return nested


def scalars(inputs: Arrays, *roles: str) -> tuple[int, ...]:
    """Return the inputs of these roles, which are scalars, as Python ints."""
    return tuple(int(inputs[role]) for role in roles)
