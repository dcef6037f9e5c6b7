"""`dqtsim sensitivity`: which layer hurts at which widths."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..outputs import write_file
from .common import (
    check_writable,
    console,
    counted,
    model_argument,
    pairs_of_widths,
    pictures_option,
    progress,
    target_option,
    threads_option,
)

if TYPE_CHECKING:
    from ..graph.model import Widths
    from ..sensitivity import Sensitivity

PICTURES = 16
_KINDS = (".csv", ".png", ".svg", ".html")


def _widths(_context: click.Context, _option: click.Parameter, text: str | None) -> "tuple[Widths, ...] | None":
    return None if text is None else pairs_of_widths(text)


@click.command("sensitivity")
@model_argument
@pictures_option
@click.option(
    "--widths", callback=_widths, help="Such as 2-7, 4,6 or 5,w8a6. [default: those that the model was made for]"
)
@click.option(
    "--pictures", type=click.IntRange(1), default=PICTURES, show_default=True, help="Use so many, taken evenly."
)
@target_option
@threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Table .csv, plot .png or .svg, page .html.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sensitivity_command(
    model: Path,
    data: Path,
    widths: "tuple[Widths, ...] | None",
    pictures: int,
    target_name: str,
    threads: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Say which layer of MODEL hurts at which widths: signal to noise against the model's own widest pair.

    Two tables by layer and pair of widths: of each step when all layers run at the pair, and of the result when this
    layer alone does. Labels are not needed. `quantize --report` gives both against the float network.
    """
    from ..calibration import known_pairs
    from ..frontends import load
    from ..inputs.calibration import read_pictures
    from ..report.text import sensitivity
    from ..sensitivity import measure
    from ..target import load_target

    if output is not None:
        check_report(output, "-o")
    graph, target = load(model), load_target(target_name)
    used, _ = read_pictures(data, graph.input.shape[1:], graph.name, pictures)
    found = measure(graph, target, widths or known_pairs(graph), used, threads=threads, progress=progress)
    title = f"{model.name}, {counted(len(used), 'picture')},"
    if output is not None:
        write_report(output, found, title)
    if as_json:
        click.echo(json.dumps(sensitivity.as_json(found, model=str(model))))
        return
    sensitivity.print_sensitivity(console(), found, title)
    if output is not None:
        click.echo(f"{output}: {sensitivity.summary(found)}")


def check_report(path: Path, option: str) -> None:
    """Raise, before long work, if the report could not be written: another kind of file, or no matplotlib for it."""
    check_writable(path, option, *_KINDS)
    if path.suffix != ".csv":
        from ..report.plot import check_plots

        check_plots()


def write_report(path: Path, found: "Sensitivity", title: str) -> None:
    """Write the report as the kind of file that its suffix names."""
    from ..report.page.sensitivity import page
    from ..report.plot import plot
    from ..report.text.sensitivity import as_csv

    if path.suffix == ".csv":
        content = as_csv(found).encode()
    elif path.suffix == ".html":
        content = page(found, title).encode()
    else:
        content = plot(found, title, path.suffix.removeprefix("."))
    with write_file(path) as aside:
        aside.write_bytes(content)
