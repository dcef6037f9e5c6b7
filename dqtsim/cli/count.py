"""`dqtsim count-ops` and `dqtsim new`: the cost of networks."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..errors import InputError
from .common import (
    bits_option,
    check_writable,
    console,
    counted,
    model_argument,
    planned_input,
    progress,
    target_option,
    threads_option,
)

if TYPE_CHECKING:
    from ..frontends import ModelFile
    from ..frontends.products import Products
    from ..graph.model import Widths
    from ..planner import Plan


@click.command("count-ops")
@model_argument
@bits_option
@target_option
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Count the run of this picture.")
@click.option("--data", type=click.Path(path_type=Path), help="Distributions over the test pictures of this folder.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first test pictures of --data.")
@threads_option
@click.option(
    "--energy", "energy_name", default="horowitz-45nm", show_default=True, help="Energy table, or a .toml file."
)
@click.option("--by", type=click.Choice(["layer", "type", "width"]), default="layer", show_default=True)
@click.option(
    "--check", is_flag=True, help="Only count the run of --input a second time, while the law executes it: minutes."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: QONNX's keys and our own.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one CSV line per node.")
def count_command(
    model: Path,
    bits: str | None,
    target_name: str,
    input_path: Path | None,
    data: Path | None,
    limit: int | None,
    threads: int,
    energy_name: str,
    by: str,
    check: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Count every operation and every moved bit of MODEL, with energy and cycles.

    Of a standard quantized model (QDQ, QOperator, QONNX): MACs and BitOPs by the widths found there.

    With --check, exit 0: both counts are the same; 1: they differ; 2: wrong use.
    """
    from ..frontends import open_model

    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other.")
    if check and (as_json or as_csv or data is not None or _given("by")):
        raise InputError("--check takes neither --data nor --by, --json and --csv.")
    if check and input_path is None:
        raise InputError("--check executes the run of one picture; give it as --input.")
    opened = open_model(model)
    foreign = opened.products()
    output = "json" if as_json else "csv" if as_csv else by
    if data is None and limit is not None:
        raise InputError("--limit is for --data.")
    if foreign is not None:
        _refuse_options("bits", "target_name", "input_path", "data", "energy_name", "check")
        _count_foreign(foreign, model, output)
    elif data is not None:
        if input_path is not None:
            raise InputError("--input and --data exclude each other.")
        _count_over_pictures(opened, model, bits, target_name, data, limit, threads, energy_name, output)
    elif check and input_path is not None:
        sys.exit(_count_twice(model, bits, target_name, input_path, energy_name))
    else:
        _count_nested(opened, model, bits, target_name, input_path, energy_name, output)


def _count_nested(
    opened: "ModelFile",
    model: Path,
    bits: str | None,
    target_name: str,
    input_path: Path | None,
    energy_name: str,
    output: str,
) -> None:
    from ..counting.counts import count
    from ..energy import load_energy
    from ..planner import plan
    from ..report.text import costs
    from ..target import load_target
    from ..widths import DYNAMIC, apply_bits, rows_of

    target, energy = load_target(target_name), load_energy(energy_name)
    graph, policy, rows = opened.load(), bits, None
    if bits is None or bits == DYNAMIC or graph.dynamic or input_path is not None:
        graph, policy = apply_bits(graph, bits)
    else:
        rows = rows_of(graph, bits)  # counting at other widths needs no other graph
    compiled = plan(graph, target)
    if input_path is not None:
        widths, note = _widths_of_run(compiled, input_path), f"bits {policy}, picture {input_path.name}"
    elif rows is not None:
        widths, note = dict(zip(graph.layers, rows, strict=True)), f"bits {policy}"
    else:
        widths, note = _widest(compiled, str(policy))
    counts = count(compiled, widths, energy)
    if output == "json":
        report = {
            "model": str(model),
            "target": target.name,
            "bits_policy": policy,
            "bits": {layer: list(pair) for layer, pair in widths.items()},
            "inference_cost": costs.qonnx_block(counts),
            "dqtsim": costs.own_block(compiled, counts, energy),
        }
        click.echo(json.dumps(report))
    elif output == "csv":
        click.echo(costs.as_csv(counts), nl=False)
    elif output == "layer":
        costs.print_layers(console(), compiled, counts, f"{graph.name}, {note}", energy)
    else:
        costs.print_by(console(), counts, output, f"{graph.name}, {note}")


