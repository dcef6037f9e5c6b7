"""What the widths of a nested layer select: its row of (B, M, S) (B3', B3'') and its window (A6)."""

from collections.abc import Mapping
from dataclasses import dataclass

from .model import Array, Node, Widths


@dataclass(frozen=True)
class Rows:
    """One entry per row. A layer has either `widths` or `pairs`; the other is empty. Each engine selects by itself."""

    widths: tuple[int, ...] = ()
    pairs: tuple[Widths, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.widths) or len(self.pairs)


def rows_of(node: Node, constants: Mapping[str, Array]) -> Rows:
    """Return what selects the rows of a nested layer; `constants` are its inputs by role, at least `row_pairs`."""
    if "row_pairs" not in node.form:
        return Rows(widths=node.integers("row_widths"))
    return Rows(pairs=tuple((int(b_w), int(b_a)) for b_w, b_a in constants["row_pairs"].tolist()))


def window_of(node: Node, constants: Mapping[str, Array], b_a: int) -> int:
    """Return by how many bits lower a nested layer takes its activations at width `b_a` (A6); 0 without windows."""
    return int(constants["windows"][b_a]) if "windows" in node.form else 0
