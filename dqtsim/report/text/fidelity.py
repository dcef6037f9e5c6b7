"""How near integer results are to those of the float network, as a table and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ...engines.result import Result
from ...graph.model import Array, Graph, Widths
from ...graph.results import meaning, results
from .runs import widths_text


class Fidelity:
    """The results of many pictures at one pair of widths, beside the float network's outputs.

    `agree` counts the pictures whose class is float's; signal and noise are the sums of squares of the float values and
    of the differences, over all outputs whose real values are known.
    """

    def __init__(self, widths: Widths, graph: Graph) -> None:
        self.widths = widths
        self.pictures = self.agree = 0
        self.signal = self.noise = 0.0
        self.classifies = False
        self._values = [(value.name, meaning(graph, value.name)) for value in results(graph)]

    def add(self, result: Result, expected: Sequence[Array]) -> None:
        """Count one picture, whose float outputs are `expected`, in the graph's order."""
        self.pictures += 1
        for (name, means), real in zip(self._values, expected, strict=True):
            if name == result.scores:
                self.classifies = True
                self.agree += result.class_index == int(np.argmax(real))
            if means is not None:
                scale = np.array(means.scale, np.float64)
                scale = scale if scale.size == 1 else scale.reshape(-1, *([1] * (real.ndim - 1)))
                found = (result.outputs[name][0].astype(np.float64) - means.zero_point) * scale
                self.signal += float(np.square(real).sum())
                self.noise += float(np.square(found - real).sum())

    @property
    def decibel(self) -> float | None:
        """Signal to noise in decibels; None without noise or without a known output."""
        return 10 * math.log10(self.signal / self.noise) if self.noise and self.signal else None


def print_fidelity(console: Console, rows: Sequence[Fidelity], title: str) -> None:
    """Print a row for each pair of widths."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for heading in ("bits", "float's class", "signal to noise"):
        table.add_column(heading, justify="left" if heading == "bits" else "right")
    for row in rows:
        share = f"{100 * row.agree / row.pictures:.1f} %" if row.classifies else "-"
        table.add_row(widths_text(row.widths), share, "-" if row.decibel is None else f"{row.decibel:.1f} dB")
    console.print(table)


def as_json(rows: Sequence[Fidelity], **more: Any) -> dict[str, Any]:
    """Return the rows as JSON: the share of pictures with float's class, and decibels."""
    found = [
        {
            "weights": row.widths[0],
            "activations": row.widths[1],
            "same_class": row.agree / row.pictures if row.classifies else None,
            "signal_to_noise_db": row.decibel,
        }
        for row in rows
    ]
    return {**more, "widths": found}
