"""Distributions over many pictures, as tables and as JSON."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from ...counting.distribution import PERCENTILES, RULE, Distribution, Number, RowSpread, Spread
from ...graph.model import Widths
from .runs import giga, widths_text


def print_distribution(console: Console, found: Distribution, title: str) -> None:
    """Print the distributions of the whole network and of each layer, and the saving if nested weights were kept."""
    pictures = len(found.order)
    total = found.total()
    console.print(f"{title}: {pictures:,} pictures, {len(found.settings):,} different settings")
    table = _table("a picture takes", "mean", "deviation", "least", *(f"{p} %" for p in PERCENTILES), "most")
    for name, values, show in _quantities(total):
        points = (values.lowest, *values.percentiles.values(), values.highest)
        table.add_row(name, show(values.mean), show(values.deviation), *(show(point) for point in points))
    console.print(table)
    histograms = found.histograms()
    pairs = sorted({pair for chosen in histograms.values() for pair in chosen})
    chosen_at = [f"{widths_text(pair)} bits" for pair in pairs]
    table = _table("layer", "width", "deviation", *chosen_at, "BitOPs", "deviation", "energy", "deviation", "cycles")
    for row in found.rows():
        shares = histograms.get(row.name)
        table.add_row(
            row.name,
            *([f"{row.width.mean:.3f}", f"{row.width.deviation:.3f}"] if row.width else ["", ""]),
            *(f"{100 * shares[pair] / pictures:.1f} %" if shares else "" for pair in pairs),
            *(giga(round(x)).strip() for x in (row.bitops.mean, row.bitops.deviation)),
            *(f"{x / 1e6:.3g} uJ" for x in (row.energy.mean, row.energy.deviation)),
            f"{row.cycles.mean:,.0f}",
            style=None if shares else "dim",
        )
    console.print(table)
    fly, kept = (sum(part.values()) for part in (found.nesting_on_the_fly(), found.nesting_kept()))
    console.print(
        f"weight nesting {fly / pictures:,.0f} operations a picture on the fly, {kept / pictures:,.0f} if nested "
        "weights are kept from one picture to the next"
    )


def _quantities(row: RowSpread) -> list[tuple[str, Spread, Callable[[Number | float], str]]]:
    shown: list[tuple[str, Spread, Callable[[Number | float], str]]] = [
        ("BitOPs", row.bitops, lambda x: giga(round(x)).strip()),
        ("energy", row.energy, lambda x: f"{float(x) / 1e6:.3g} uJ"),
        ("cycles", row.cycles, lambda x: f"{round(x):,}"),
    ]
    if row.width:
        shown.append(("average width", row.width, lambda x: f"{float(x):.3f}"))
    return shown


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    return table


def distribution_block(found: Distribution) -> dict[str, Any]:
    """Return the distributions as a JSON object; integers stay integers."""
    histograms = found.histograms()
    layers = [
        {"name": row.name, "widths": _by_widths(histograms[row.name]) if row.name in histograms else None} | _block(row)
        for row in found.rows()
    ]
    return {
        "pictures": len(found.order),
        "settings": len(found.settings),
        "percentiles": RULE,
        "total": _block(found.total()),
        "rows": layers,
        "weight_nesting": {
            "on_the_fly": {key.value: n for key, n in sorted(found.nesting_on_the_fly().items())},
            "kept_between_pictures": {key.value: n for key, n in sorted(found.nesting_kept().items())},
        },
    }


def _by_widths(chosen: Counter[Widths]) -> dict[str, int]:
    return {f"w{w}a{a}": times for (w, a), times in sorted(chosen.items())}


def _block(row: RowSpread) -> dict[str, Any]:
    block = {"bitops": _plain(row.bitops), "energy_pj": _plain(row.energy), "cycles": _plain(row.cycles)}
    return block | ({"average_width": _plain(row.width)} if row.width else {})


def _plain(values: Spread) -> dict[str, Any]:
    def number(value: Number) -> int | float:
        return value if isinstance(value, int) else float(value)

    return {
        "sum": number(values.sum),
        "mean": values.mean,
        "deviation": values.deviation,
        "min": number(values.lowest),
        "percentiles": {str(p): number(value) for p, value in values.percentiles.items()},
        "max": number(values.highest),
    }
