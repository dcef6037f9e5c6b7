"""Which layer hurts at which widths: as tables, sentences, JSON and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...fidelity import Fidelity, SignalToNoise
from ...graph.model import Widths
from ...sensitivity import Sensitivity
from .fidelity import finite
from .runs import widths_text

if TYPE_CHECKING:
    from rich.console import Console

# a table is at most 80 characters wide: a name, and columns such as " *-12.3"
_WIDE, _COLUMN = 80, 7
_COLUMNS = 7
TABLES = (
    "signal to noise of each step, all layers at these widths",
    "signal to noise of the result, one layer at these widths, others at {others}",
)

Ratios = Mapping[str, SignalToNoise]
Columns = Mapping[Widths, Ratios]


def bits_text(pair: Widths) -> str:
    """Return '4 bits' or 'w4a8'."""
    return f"{pair[0]} bits" if pair[0] == pair[1] else widths_text(pair)


def reference_text(found: Sensitivity) -> str:
    """Return what figures are against: 'float' or 'its own 8 bits'."""
    return "float" if found.against_float else f"its own {bits_text(found.widest)}"


def running_ratios(found: Sensitivity) -> Columns:
    """Return the first table, by pair and step."""
    return found.running


def alone_ratios(found: Sensitivity) -> Columns:
    """Return the second table, by pair and layer; its last row are all layers together."""
    return {
        pair: {layer: outputs.ratio for layer, outputs in layers.items()} | {"all layers": found.network[pair].ratio}
        for pair, layers in found.alone.items()
    }


def worst_rows(ratios: Ratios, layers: Sequence[str]) -> set[str]:
    """Return those of `layers` with the least signal to noise, none where nothing differs."""
    least = min((ratios[name].decibel for name in layers), default=float("inf"))
    return {name for name in layers if ratios[name].decibel == least < float("inf")}


def print_sensitivity(console: "Console", found: Sensitivity, title: str) -> None:
    """Print both tables and a sentence for each pair; the worst of a column has a star."""
    console.print(f"{title} against {reference_text(found)}", style="bold")
    steps = list(found.operators)
    _print(console, running_ratios(found), steps, TABLES[0])
    if found.alone:
        layers = list(next(iter(found.alone.values())))
        _print(console, alone_ratios(found), layers, TABLES[1].format(others=bits_text(found.widest)))
    for sentence in sentences(found):
        console.print(sentence)


def _print(console: "Console", columns: Columns, rows: Sequence[str], title: str) -> None:
    from rich.table import Table

    pairs = list(columns)
    for start in range(0, len(pairs), _COLUMNS):
        part = pairs[start : start + _COLUMNS]
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", title=f"{title}, dB", title_justify="left")
        table.add_column("")
        for pair in part:
            table.add_column(widths_text(pair), justify="right", min_width=_COLUMN - 1)
        worst = {pair: worst_rows(columns[pair], rows) for pair in part}
        for name in columns[part[0]]:
            cells = [_cell(columns[pair][name], worst=name in worst[pair]) for pair in part]
            table.add_row(
                cut_name(name, _WIDE - 1 - _COLUMN * len(part)), *cells, style=None if name in rows else "dim"
            )
        console.print(table)


def _cell(ratio: SignalToNoise, *, worst: bool) -> str:
    return f"{'*' if worst else ''}{ratio.decibel:.1f}"


def cut_name(name: str, most: int) -> str:
    """Return a name of at most `most` characters: a longer one without its middle."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"


def sentences(found: Sensitivity) -> list[str]:
    """Return a sentence for each pair: which layer alone costs most."""
    return [_sentence(found, pair) for pair in found.alone]


def _sentence(found: Sensitivity, pair: Widths) -> str:
    layer = found.worst(pair)
    if layer is None:
        return f"at {bits_text(pair)} no layer alone costs anything"
    outputs = found.alone[pair][layer]
    sentence = f"at {bits_text(pair)} {layer} alone costs most: {outputs.ratio.decibel:.1f} dB at the output"
    if outputs.classifies:
        owner = "float's" if found.against_float else f"those of {bits_text(found.widest)}"
        sentence += f", {outputs.agree} of {outputs.pictures} classes are {owner}"
    return sentence


def summary(found: Sensitivity) -> str:
    """Return what was measured: '14 steps, 9 layers alone, 16 pictures, against float'."""
    layers = len(next(iter(found.alone.values()), {}))
    return (
        f"{_counted(len(found.operators), 'step')}, {_counted(layers, 'layer')} alone at "
        f"{_counted(len(found.alone), 'pair')} of widths, {_counted(found.pictures, 'picture')}, against "
        f"{reference_text(found)}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def as_json(found: Sensitivity, **more: Any) -> dict[str, Any]:
    """Return all figures as JSON; decibels are null where they are infinite, and sums of squares say which way."""
    return {
        **more,
        "reference": "float" if found.against_float else "w{}a{}".format(*found.widest),
        "others": _pair(found.widest),
        "pictures": found.pictures,
        "steps": [
            {"name": name, "operator": operator, "widths": [_of_step(found, name, pair) for pair in found.network]}
            for name, operator in found.operators.items()
        ],
        "network": [_pair(pair) | _outputs(outputs) for pair, outputs in found.network.items()],
        "worst": [_pair(pair) | {"layer": found.worst(pair)} for pair in found.alone],
    }


def _of_step(found: Sensitivity, name: str, pair: Widths) -> dict[str, Any]:
    """Return the figures of a step at a pair; null what was not measured."""
    running = found.running.get(pair, {}).get(name)
    alone = found.alone.get(pair, {}).get(name)
    return _pair(pair) | {
        "as_it_runs": _ratio(running) if running else None,
        "alone": _outputs(alone) if alone else None,
    }


def _pair(pair: Widths) -> dict[str, Any]:
    return {"weights": pair[0], "activations": pair[1]}


def _ratio(ratio: SignalToNoise) -> dict[str, Any]:
    return {"signal_to_noise_db": finite(ratio.decibel), "signal": ratio.signal, "noise": ratio.noise}


def _outputs(outputs: Fidelity) -> dict[str, Any]:
    share = outputs.agree / outputs.pictures if outputs.classifies else None
    each = {name: finite(ratio.decibel) for name, ratio in outputs.each.items()}
    return _ratio(outputs.ratio) | {"same_class": share, "outputs_db": each}


def as_csv(found: Sensitivity) -> str:
    """Return one line per step and pair; decibels that were not measured are empty, infinite ones are inf."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "operator", "weights", "activations", "as_it_runs_db", "alone_db", "alone_same_class"])
    for name, operator in found.operators.items():
        for pair in found.network:
            running = found.running.get(pair, {}).get(name)
            alone = found.alone.get(pair, {}).get(name)
            figures = [f"{running.decibel:.3f}" if running else "", f"{alone.ratio.decibel:.3f}" if alone else ""]
            share = alone.agree / alone.pictures if alone and alone.classifies else ""
            writer.writerow([name, operator, *pair, *figures, share])
    return text.getvalue()
