"""How near integer results are to those of the float network, or of another pair of widths, as a table and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ...engines.result import Result
from ...graph.model import Array, Graph, Quantization, Widths
from ...graph.results import meaning, results
from .runs import widths_text


class Fidelity:
    """The results of many pictures at one pair of widths, beside expected outputs, such as the float network's.

    `agree` counts the pictures whose class is the expected one; signal and noise are the sums of squares of the
    expected values and of the differences, of each output whose real values are known.
    """

    def __init__(self, widths: Widths, graph: Graph) -> None:
        self.widths = widths
        self.pictures = self.agree = 0
        self.classifies = False
        self._values = [(value.name, meaning(graph, value.name)) for value in results(graph)]
        known = [name for name, means in self._values if means is not None]
        self.signal, self.noise = dict.fromkeys(known, 0.0), dict.fromkeys(known, 0.0)

    def add(self, result: Result, expected: Sequence[Array]) -> None:
        """Count one picture, whose outputs should be `expected`, real values, in the graph's order."""
        self.pictures += 1
        for (name, means), real in zip(self._values, expected, strict=True):
            if name == result.scores:
                self.classifies = True
                self.agree += result.class_index == int(np.argmax(real))
            if means is not None:
                found = real_values(result.outputs[name][0], means)
                self.signal[name] += float(np.square(real).sum())
                self.noise[name] += float(np.square(found - real).sum())

    @property
    def decibel(self) -> float | None:
        """Signal to noise in decibels; None without noise or without a known output."""
        return _decibel(sum(self.signal.values()), sum(self.noise.values()))

    @property
    def each(self) -> dict[str, float | None]:
        """Signal to noise of each known output, in decibels."""
        return {name: _decibel(signal, self.noise[name]) for name, signal in self.signal.items()}


def _decibel(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if noise and signal else None


def real_values(codes: Array, means: Quantization) -> Array:
    """Return the real values float64 of the integers of one sample, without its batch axis."""
    scale = np.array(means.scale, np.float64)
    scale = scale if scale.size == 1 else scale.reshape(-1, *([1] * (codes.ndim - 1)))
    real: Array = (codes.astype(np.float64) - means.zero_point) * scale
    return real


def print_fidelity(console: Console, rows: Sequence[Fidelity], title: str, whose: str = "float") -> None:
    """Print a row for each pair of widths: agreement with `whose` classes, signal to noise, of each output if several.

    Nothing but the same values has no noise.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    names = list(rows[0].signal) if rows else []
    several = names if len(names) > 1 else []
    for heading in ("bits", f"{whose}'s class", "signal to noise", *several):
        table.add_column(heading, justify="left" if heading == "bits" else "right")
    for row in rows:
        share = f"{100 * row.agree / row.pictures:.1f} %" if row.classifies else "-"
        ratios = [row.decibel, *(row.each[name] for name in several)]
        table.add_row(
            widths_text(row.widths), share, *("-" if ratio is None else f"{ratio:.1f} dB" for ratio in ratios)
        )
    console.print(table)


def as_json(rows: Sequence[Fidelity], **more: Any) -> dict[str, Any]:
    """Return the rows as JSON: the share of pictures with the expected class, and decibels, also of each output."""
    found = [
        {
            "weights": row.widths[0],
            "activations": row.widths[1],
            "same_class": row.agree / row.pictures if row.classifies else None,
            "signal_to_noise_db": row.decibel,
            "outputs_db": row.each,
        }
        for row in rows
    ]
    return {**more, "widths": found}