def _count_over_pictures(
    opened: "ModelFile",
    model: Path,
    bits: str | None,
    target_name: str,
    data: Path,
    limit: int | None,
    threads: int,
    energy_name: str,
    output: str,
) -> None:
    from ..counting.distribution import Distribution
    from ..energy import load_energy
    from ..engines.registry import check_codes, run
    from ..inputs.dataset import read_labelled
    from ..planner import plan
    from ..report.text.distribution import distribution_block, print_distribution
    from ..target import load_target
    from ..widths import apply_bits

    if output not in ("layer", "json"):
        raise InputError("--data gives distributions as tables or --json; --csv and --by are for one picture.")
    target, energy = load_target(target_name), load_energy(energy_name)
    graph, policy = apply_bits(opened.load(), bits)
    compiled = plan(graph, target)
    images = read_labelled(graph, data, limit=limit).images
    check_codes(compiled, images)
    found = Distribution(compiled, energy)
    with progress(len(images), "pictures") as done:
        for result in run(compiled, images, threads=threads):
            found.add(result.bits)
            done()
    if output == "json":
        report = {"model": str(model), "target": target.name, "bits_policy": policy, "energy_table": energy.name}
        click.echo(json.dumps(report | {"distribution": distribution_block(found)}))
    else:
        print_distribution(console(), found, f"{graph.name}, bits {policy}")


def _widths_of_run(compiled: "Plan", input_path: Path) -> "dict[str, Widths]":
    """Return the widths at which one picture runs."""
    from ..engines.registry import check_codes, engine
    from ..inputs.picture import read_input

    codes = read_input(input_path, compiled.graph)
    check_codes(compiled, codes)
    if len(codes) != 1:
        raise InputError(f"--input counts the run of one picture; '{input_path}' holds {len(codes)}.")
    result = engine(compiled)(codes, [])
    return dict(zip(compiled.graph.layers, result.bits, strict=True))


def _widest(compiled: "Plan", policy: str) -> "tuple[dict[str, Widths], str]":
    """Return the model's own widths, or those with the most BitOPs if a controller decides, and a phrase for them."""
    widest = compiled.widest()
    if compiled.graph.dynamic:
        return widest, "widest choice of the controller (give --input or --data for what it really chooses)"
    return widest, f"bits {policy}"


def _refuse_options(*names: str) -> None:
    """Raise InputError if an option was given that needs a nested model."""
    options = {parameter.name: parameter.opts[-1] for parameter in click.get_current_context().command.params}
    for name in names:
        if _given(name):
            raise InputError(f"{options[name]} is for nested models; a standard model carries its own widths.")


def _given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) == ParameterSource.COMMANDLINE


def _count_twice(model: Path, bits: str | None, target_name: str, input_path: Path, energy_name: str) -> int:
    """Print whether both ways to count agree for the run of one picture; return the exit code."""
    from ..counting.by_execution import count_by_execution, different_nodes
    from ..counting.counts import count
    from ..energy import load_energy

    energy = load_energy(energy_name)
    compiled, codes, policy = planned_input(model, input_path, bits, target_name)
    if len(codes) != 1:
        raise InputError(f"--input counts the run of one picture; '{input_path}' holds {len(codes)}.")
    result, executed = count_by_execution(compiled, codes)
    promised = count(compiled, dict(zip(compiled.graph.layers, result.bits, strict=True)), energy)
    different = different_nodes(promised, executed)
    for name in different:
        click.echo(f"node '{name}': the counts from its shapes and from the law's execution differ")
    click.echo(
        f"bits {policy}, picture {input_path.name}: {counted(len(promised), 'node')} counted from shapes and from the "
        f"law's execution: {counted(len(different), 'node') if different else 0} different"
    )
    return 1 if different else 0


def _count_foreign(found: "Products", model: Path, output: str) -> None:
    from ..counting.foreign import count_foreign
    from ..counting.macs import inference_cost
    from ..report.text.nodes import nodes_block, nodes_csv, print_nodes

    nodes = count_foreign(found)
    if output == "json":
        report = {
            "model": str(model),
            "inference_cost": inference_cost(nodes),
            "dqtsim": nodes_block(nodes, found.others),
        }
        click.echo(json.dumps(report))
    elif output == "csv":
        click.echo(nodes_csv(nodes), nl=False)
    else:
        print_nodes(console(), nodes, found.others, output, f"{found.network}, MACs and BitOPs of a standard model")


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
