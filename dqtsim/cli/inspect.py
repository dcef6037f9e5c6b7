"""`dqtsim info` and `dqtsim target`: descriptions of a model, of this computer and of accelerators."""

import json
from pathlib import Path

import click

from .. import limits
from .common import available_cores, bits_option, console, target_option
from .process import ErrorGroup


@click.command("info")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@bits_option
@target_option
@click.option("--machine", is_flag=True, help="Show this computer: kernel, CPU, versions, cache. No MODEL is needed.")
@click.option("--json", "as_json", is_flag=True, help="Print --machine as one JSON object.")
def info_command(model: Path | None, bits: str | None, target_name: str, machine: bool, as_json: bool) -> None:
    """Show the layers, shapes, widths, proven register widths, scales and provenance of MODEL."""
    if as_json and (model is not None or not machine):
        raise click.UsageError("--json is for --machine without a MODEL.")
    if model is None and not machine:
        raise click.UsageError("Missing argument 'MODEL'.")
    if model is not None:
        _show_model(model, bits, target_name)
    if machine:
        from ..report.text.machine import facts, print_facts

        found = facts(available_cores())
        if as_json:
            click.echo(json.dumps(found))
        else:
            print_facts(console(), found)


def _show_model(model: Path, bits: str | None, target_name: str) -> None:
    from ..frontends import load
    from ..planner import plan
    from ..report.text.models import print_model
    from ..target import load_target
    from ..widths import apply_bits

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
    click.echo(limits.read_text(name) if name.endswith(".toml") else target_text(name), nl=False)
