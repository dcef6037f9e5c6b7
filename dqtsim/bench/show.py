"""A benchmark as a table and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ..engines.names import DEFAULT, JSON_NAMES
from ..report.text.machine import cpu, versions
from .bench import Finding

_PACKAGES = ("dqtsim", "numba", "llvmlite", "numpy", "onnxruntime")


def machine() -> dict[str, str]:
    """Return the CPU's model name, Python's version, and the versions of the packages that computed."""
    return {"cpu": cpu(), **versions(_PACKAGES)}


def print_finding(console: Console, finding: Finding, title: str) -> None:
    """Print a row for each contender and for the peak, and below them the conditions of the measurement."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for heading in ("contender", "as", "a picture", "10 % to 90 %", "GMAC/s", "of the peak", "dqtsim is"):
        table.add_column(heading, justify="left" if heading in ("contender", "as") else "right")
    for row in finding.rows:
        low, high = (finding.milliseconds(seconds) for seconds in row.timing.spread)
        share = finding.gmacs(row) / finding.peak_gmacs
        table.add_row(
            row.name,
            row.form,
            f"{finding.milliseconds(row.timing.median):.3f} ms",
            f"{low:.3f} to {high:.3f} ms",
            f"{finding.gmacs(row):.2f}",
            f"{100 * share:.1f} %",
            "" if row is finding.rows[0] else f"{finding.speed(row):.3g} x as fast",
        )
    table.add_row("peak", finding.probe.instruction, "", "", f"{finding.peak_gmacs:.2f}", "100 %", "", style="dim")
    console.print(table)
    total = finding.looked_at
    if finding.different:
        console.print(
            f"WRONG BITS: {finding.different} of {total} runs of dqtsim differ from the engine numba", style="bold red"
        )
    else:
        console.print(f"dqtsim gave the bits of the engine numba in all {total} runs that were looked at")
    for row in finding.rows[1:]:
        if row.agreeing is not None:
            console.print(f"{row.name} gives dqtsim's class for {row.agreeing} of {finding.batch}")
    console.print(
        f"{finding.rows[0].macs:,} MACs a picture; constants {finding.weights_bytes:,} bytes, "
        f"largest live set {finding.live_bytes:,} bytes, held by the engine {finding.held_bytes:,} bytes"
    )
    entries = machine()
    packages = ", ".join(f"{name} {entries[name]}" for name in ("numba", "onnxruntime") if name in entries)
    console.print(f"{entries['cpu']}, {finding.runs} rounds, {packages}", style="dim")


def as_json(finding: Finding, **context: Any) -> dict[str, Any]:
    """Return a benchmark with every sample as one JSON object; `context` (model, bits, ...) comes first."""
    return {
        **context,
        "batch": finding.batch,
        "threads": finding.threads,
        "runs": finding.runs,
        "machine": machine(),
        "macs": finding.rows[0].macs,
        "constants_bytes": finding.weights_bytes,
        "largest_live_set_bytes": finding.live_bytes,
        "held_bytes": finding.held_bytes,
        "different_runs": finding.different,
        "checked_runs": finding.looked_at,
        "peak": {
            "instruction": finding.probe.instruction,
            "gmacs_per_second": finding.peak_gmacs,
            "macs_per_run": finding.probe.macs,
            "seconds": list(finding.peak.seconds),
        },
        "contenders": [
            {
                "name": row.name,
                # the engine keeps its old name in JSON until the next version
                "form": row.form.replace(f"engine {DEFAULT}", f"engine {JSON_NAMES[DEFAULT]}"),
                "milliseconds_per_picture": finding.milliseconds(row.timing.median),
                "milliseconds_10_90": [finding.milliseconds(seconds) for seconds in row.timing.spread],
                "macs": row.macs,
                "gmacs_per_second": finding.gmacs(row),
                "share_of_peak": finding.gmacs(row) / finding.peak_gmacs,
                "dqtsim_times_as_fast": finding.speed(row),
                "same_class": row.agreeing,
                "seconds": list(row.timing.seconds),
            }
            for row in finding.rows
        ],
    }
