"""`dqtsim verify` and `dqtsim compare`: is every bit right?"""

import sys
from pathlib import Path

import click

from ..engines.names import ENGINE_NAMES, full_name
from ..errors import InputError
from .common import (
    bits_option,
    counted,
    engine_option,
    input_option,
    model_argument,
    planned_input,
    progress,
    target_option,
)


@click.command("verify")
@model_argument
@click.option(
    "--golden",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of golden vectors, or one .npz of it; may be repeated.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path))
@target_option
@engine_option
def verify_command(
    model: Path, paths: tuple[Path, ...], more: tuple[Path, ...], target_name: str, engine_name: str
) -> None:
    """Run MODEL on golden inputs and compare every tensor, bit by bit. Exit 0: same; 1: different; 2: wrong use."""
    from ..frontends import load
    from ..golden import verify
    from ..target import load_target

    graph = load(model)
    target = load_target(target_name)
    count = tensors = elements = failed = 0
    for verdict in verify(model, graph, target, engine_name, [*paths, *more]):
        count += 1
        tensors += verdict.tensors
        elements += verdict.elements
        failed += verdict.first is not None
        if verdict.first is None:
            click.echo(f"{verdict.path.name}: same, {verdict.tensors} tensors, {verdict.elements:,} elements")
        else:
            click.echo(
                f"{verdict.path.name}: DIFFERENT, {verdict.different_elements:,} of {verdict.elements:,} elements in "
                f"{verdict.different_tensors} of {verdict.tensors} tensors"
            )
            click.echo(f"  first divergence: {verdict.first}")
    click.echo(
        f"{counted(count, 'vector')}, {tensors:,} tensors, {elements:,} elements compared by engine {engine_name}: "
        f"{counted(failed, 'vector') if failed else 0} different"
    )
    sys.exit(1 if failed else 0)


@click.command("compare")
@model_argument
@input_option
@bits_option
@target_option
@click.option(
    "--engines",
    default="spec,native,onnxruntime",
    show_default=True,
    help="Two or more engines; the first is what the others are compared with.",
)
def compare_command(model: Path, input_path: Path, bits: str | None, target_name: str, engines: str) -> None:
    """Run MODEL by several engines and compare tensors and flags. Exit 0: same; 1: different; 2: wrong use."""
    from ..compare import compare_tensors
    from ..engines.registry import engine, traced

    names = [full_name(name) for name in engines.split(",")]
    if len(names) < 2 or len(set(names)) != len(names) or not set(names) <= set(ENGINE_NAMES):
        raise InputError(f"--engines takes two or more of {', '.join(ENGINE_NAMES)}; found '{engines}'.")
    compiled, codes, policy = planned_input(model, input_path, bits, target_name)
    executes = {name: engine(compiled, name) for name in names}
    tensors, elements, failed = (dict.fromkeys(names[1:], 0) for _ in range(3))
    with progress(len(codes), "pictures") as count:
        for index in range(len(codes)):
            sample = codes[index : index + 1]
            result, expected = traced(compiled, sample, executes[names[0]])
            for name in names[1:]:
                other, found = traced(compiled, sample, executes[name])
                comparison = compare_tensors(compiled, expected, found, f"engine {names[0]}")
                tensors[name] += comparison.tensors
                elements[name] += comparison.elements
                flags = {
                    layer
                    for layer, seen in other.flags.items()
                    if None not in (seen, result.flags[layer]) and seen != result.flags[layer]
                }
                if comparison.first is not None:
                    click.echo(f"picture {index}: {name} differs from {names[0]}: {comparison.first}")
                elif flags:
                    click.echo(f"picture {index}: {name} differs from {names[0]} in the flags of {sorted(flags)[0]}")
                failed[name] += comparison.first is not None or bool(flags)
            count()
    for name in names[1:]:
        click.echo(
            f"bits {policy}, {counted(len(codes), 'picture')}: {names[0]} against {name}, {tensors[name]:,} tensors, "
            f"{elements[name]:,} elements compared: {counted(failed[name], 'picture') if failed[name] else 0} different"
        )
    sys.exit(1 if any(failed.values()) else 0)
