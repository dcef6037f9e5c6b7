"""`dqtsim report`: one page about a model."""

from pathlib import Path

import click

from .common import check_writable, model_argument, new_folder, progress, target_option, threads_option, written_aside


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
    "--figures", "folder", type=click.Path(path_type=Path), help="Folder for the page's plots, an .svg file each."
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
    from ..graph import load
    from ..report.distribution import labelled_pictures
    from ..report.figures import figures
    from ..report.html import page
    from ..report.study import check_pictures, count_widest, prepare, run_over
    from ..target import load_target

    check_writable(output, "-o", ".html")
    if folder is not None:
        new_folder(folder, "--figures")
    study = prepare(load(model), load_target(target_name), load_energy(energy_name), plans)
    if data is None:
        count_widest(study)
    else:
        split = labelled_pictures(study.graph, data, limit)
        check_pictures(study, split)
        with progress(len(study.records) * len(split), "pictures") as count:
            run_over(study, split, threads, count)
    text = page(study, model)
    with written_aside(output) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
    if folder is not None:
        for name, figure in figures(text).items():
            with written_aside(folder / f"{name}.svg") as aside:
                aside.write_text(figure, encoding="utf-8", newline="\n")
    settings = f"{len(study.records)} settings" + (f", {len(study.labels):,} pictures" if data else "")
    click.echo(f"{output}: {settings}, {output.stat().st_size:,} bytes")
