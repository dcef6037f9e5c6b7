"""`dqtsim run`: a model on a picture or a batch."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..outputs import write_file
from .common import (
    bits_option,
    check_writable,
    console,
    engine_option,
    input_option,
    model_argument,
    planned_input,
    progress,
    target_option,
    threads_option,
)

if TYPE_CHECKING:
    from ..engines.result import Result
    from ..graph.model import Array
    from ..planner import Plan


@click.command("run")
@model_argument
@input_option
@bits_option
@target_option
@engine_option
@threads_option
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
    from ..report.text import runs

    if dump is not None:
        check_writable(dump, "--dump", ".npz")
    compiled, codes, policy = planned_input(model, input_path, bits, target_name)
    tensors: dict[str, Array] = {}
    results: list[Result] = []
    started = perf_counter()
    with progress(len(codes), "pictures") as count:
        for index, (result, named) in enumerate(_results(compiled, codes, engine_name, threads, dump is not None)):
            results.append(result)
            tensors |= {name if len(codes) == 1 else f"{index}/{name}": array for name, array in named.items()}
            if len(codes) > 1 and not as_json:
                click.echo(runs.line(compiled, index, result))
            count()
    seconds = perf_counter() - started
    if dump is not None:
        _write(dump, tensors)
    if as_json:
        report = runs.as_json(compiled, results, model=str(model), engine=engine_name, policy=policy, seconds=seconds)
        click.echo(json.dumps(report))
    elif len(codes) == 1:
        runs.print_run(console(), compiled, results[0], policy=policy, engine=engine_name, seconds=seconds)
    else:
        click.echo(runs.batch_line(compiled, results, policy=policy, engine=engine_name, seconds=seconds))


def _results(
    compiled: "Plan", codes: "Array", engine_name: str, threads: int, trace: bool
) -> "Iterator[tuple[Result, dict[str, Array]]]":
    """Yield the result of every sample and, if traced, all its tensors by name."""
    from ..engines.registry import engine, run, traced

    if not trace:
        yield from ((result, {}) for result in run(compiled, codes, engine_name, threads))
        return
    execute = engine(compiled, engine_name)
    for index in range(len(codes)):
        yield traced(compiled, codes[index : index + 1], execute)


def _write(path: Path, tensors: dict[str, Any]) -> None:
    import numpy as np

    with write_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **tensors)
