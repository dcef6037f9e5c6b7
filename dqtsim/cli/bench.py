"""`dqtsim bench`: speed, beside other runtimes and the peak of the CPU."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import InputError
from ..outputs import write_file
from .common import check_writable, console, counted, model_argument, progress

if TYPE_CHECKING:
    from ..graph.model import Array, Graph
    from ..planner import Plan
    from ..target import Target

AGAINST = ("onnxruntime", "float")


@click.command("bench")
@model_argument
@click.option("--bits", "policies", multiple=True, help="As for run; repeat it to compare. [default: the model's]")
@click.option("--batch", type=click.IntRange(1), help="Pictures in a run. [default: those of --input, or 1]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of every contender.")
@click.option("--against", default="", help="onnxruntime (int8), float (onnxruntime in float32), or both with a comma.")
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Measured rounds.")
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Pictures. [default: random ones]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random pictures.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Name of a target, or a .toml file; repeat it to compare. [default: default]",
)
@click.option("--profile", is_flag=True, help="Show instead where the time of one picture goes, with one thread.")
@click.option("--program", is_flag=True, help="Print instead the native program: operations, buffers, constants.")
@click.option("--json", "json_path", help="Write every sample to a .json file, or print it only (-).")
def bench_command(
    model: Path,
    policies: tuple[str, ...],
    batch: int | None,
    threads: int,
    against: str,
    runs: int,
    input_path: Path | None,
    seed: int,
    targets: tuple[str, ...],
    profile: bool,
    program: bool,
    json_path: str | None,
) -> None:
    """Measure MODEL: milliseconds a picture, GMAC/s, share of the CPU's peak, and the ratio to other runtimes.

    Contenders run in turn within every round: dqtsim under the first --bits and --target, then under each other pair
    of them, then the other runtimes. Exit 1: a run gave other bits than the engine.
    """
    from ..bench.bench import measure, pictures
    from ..bench.show import as_json, print_finding
    from ..engines.registry import check_codes
    from ..frontends import load
    from ..inputs.picture import read_input

    if program:
        _print_program(model, policies, targets)
        return
    rivals = _rivals(against)
    if profile and (rivals or threads > 1):
        raise InputError("--profile looks at dqtsim alone, with one thread; it takes neither --against nor --threads.")
    if json_path not in (None, "-"):
        check_writable(Path(str(json_path)), "--json", ".json")
    if profile and (len(policies) > 1 or len(targets) > 1):
        raise InputError("--profile looks at one plan; it takes --bits and --target once.")
    graph = load(model)
    (policy, target, compiled), beside = _plans(graph, policies or (None,), targets or ("default",))
    given = None if input_path is None else read_input(input_path, graph)
    codes = pictures(compiled, batch or (1 if given is None else len(given)), seed, given)
    check_codes(compiled, codes)
    title = f"{graph.name}, bits {policy}, target {target.name}"
    context = {
        "model": str(model),
        "target": target.name,
        "bits_policy": policy,
        "input": str(input_path) if input_path else f"random, seed {seed}",
    }
    if profile:
        _profile(compiled, codes, runs, title, context, json_path)
        return
    with progress(runs, "rounds") as count:
        finding = measure(compiled, codes, threads=threads, runs=runs, against=rivals, done=count, beside=beside)
    sizes = f"batch of {counted(len(codes), 'picture')}, {counted(threads, 'thread')}"
    _show(lambda: print_finding(console(), finding, f"{title}, {sizes}"), as_json(finding, **context), json_path)
    sys.exit(1 if finding.different else 0)


def _plans(
    graph: "Graph", policies: Sequence[str | None], targets: Sequence[str]
) -> tuple[tuple[str, "Target", "Plan"], dict[str, "Plan"]]:
    """Return (name of the widths, target, plan) of the first pair, and the plans of all other pairs by name."""
    from ..planner import plan
    from ..target import load_target
    from ..widths import apply_bits

    machines = [load_target(name) for name in targets]
    found = {}
    for nested, policy in [apply_bits(graph, bits) for bits in policies]:
        for target in machines:
            parts = [f"bits {policy}"] * (len(policies) > 1) + [target.name] * (len(targets) > 1)
            found[", ".join(parts)] = (policy, target, plan(nested, target))
    if len(found) < len(policies) * len(targets):
        raise InputError("--bits and --target: what is compared must differ; found one of them twice.")
    first, *others = found.items()
    return first[1], {name: compiled for name, (_, _, compiled) in others}


def _print_program(model: Path, policies: Sequence[str], targets: Sequence[str]) -> None:
    """Print the program of one plan, for the instruction set that this process uses."""
    from ..engines.native import program_of
    from ..graph import load

    context = click.get_current_context()
    more = [
        option.opts[0]
        for option in context.command.params
        if option.name not in ("model", "policies", "targets", "program")
        and context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
    ]
    if more or len(policies) > 1 or len(targets) > 1:
        found = ", ".join(more) or "one of them more than once"
        raise InputError(f"--program measures nothing; it takes --bits and --target, once each; found {found}.")
    (_, _, compiled), _ = _plans(load(model), policies or (None,), targets or ("default",))
    click.echo(program_of(compiled))


def _profile(
    compiled: "Plan", codes: "Array", runs: int, title: str, context: Mapping[str, str], json_path: str | None
) -> None:
    from ..bench.profile import as_json, print_profile, profile

    with progress(runs, "runs") as count:
        found = profile(compiled, codes, runs, count)
    _show(lambda: print_profile(console(), found, f"{title}, 1 thread"), as_json(found, **context), json_path)


def _show(table: Callable[[], None], report: Mapping[str, Any], json_path: str | None) -> None:
    """Print the table, and write the report if asked for; `-` prints only the report."""
    if json_path == "-":
        click.echo(json.dumps(report))
        return
    table()
    if json_path is not None:
        with write_file(Path(json_path)) as aside:
            aside.write_text(json.dumps(report) + "\n", encoding="utf-8")


def _rivals(against: str) -> list[str]:
    names = [name.strip() for name in against.split(",")] if against else []
    if len(set(names)) != len(names) or not set(names) <= set(AGAINST):
        raise InputError(f"--against takes {' and '.join(AGAINST)}, each once; found '{against}'.")
    return names
