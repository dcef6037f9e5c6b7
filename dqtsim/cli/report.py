"""`dqtsim report`: one page about a model."""

import json
from collections.abc import Mapping
from pathlib import Path

import click

from ..outputs import MANIFEST, Kind, check_apart, check_folder, write_file, write_folder
from .common import check_writable, model_argument, progress, target_option, threads_option

FIGURES = Kind(("model", "model_sha256", "report"), lambda manifest: manifest["report"])


@click.command("report")
@model_argument
@click.option("--data", type=click.Path(path_type=Path), help="Folder of CIFAR-10 or of images.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first test pictures.")
@click.option(
    "--plan", "plans", multiple=True, type=click.Path(path_type=Path), help="A plan file to compare; may be repeated."
)
@target_option
@click.option(
    "--energy", "energy_name", default="horowitz-45nm", show_default=True, help="Energy table, or a .toml file."
)
@threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The page, .html.")
@click.option(
    "--figures",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder for the page's plots, .svg; it is replaced whole.",
)
def report_command(
    model: Path,
    data: Path | None,
    limit: int | None,
    plans: tuple[Path, ...],
    target_name: str,
    energy_name: str,
    threads: int,
    output: Path,
    folder: Path | None,
) -> None:
    """Write one self-contained HTML page about MODEL: cost by layer and, with --data, accuracy and chosen widths."""
    from ..energy import load_energy
    from ..frontends import load
    from ..inputs.dataset import read_labelled
    from ..report.page.figures import figures
    from ..report.page.html import page
    from ..report.page.study import check_pictures, count_widest, prepare, run_over
    from ..target import load_target

    check_writable(output, "-o", ".html")
    beside = folder is not None and folder.resolve() == output.resolve().parent
    if folder is not None:
        check_folder(folder, FIGURES)
        if not beside:
            check_apart(output, folder)
    study = prepare(load(model), load_target(target_name), load_energy(energy_name), plans)
    if data is None:
        count_widest(study)
    else:
        split = read_labelled(study.graph, data, limit=limit)
        check_pictures(study, split)
        with progress(len(study.records) * len(split), "pictures") as count:
            run_over(study, split, threads, count)
    text = page(study, model)
    if not beside:
        with write_file(output) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    if folder is not None:
        plots = {f"{name}.svg": figure for name, figure in figures(text).items()}
        _write_plots(folder, plots | ({output.name: text} if beside else {}), model)
    settings = f"{len(study.records)} settings" + (f", {len(study.labels):,} pictures" if data else "")
    click.echo(f"{output}: {settings}, {output.stat().st_size:,} bytes")


def _write_plots(folder: Path, files: Mapping[str, str], model: Path) -> None:
    from ..golden import hash_file

    manifest = {"model": model.name, "model_sha256": hash_file(model), "report": sorted(files)}
    with write_folder(folder, FIGURES) as aside:
        for name, text in files.items():
            (aside / name).write_text(text, encoding="utf-8", newline="\n")
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
