"""Accuracy and cost over a data set, as tables."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ...counting.counts import average_width
from ...engines.result import Result
from ...graph.model import Widths
from ...planner import Plan
from .runs import giga, total_flags, widths_text


class Tally:
    """The results of many pictures under one policy, as sums; all are exact except `width`, a sum of floats."""

    def __init__(self, policy: str, plan: Plan) -> None:
        self.policy = policy
        self.plan = plan
        self.pictures = self.right = self.bitops = self.saturations = self.wraps = 0
        self.width = 0.0
        self.chosen: list[Counter[Widths]] = [Counter() for _ in plan.graph.layers]
        self.settings: Counter[tuple[Widths, ...]] = Counter()

    def add(self, result: Result, label: int) -> None:
        """Count one picture."""
        flags = total_flags(result)
        self.pictures += 1
        self.right += result.class_index == label
        self.bitops += result.bitops
        self.saturations += flags.saturations if flags else 0
        self.wraps += flags.wraps if flags else 0
        self.width += float(average_width(result.bits))
        self.settings[result.bits] += 1
        for counter, pair in zip(self.chosen, result.bits, strict=True):
            counter[pair] += 1


def print_tallies(console: Console, tallies: Sequence[Tally], title: str) -> None:
    """Print a row for each policy and, if widths vary between pictures, how often each layer used each width."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for heading in ("bits", "top-1", "right", "average width", "BitOPs", "saturations", "wraps"):
        table.add_column(heading, justify="left" if heading == "bits" else "right")
    for tally in tallies:
        n = tally.pictures
        table.add_row(
            tally.policy,
            f"{100 * tally.right / n:.2f} %",
            f"{tally.right}/{n}",
            f"{tally.width / n:.3f}",
            giga(tally.bitops // n).strip(),
            str(tally.saturations),
            str(tally.wraps),
        )
    console.print(table)
    for tally in tallies:
        if len(tally.settings) > 1:
            _print_choices(console, tally)


def _print_choices(console: Console, tally: Tally) -> None:
    pairs = sorted({pair for counter in tally.chosen for pair in counter})
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
        title=f"widths chosen under '{tally.policy}': {len(tally.settings)} different settings",
        title_justify="left",
    )
    table.add_column("layer")
    for pair in pairs:
        table.add_column(f"{widths_text(pair)} bits", justify="right")
    for layer, counter in zip(tally.plan.graph.layers, tally.chosen, strict=True):
        table.add_row(layer, *(f"{100 * counter[pair] / tally.pictures:.1f} %" for pair in pairs))
    console.print(table)
