"""Names and widths that training shares; without torch, so that the command line can use them."""

from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from dqtsim.errors import InputError

MASTER_WIDTH = 8
TOP_CODE: int = 2**MASTER_WIDTH - 1
WEIGHT_ZERO_POINT: int = 2 ** (MASTER_WIDTH - 1)

WeightRule = Literal["TIES_UP", "FLOOR", "MIDPOINT", "CENTROID"]
ActivationRule = Literal["TIES_UP", "FLOOR"]
Widths = tuple[int, int]
WEIGHT_RULES: tuple[WeightRule, ...] = get_args(WeightRule)
ACTIVATION_RULES: tuple[ActivationRule, ...] = get_args(ActivationRule)
NETWORK_NAMES = ("resnet8", "resnet20", "resnet18", "resnet18-imagenet", "resnet50", "mobilenetv2")


def check_pairs(pairs: tuple[Widths, ...], what: str) -> None:
    """Refuse pairs that are not valid widths, or occur twice."""
    for pair in pairs:
        if len(pair) != 2 or not all(1 <= width <= MASTER_WIDTH for width in pair):
            raise InputError(f"{what} must be two widths from 1 to {MASTER_WIDTH}, but one is {pair}.")
    if not pairs or len(set(pairs)) != len(pairs):
        raise InputError(f"{what} must be distinct and at least one, but are {pairs}.")


@dataclass(frozen=True)
class NestingRules:
    """The rules of a whole network: nesting rules and pairs of widths (weight width, activation width).

    A controller chooses among `candidates`; `extra` pairs are also trained and evaluated uniformly.
    """

    weight: WeightRule = "MIDPOINT"
    activation: ActivationRule = "TIES_UP"
    candidates: tuple[Widths, ...] = ((2, 2), (4, 4), (8, 8))
    extra: tuple[Widths, ...] = ()
    # One row of batch norm statistics for all widths instead of one per width.
    shared_norm: bool = False

    def check(self) -> None:
        """Refuse rules with which no network is possible."""
        if self.weight not in WEIGHT_RULES:
            raise InputError(f"weight_rule must be one of {', '.join(WEIGHT_RULES)}, but is {self.weight}.")
        if self.activation not in ACTIVATION_RULES:
            raise InputError(f"activation_rule must be one of {', '.join(ACTIVATION_RULES)}, but is {self.activation}.")
        check_pairs(self.candidates, "Candidates")
        if self.extra:
            check_pairs(self.extra, "Extra pairs")

    @property
    def pairs(self) -> tuple[Widths, ...]:
        """The candidates, then the extra pairs that are not candidates."""
        return self.candidates + tuple(pair for pair in self.extra if pair not in self.candidates)

    @property
    def row_widths(self) -> tuple[int, ...]:
        """B3': ascending widths, one row of (B, M, S) each."""
        widths = sorted({min(pair) for pair in self.pairs})
        return tuple(widths[-1:] if self.shared_norm else widths)

    def row(self, pair: Widths) -> int:
        """B3': the first row whose width is at least min(b_w, b_a), else the last."""
        rows = self.row_widths
        return next((r for r, width in enumerate(rows) if width >= min(pair)), len(rows) - 1)


def nested_zero(zero_point: int, width: int, rule: WeightRule) -> int:
    """A zero point nested to a `width` below that of the master code (A1-A3)."""
    k = MASTER_WIDTH - width
    match rule:
        case "TIES_UP":
            return min((zero_point >> k) + ((zero_point >> (k - 1)) & 1), (1 << width) - 1)
        case "FLOOR" | "MIDPOINT" | "CENTROID":
            return zero_point >> k
        case _:
            assert_never(rule)
