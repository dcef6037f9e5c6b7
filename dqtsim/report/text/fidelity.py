"""How near integer results are to those of the float network, or of another pair of widths, as a table and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ...fidelity import Fidelity
from .runs import widths_text


def print_fidelity(console: Console, rows: Sequence[Fidelity], title: str, whose: str = "float") -> None:
    """Print a row for each pair of widths: agreement with `whose` classes, signal to noise, of each output if several.

    The same values have infinite signal to noise.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    names = list(rows[0].each) if rows else []
    several = names if len(names) > 1 else []
    for heading in ("bits", f"{whose}'s class", "signal to noise", *several):
        table.add_column(heading, justify="left" if heading == "bits" else "right")
    for row in rows:
        share = f"{100 * row.agree / row.pictures:.1f} %" if row.classifies else "-"
        ratios = [row.decibel, *(row.each[name].decibel for name in several)]
        table.add_row(
            widths_text(row.widths), share, *("-" if ratio is None else f"{ratio:.1f} dB" for ratio in ratios)
        )
    console.print(table)


def finite(decibel: float | None) -> float | None:
    """Return a ratio as JSON has it: null where it is unknown or infinite."""
    return decibel if decibel is not None and math.isfinite(decibel) else None


def as_json(rows: Sequence[Fidelity], **more: Any) -> dict[str, Any]:
    """Return the rows as JSON: the share of pictures with the expected class, and decibels, also of each output."""
    found = [
        {
            "weights": row.widths[0],
            "activations": row.widths[1],
            "same_class": row.agree / row.pictures if row.classifies else None,
            "signal_to_noise_db": finite(row.decibel),
            "outputs_db": {name: finite(ratio.decibel) for name, ratio in row.each.items()},
        }
        for row in rows
    ]
    return {**more, "widths": found}
