"""`dqtsim plan`: the best static widths under a budget."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from ..outputs import write_file
from .common import check_writable, model_argument, progress, target_option, threads_option

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("plan")
@model_argument
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CIFAR-10 or of images.")
@click.option("--budget", "budget_text", required=True, help="Per picture: 4.0bits, 120MBitOPs, 8uJ or 90000cycles.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The plan file, .toml.")
@click.option("--pictures", type=click.IntRange(1), default=256, show_default=True, help="Training pictures to use.")
@click.option(
    "--refine",
    "tries",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Whole plans to try; those with one pair of widths everywhere always are.",
)
@threads_option
@click.option(
    "--energy", "energy_name", default="horowitz-45nm", show_default=True, help="Energy table, or a .toml file."
)
@target_option
def plan_command(
    model: Path,
    data: Path,
    budget_text: str,
    output: Path,
    pictures: int,
    tries: int,
    threads: int,
    energy_name: str,
    target_name: str,
) -> None:
    """Search the best static widths of MODEL under a budget, on training pictures; `--bits PLAN` then uses them.

    Every layer's sensitivity is measured with the integer engine; the choice is solved exactly. What layers cost in
    accuracy does not really add up, so whole plans are measured then: that one and the uniform ones within the budget,
    and with --refine others near the best of these.
    """
    import numpy as np

    from .. import search
    from ..energy import load_energy
    from ..frontends import load
    from ..graph.results import require_scores
    from ..inputs.dataset import read_labelled
    from ..switched import Switched, free_layers
    from ..target import load_target

    check_writable(output, "-o", ".toml")
    budget = search.Budget.read(budget_text)
    graph, target = load(model), load_target(target_name)
    require_scores(graph)
    split = read_labelled(graph, data, "train")
    priced = search.costs(graph, target, load_energy(energy_name), budget.unit)
    layers = free_layers(graph)
    if not layers:
        raise InputError(f"a plan chooses the widths of layers that are not pinned; model '{graph.name}' has none.")
    # pictures from the whole split, because it may be sorted by class
    taken = range(0, len(split), max(1, len(split) // pictures))[:pictures]
    images, labels = split.images[list(taken)], split.labels[list(taken)]
    # refuse an impossible budget before the long part
    search.best_choice(np.zeros((len(layers), len(graph.candidates))), priced, budget)
    runs = Switched(graph, target, graph.candidates)
    with progress(1 + len(layers) * (len(graph.candidates) - 1), "measurements") as count:
        table = search.sensitivities(runs, images, labels, threads=threads, progress=count)
    choice = search.best_choice(table, priced, budget)
    with progress(max(tries, len(graph.candidates)) + 1, "plans") as count:

        def measured(chosen: "Sequence[int]") -> float:
            count()
            return search.cross_entropy(runs, chosen, images, labels, threads)[0]

        choice = search.refined(choice, table, priced, budget, measured, tries)
    loss, accuracy = search.cross_entropy(runs, choice, images, labels, threads)
    cost = f"{float(priced.total(choice)):.6g} {budget.unit}"
    notes = [
        f"best static plan for {model.name} within {budget} per picture: {cost}",
        f"sensitivities from {len(images)} training pictures; on these, top-1 {100 * accuracy:.2f} %, loss {loss:.4f}",
    ]
    with write_file(output) as aside:
        aside.write_text(search.as_toml(graph, choice, notes), encoding="utf-8")
    click.echo(f"{output}: {notes[0]}")
    click.echo(notes[1])
