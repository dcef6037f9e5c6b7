"""`dqtsim calibrate`: new pairs of widths for a nested model that exists."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import (
    check_writable,
    console,
    counted,
    model_argument,
    pairs_of_widths,
    pictures_option,
    progress,
    threads_option,
)

if TYPE_CHECKING:
    from ..fidelity import Fidelity
    from ..graph.model import Array, Graph, Widths


def _widths(_context: click.Context, _option: click.Parameter, text: str) -> "tuple[Widths, ...]":
    return pairs_of_widths(text)


@click.command("calibrate")
@model_argument
@pictures_option
@click.option("--widths", required=True, callback=_widths, help="The new ones, as 5,6,w8a6 or 2-4.")
@click.option(
    "--pictures", type=click.IntRange(1), default=100, show_default=True,
    help="Calibrate on so many; as many others, if there are some, measure the result.",
)  # fmt: skip
@threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The model with them, .onnx.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def calibrate_command(
    model: Path, data: Path, widths: "tuple[Widths, ...]", pictures: int, threads: int, output: Path, as_json: bool
) -> None:
    """Add widths to MODEL, a nested model, and write it to another file; what it has stays as it is.

    Each layer gets a row of bias, multiplier and shift for each new pair of widths, and a window for each new width of
    activations. They are fitted to the model's own results at its widest widths; it needs no float network and no
    PyTorch. Then the table: by widths, how near the results are to these.
    """
    from ..calibration import calibrate, check_pairs, named, reference_of
    from ..frontends import load
    from ..graph import save
    from ..inputs.calibration import read_pictures
    from ..report.text import fidelity
    from ..report.text.runs import widths_text

    check_writable(output, "-o", ".onnx")
    graph = load(model)
    check_pairs(graph, widths)
    with progress(2 * pictures, "images") as count:
        used, others = read_pictures(data, graph.input.shape[1:], model.stem, pictures, count)
    made = calibrate(graph, widths, used, threads, _say)
    measured, what = (others, "other pictures") if len(others) else (used, "pictures of the calibration")
    rows = _measure(made, reference_of(graph), measured, widths, threads)
    save(made, output)
    if as_json:
        click.echo(json.dumps(fidelity.as_json(rows, model=str(model), output=str(output), pictures=len(measured))))
        return
    whose = named(reference_of(graph))
    fidelity.print_fidelity(console(), rows, f"{model.name} against its {whose} on {len(measured)} {what}", whose)
    added = " ".join(widths_text(pair) for pair in widths)
    click.echo(f"{output}: widths {added} added, {counted(len(used), 'picture')} to calibrate")
    if graph.dynamic:
        click.echo("the controller chooses among the widths that it had; --bits asks for the new ones")


def _measure(
    graph: "Graph", reference: "Widths", pictures: "Array", widths: "tuple[Widths, ...]", threads: int
) -> "list[Fidelity]":
    """Return a row for each pair of widths, widest first, beside the results at the pair `reference`."""
    from ..engines.registry import run
    from ..fidelity import Fidelity, real
    from ..graph.results import meaning, results
    from ..planner import plan
    from ..target import load_target
    from ..widths import apply_bits

    expected: list[list[Array]] = []
    rows = []
    with progress((1 + len(widths)) * len(pictures), "pictures") as count:
        for w, a in [reference, *sorted(widths, reverse=True)]:
            compiled = plan(apply_bits(graph, f"w{w}a{a}")[0], load_target("default"))
            known = [(value.name, meaning(graph, value.name)) for value in results(graph)]
            row = Fidelity((w, a), graph)
            for index, result in enumerate(run(compiled, pictures, threads=threads)):
                if (w, a) == reference:
                    found = [(result.outputs[name], means) for name, means in known]
                    expected.append([real(codes, means) if means else codes for codes, means in found])
                else:
                    row.add(result, expected[index])
                count()
            rows.append(row)
    return rows[1:]


def _say(text: str) -> None:
    click.echo(text, err=True)
