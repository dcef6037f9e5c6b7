"""Tables of codes: equations B9 and B9' of spec/README.md."""

from collections.abc import Sequence


def look_up(table: Sequence[int], q: int) -> int:
    """Return y = T[q] for a master code q and a table T of 2^n master codes, that of its channel in B9'."""
    return table[q]
