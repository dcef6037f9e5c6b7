"""The command line: thin, lazy, composable.

Findings on stdout, progress on stderr; exit 0: same, 1: wrong bits, 2: wrong use.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import DqtsimError

if TYPE_CHECKING:
    from rich.console import Console

    from .executor import Result
    from .planner import Plan

ENGINE_NAMES = ("jit", "spec", "onnxruntime")


class _Group(click.Group):
    """Turns the errors that a user can mend into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DqtsimError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


def _with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_argument = click.argument("model", type=click.Path(path_type=Path))
machine_options = _with_options(
    click.option("--target", "target_name", default="default", show_default=True, help="Target name or .toml file."),
    click.option(
        "--engine",
        "engine_name",
        type=click.Choice(ENGINE_NAMES),
        default="jit",
        show_default=True,
        help="Who computes.",
    ),
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dqtsim")
def main() -> None:
    """Bit-accurate, integer-only simulator for networks with nested integer codes."""


@main.command("run")
@model_argument
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help=".npy (uint8) or picture.")
@click.option("--bits", help="dynamic, 4, w4a8, a comma list with one entry a layer, or a .json/.toml plan.")
@machine_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Pictures run side by side.")
@click.option("--dump", type=click.Path(path_type=Path), help="Write every named tensor as integers to an .npz file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run_command(
    model: Path,
    input_path: Path,
    bits: str | None,
    target_name: str,
    engine_name: str,
    threads: int,
    dump: Path | None,
    as_json: bool,
) -> None:
    """Run MODEL on a picture or a batch; every bit as the target gives it."""
    import json
    from time import perf_counter

    from .control import apply_bits
    from .executor import check_codes
    from .graph import load
    from .picture import read_input
    from .planner import plan
    from .report.runs import as_json as to_json
    from .report.runs import line, print_run
    from .target import load_target

    if dump is not None:
        _check_writable(dump)
    target = load_target(target_name)
    graph, policy = apply_bits(load(model), bits)
    codes = read_input(input_path, graph)
    compiled = plan(graph, target)
    check_codes(compiled, codes)
    console = _console()
    tensors: dict[str, Any] = {}
    results: list[Result] = []
    started = perf_counter()
    for index, (result, traced) in enumerate(_results(compiled, codes, engine_name, threads, trace=dump is not None)):
        results.append(result)
        tensors |= {name if len(codes) == 1 else f"{index}/{name}": array for name, array in traced.items()}
        if len(codes) > 1 and not as_json:
            click.echo(line(compiled, index, result))
        _progress(index + 1, len(codes))
    seconds = perf_counter() - started
    if dump is not None:
        _write_npz(dump, tensors)
    if as_json:
        report = to_json(compiled, results, model=str(model), engine=engine_name, policy=policy, seconds=seconds)
        click.echo(json.dumps(report))
    elif len(codes) == 1:
        print_run(console, compiled, results[0], policy=policy, engine=engine_name, seconds=seconds)
    else:
        _print_batch(compiled, results, policy, engine_name, seconds)


def _results(compiled: "Plan", codes: Any, engine_name: str, threads: int, *, trace: bool) -> Any:
    """Yield (result, tensors by name) for every sample."""
    from .executor import Trace, engine, run

    if not trace:
        yield from ((result, {}) for result in run(compiled, codes, engine_name, threads))
        return
    execute = engine(compiled, engine_name)
    for index in range(len(codes)):
        observer = Trace()
        result = execute(codes[index : index + 1], [observer])
        named = {"input": codes[index : index + 1], **observer.tensors}
        if "bits" in compiled.graph.initializers:
            named["bits"] = compiled.graph.initializers["bits"]
        yield result, named


def _print_batch(compiled: "Plan", results: "list[Result]", policy: str, engine_name: str, seconds: float) -> None:
    from .report.runs import average_width, giga, total_flags

    count = len(results)
    flags = [found for found in map(total_flags, results) if found is not None]
    widths = sum(average_width(compiled, result) for result in results) / count
    events = f"{sum(f.saturations for f in flags)} saturations, {sum(f.wraps for f in flags)} wraps, " if flags else ""
    click.echo(
        f"{count} pictures, {giga(sum(r.bitops for r in results) // count)}BitOPs and {widths:.2f} bits on average, "
        f"{events}bits {policy}, target {compiled.target.name}, engine {engine_name}, "
        f"{seconds * 1e3 / count:.1f} ms a picture"
    )


@main.command("verify")
@model_argument
@click.option(
    "--golden",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of golden vectors, or one .npz of it; may be repeated.",
)
@machine_options
def verify_command(model: Path, paths: tuple[Path, ...], target_name: str, engine_name: str) -> None:
    """Run MODEL on golden inputs and compare every tensor, bit by bit. Exit 0: same; 1: different; 2: wrong use."""
    from .golden import verify
    from .graph import load
    from .target import load_target

    graph = load(model)
    target = load_target(target_name)
    count = tensors = elements = failed = 0
    for verdict in verify(model, graph, target, engine_name, paths):
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
        f"{count} vectors, {tensors:,} tensors, {elements:,} elements compared by engine {engine_name}: "
        + (f"{failed} vectors differ" if failed else "0 different")
    )
    sys.exit(1 if failed else 0)


@main.command("info")
@model_argument
@click.option("--bits", help="As for run.")
@click.option("--target", "target_name", default="default", show_default=True, help="Target name or .toml file.")
def info_command(model: Path, bits: str | None, target_name: str) -> None:
    """Show the layers, shapes, widths, proven register widths, scales and provenance of MODEL."""
    from .control import apply_bits
    from .graph import load
    from .planner import plan
    from .report.models import print_model
    from .target import load_target

    graph, _ = apply_bits(load(model), bits)
    print_model(_console(), plan(graph, load_target(target_name)), model)


@main.group("target", cls=_Group)
def target_group() -> None:
    """The accelerators that networks run on."""


@target_group.command("list")
def target_list() -> None:
    """List the built-in targets."""
    from .target import load_target, target_names

    for name in target_names():
        click.echo(f"{name:<22}{load_target(name).description}")


@target_group.command("show")
@click.argument("name")
def target_show(name: str) -> None:
    """Print the TOML text of a built-in target, to copy and change; a .toml file is checked and printed."""
    from .target import load_target, target_text

    load_target(name)
    click.echo(Path(name).read_text(encoding="utf-8") if name.endswith(".toml") else target_text(name), nl=False)


def _console() -> "Console":
    from rich.console import Console

    # a pipe has no width: never fold tables for it
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160, soft_wrap=True)


def _progress(done: int, total: int) -> None:
    if total > 1 and sys.stderr.isatty():
        click.echo(f"\r{done} of {total} pictures", nl=done == total, err=True)


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise DqtsimError(f"--dump writes into an existing folder; '{path.parent}' is none.")
    if path.suffix != ".npz":
        raise DqtsimError(f"--dump writes an .npz file; found '{path}'.")


def _write_npz(path: Path, tensors: dict[str, Any]) -> None:
    """Write aside, then rename."""
    import os

    import numpy as np

    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            np.savez_compressed(file, **tensors)
        aside.replace(path)
    except OSError as error:
        raise DqtsimError(f"'{path}' cannot be written: {(error.strerror or str(error)).lower()}.") from None
    finally:
        aside.unlink(missing_ok=True)
