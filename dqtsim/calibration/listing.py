"""The rows of a layer as a list of pairs of widths, to which a pair of its own can be added (B3', B3'').

A listing is an ordered list of (pair, row): a pair selects its own row if it is listed, else the first listed row with
both widths at least as wide. Listings hold (n, n), so that there always is one. All functions keep this promise: every
pair of widths but the one that is added selects the row that it selected before.
"""

from collections.abc import Iterator, Sequence

from ..graph.model import Widths
from ..graph.rows import Rows

Listing = list[tuple[Widths, int]]


def listed(rows: Rows, n: int) -> Listing:
    """Return the rows of a layer as a listing that selects the same row for every pair of widths up to `n`.

    With rows per width (B3') the narrower of two widths decides. So each row gets two pairs, in which one of the widths
    is its own and the other is n.
    """
    found: Listing = list(zip(rows.pairs, range(len(rows)), strict=False))
    for row, width in enumerate(rows.widths):
        found += [(pair, row) for pair in dict.fromkeys([(width, n), (n, width)])]
    # what no pair covers selects the last row
    return found if any(pair == (n, n) for pair, _ in found) else [*found, ((n, n), found[-1][1])]


def with_own(listing: Listing, pair: Widths, row: int) -> Listing:
    """Return the listing with the row `row` for `pair`.

    It comes last, so that it serves no other pair. If the pair is listed, narrower pairs may depend on its old row; in
    its place come those of them that cover all others.
    """
    pairs = [other for other, _ in listing]
    if pair not in pairs:
        return [*listing, (pair, row)]
    place = pairs.index(pair)
    kept = dict.fromkeys(_narrower(pair, pairs[:place], pairs))
    return [*listing[:place], *((other, listing[place][1]) for other in kept), *listing[place + 1 :], (pair, row)]


def _narrower(pair: Widths, before: Sequence[Widths], listed: Sequence[Widths]) -> Iterator[Widths]:
    """Yield pairs that are not listed, and cover all unlisted pairs below `pair` that none of `before` covers."""
    for other in ((pair[0] - 1, pair[1]), (pair[0], pair[1] - 1)):
        if min(other) < 1 or any(wide[0] >= other[0] and wide[1] >= other[1] for wide in before):
            continue
        if other in listed:
            yield from _narrower(other, before, listed)
        else:
            yield other
