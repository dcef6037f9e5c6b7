"""`dqtsim evaluate`: accuracy on labelled pictures, every one through the integer engine."""

from pathlib import Path

import click

from .common import console, engine_option, model_argument, progress, target_option, threads_option


@click.command("evaluate")
@model_argument
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CIFAR-10 or of images.")
@click.option("--bits", multiple=True, help="As for run; repeat it for a row each. [default: the model's]")
@click.option("--limit", type=click.IntRange(1), help="Use only the first test pictures.")
@threads_option
@target_option
@engine_option
def evaluate_command(
    model: Path,
    data: Path,
    bits: tuple[str, ...],
    limit: int | None,
    threads: int,
    target_name: str,
    engine_name: str,
) -> None:
    """Run MODEL on the test pictures of a data set: accuracy, average widths and cost, one row for each --bits."""
    from ..engines.registry import check_codes, run
    from ..frontends import load
    from ..graph.results import require_scores
    from ..inputs.dataset import read_labelled
    from ..planner import plan
    from ..report.text.evaluation import Tally, print_tallies
    from ..target import load_target
    from ..widths import apply_bits

    graph, target = load(model), load_target(target_name)
    require_scores(graph)
    plans = []
    for spec in bits or (None,):
        chosen, policy = apply_bits(graph, spec)
        plans.append((policy, plan(chosen, target)))
    split = read_labelled(graph, data, limit=limit)
    images, labels = split.images, split.labels
    check_codes(plans[0][1], images)
    tallies = []
    with progress(len(plans) * len(images), "pictures") as count:
        for policy, compiled in plans:
            tally = Tally(policy, compiled)
            for result, label in zip(run(compiled, images, engine_name, threads), labels, strict=True):
                tally.add(result, int(label))
                count()
            tallies.append(tally)
    print_tallies(console(), tallies, f"{model.name} on {len(images)} test pictures, engine {engine_name}")
