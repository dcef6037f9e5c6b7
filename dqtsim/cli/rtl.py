"""`dqtsim vectors` and `dqtsim cosim`: the circuit beside the simulator."""

import json
import sys
from pathlib import Path
from time import perf_counter

import click

from ..errors import InputError
from ..outputs import MANIFEST, check_folder, write_folder
from .common import (
    bits_option,
    console,
    counted,
    input_option,
    model_argument,
    planned_input,
    progress,
    target_option,
)
from .process import ErrorGroup


@click.command("vectors")
@model_argument
@input_option
@bits_option
@target_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder, replaced whole.",
)
@click.option("--layer", "layers", multiple=True, help="Only this layer; may be repeated.")
@click.option("--seed", type=int, help="Corner cases from this seed in place of the model's codes and tables.")
def vectors_command(
    model: Path,
    input_path: Path,
    bits: str | None,
    target_name: str,
    output: Path,
    layers: tuple[str, ...],
    seed: int | None,
) -> None:
    """Write what goes into and comes out of each layer of MODEL, for any test bench."""
    from ..golden import hash_file
    from ..rtl import vectors
    from ..rtl.corner import corner

    check_folder(output, vectors.FOLDER)
    compiled, codes, policy = planned_input(model, input_path, bits, target_name)
    if len(codes) != 1:
        raise InputError(f"vectors are made from one picture; found {len(codes)}.")
    hardware = vectors.parameters(compiled)
    recorded = vectors.record(compiled, codes, layers)
    order = [step.node.name for step in compiled.layer_steps()]
    names = []
    with write_folder(output, vectors.FOLDER) as aside:
        for vector in recorded:
            index = order.index(vector.name)
            names.append(vectors.folder_name(index, vector))
            made = vector if seed is None else corner(compiled, vector, seed + index)
            vectors.write(made, hardware, aside / names[-1])
        manifest = {"format": vectors.FORMAT, "model": model.name, "model_sha256": hash_file(model), "bits": policy}
        manifest |= {"target": compiled.target.name, "seed": seed, "layers": names}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    click.echo(
        f"{counted(len(names), 'layer')} of '{compiled.graph.name}' on target {compiled.target.name}, "
        f"bits {policy}: {output}"
    )


@click.command("cosim")
@model_argument
@input_option
@bits_option
@target_option
@click.option("--simulator", type=click.Choice(["verilator", "icarus"]), default="verilator", show_default=True)
@click.option("--layers", help="Comma list of layers. [default: all]")
def cosim_command(
    model: Path, input_path: Path, bits: str | None, target_name: str, simulator: str, layers: str | None
) -> None:
    """Run MODEL's layers through the circuit and compare, bit by bit. Exit 0: same; 1: different; 2: wrong use."""
    from ..rtl import cosim, vectors

    compiled, codes, policy = planned_input(model, input_path, bits, target_name)
    hardware = vectors.parameters(compiled)
    names = layers.split(",") if layers else []
    recorded = [
        (index, vector) for index in range(len(codes)) for vector in vectors.record(compiled, codes[[index]], names)
    ]
    bench = cosim.build(hardware, [vector for _, vector in recorded], simulator)
    started = perf_counter()
    outputs = cycles = failed = 0
    with progress(len(recorded), "layers") as count:
        for index, vector in recorded:
            finding = cosim.simulate(bench, hardware, vector)
            outputs += finding.words
            cycles += finding.cycles
            failed += bool(finding.fault)
            verdict = f"DIFFERENT, {finding.fault}" if finding.fault else f"same, {finding.words:,} outputs"
            where = f"picture {index}: " if len(codes) > 1 else ""
            w, a = vector.widths
            click.echo(f"{where}{vector.name} w{w}a{a}: {verdict}, {finding.cycles:,} cycles")
            count()
    click.echo(
        f"bits {policy}, target {compiled.target.name}, {simulator}: {counted(len(recorded), 'layer')}, {outputs:,} "
        f"accumulators and outputs compared, {counted(failed, 'layer') if failed else 0} different; {cycles:,} cycles, "
        f"{(perf_counter() - started) * 1000:.0f} ms"
    )
    sys.exit(1 if failed else 0)


@click.group("rtl", cls=ErrorGroup)
def rtl_group() -> None:
    """The circuit: what a target makes of it."""


@rtl_group.command("params")
@click.argument("target_name", metavar="TARGET")
@click.option("--model", type=click.Path(path_type=Path), help="Take master width, rules and options from this model.")
def params_command(target_name: str, model: Path | None) -> None:
    """Print the parameters of the module dqt_layer for TARGET as SystemVerilog, one a line.

    Without --model: master width 8, MIDPOINT weights, TIES_UP activations and rounding.
    """
    from ..frontends import load
    from ..graph import Arithmetic
    from ..planner import machine_of
    from ..rtl import vectors
    from ..spec.rules import Nesting
    from ..target import load_target

    target = load_target(target_name)
    graph = load(model) if model else None
    rules = graph.arithmetic if graph else Arithmetic(weight_rule=Nesting.MIDPOINT)
    nodes = graph.nodes if graph else ()
    for name, value in vectors.parameters_of(machine_of(rules, target), target, nodes).items():
        click.echo(f"localparam int {name} = {value};")


@rtl_group.command("area")
@click.option("--mapping", "mappings", multiple=True, help="Only this mapping; may be repeated. [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the count of every kind of cell.")
def area_command(mappings: tuple[str, ...], as_json: bool) -> None:
    """Estimate areas: cells of the elements and of tiles after synthesis by Yosys, mapped in several ways."""
    from ..report.text.areas import area_block, print_areas
    from ..rtl import area

    unknown = [name for name in mappings if name not in area.MAPPINGS]
    if unknown:
        raise InputError(f"'{unknown[0]}' is no mapping; known are {', '.join(area.MAPPINGS)}.")
    chosen = [name for name in area.MAPPINGS if name in mappings or not mappings]
    with progress(len(chosen), "mappings") as count:
        found = area.measure(chosen, count)
    if as_json:
        click.echo(json.dumps(area_block(found)))
    else:
        print_areas(console(), found)
