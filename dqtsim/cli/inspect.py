"""`dqtsim info` and `dqtsim target`: what a model and an accelerator are."""

from pathlib import Path

import click

from .common import ErrorGroup, bits_option, console, model_argument, target_option


@click.command("info")
@model_argument
@bits_option
@target_option
def info_command(model: Path, bits: str | None, target_name: str) -> None:
    """Show the layers, shapes, widths, proven register widths, scales and provenance of MODEL."""
    from ..control import apply_bits
    from ..graph import load
    from ..planner import plan
    from ..report.models import print_model
    from ..target import load_target

    graph, _ = apply_bits(load(model), bits)
    print_model(console(), plan(graph, load_target(target_name)), model)


@click.group("target", cls=ErrorGroup)
def target_group() -> None:
    """The accelerators that networks run on."""


@target_group.command("list")
def target_list() -> None:
    """List the built-in targets."""
    from ..target import load_target, target_names

    for name in target_names():
        click.echo(f"{name:<22}{load_target(name).description}")


@target_group.command("show")
@click.argument("name")
def target_show(name: str) -> None:
    """Print the TOML text of a built-in target, to copy and change; a .toml file is checked and printed."""
    from ..target import load_target, target_text

    load_target(name)
    click.echo(Path(name).read_text(encoding="utf-8") if name.endswith(".toml") else target_text(name), nl=False)
