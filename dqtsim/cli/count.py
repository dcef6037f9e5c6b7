"""`dqtsim count-ops` and `dqtsim new`: what networks cost."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from .common import bits_option, check_writable, console, model_argument, target_option

if TYPE_CHECKING:
    from ..graph.model import Widths
    from ..planner import Plan


@click.command("count-ops")
@model_argument
@bits_option
@target_option
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Count the run of this picture.")
@click.option(
    "--energy", "energy_name", default="horowitz-45nm", show_default=True, help="Energy table, or a .toml file."
)
@click.option("--by", type=click.Choice(["layer", "type", "width"]), default="layer", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: QONNX's keys and our own.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one CSV line per node.")
def count_command(
    model: Path,
    bits: str | None,
    target_name: str,
    input_path: Path | None,
    energy_name: str,
    by: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Count every operation and every moved bit of MODEL, with energy and cycles."""
    from ..control import apply_bits
    from ..energy import load_energy
    from ..graph import load
    from ..planner import plan
    from ..report import costs
    from ..report.counts import count
    from ..target import load_target

    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other.")
    target, energy = load_target(target_name), load_energy(energy_name)
    graph, policy = apply_bits(load(model), bits)
    compiled = plan(graph, target)
    widths, note = _widths(compiled, policy, input_path)
    counts = count(compiled, widths, energy)
    if as_json:
        report = {
            "model": str(model),
            "target": target.name,
            "bits_policy": policy,
            "bits": {layer: list(pair) for layer, pair in widths.items()},
            "inference_cost": costs.qonnx_block(counts),
            "dqtsim": {"energy_table": energy.name, **costs.own_block(compiled, counts)},
        }
        click.echo(json.dumps(report))
    elif as_csv:
        click.echo(costs.as_csv(counts), nl=False)
    elif by == "layer":
        costs.print_layers(console(), compiled, counts, f"{graph.name}, {note}")
    else:
        costs.print_by(console(), counts, by, f"{graph.name}, {note}")


def _widths(compiled: "Plan", policy: str, input_path: Path | None) -> "tuple[dict[str, Widths], str]":
    """Return the widths to count at, and how to say so."""
    from ..executor import check_codes, engine
    from ..picture import read_input

    graph = compiled.graph
    if input_path is not None:
        codes = read_input(input_path, graph)
        check_codes(compiled, codes)
        if len(codes) != 1:
            raise InputError(f"--input counts the run of one picture; '{input_path}' holds {len(codes)}.")
        result = engine(compiled, "jit")(codes, [])
        return dict(zip(graph.layers, result.bits, strict=True)), f"bits {policy}, picture {input_path.name}"
    planned = {step.node.name: list(step.call.bounds) for step in compiled.layer_steps()}
    widest = {layer: max(planned[layer], key=lambda pair: pair[0] * pair[1]) for layer in graph.layers}
    if graph.dynamic:
        return widest, "widest choice of the controller (give --input or --data for what it really chooses)"
    return widest, f"bits {policy}"


@click.command("new")
@click.argument("structure")
@click.option("--input-size", type=click.IntRange(1), help="Rows and columns of a picture. [default: the structure's]")
@click.option("--classes", type=click.IntRange(1), help="Classes. [default: the structure's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random weights.")
@click.option("--dynamic", is_flag=True, help="Add a controller; then the stem is pinned.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The model file, .onnx.")
def new_command(
    structure: str, input_size: int | None, classes: int | None, seed: int, dynamic: bool, output: Path
) -> None:
    """Write a network of a known STRUCTURE with random weights: for counting, benchmarks and tests.

    STRUCTURE is resnet8, resnet20, resnet18, resnet18-imagenet, resnet50 or mobilenetv2.
    """
    from ..graph import save
    from ..structures import build

    check_writable(output, "-o", ".onnx")
    graph = build(structure, input_size=input_size, classes=classes, seed=seed, dynamic=dynamic)
    save(graph, output)
    click.echo(f"{output}: {structure}, {len(graph.layers)} layers, {output.stat().st_size:,} bytes")
