"""Shared parts of the commands: options, one-sentence errors, progress, and paths of output files."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engines.names import DEFAULT, ENGINE_NAMES, full_name
from ..errors import OutputError
from ..outputs import check_file

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..graph.model import Array, Widths
    from ..planner import Plan

WIDEST = 200
_RANGE = re.compile(r"(\d)-(\d)")
_PAIR = re.compile(r"w(\d)a(\d)")
Decorator = Callable[[Any], Any]


def options(*decorators: Decorator) -> Decorator:
    """Return the options as one decorator."""

    def decorate(function: Any) -> Any:
        for option in reversed(decorators):
            function = option(function)
        return function

    return decorate


model_argument: Decorator = click.argument("model", type=click.Path(path_type=Path))
input_option: Decorator = click.option(
    "--input", "input_path", required=True, type=click.Path(path_type=Path), help="A .npy file (uint8) or a picture."
)
bits_option: Decorator = click.option(
    "--bits",
    help="dynamic, 4, w4a8, a comma list (one entry a layer), or a .json/.toml plan. [default: the model's]",
)
target_option: Decorator = click.option(
    "--target", "target_name", default="default", show_default=True, help="Name of a target, or a .toml file."
)


class EngineName(click.Choice[str]):
    """The name of an engine, or an alias of it, which the help does not show."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the full name."""
        return super().convert(full_name(value), param, ctx)


engine_option: Decorator = click.option(
    "--engine",
    "engine_name",
    type=EngineName(ENGINE_NAMES),
    default=DEFAULT,
    show_default=True,
    help="Who computes: native is one program for the whole network.",
)


def available_cores() -> int:
    """Return the number of cores that this process may use; the computer can have more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


pictures_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Pictures: a folder of images or CIFAR-10, or a .npy file (uint8).",
)
threads_option: Decorator = click.option(
    "--threads",
    type=click.IntRange(1),
    default=available_cores,
    show_default="the cores available",
    help="Pictures run side by side; a single one is shared.",
)


def planned_input(model: Path, input_path: Path, bits: str | None, target_name: str) -> "tuple[Plan, Array, str]":
    """Return the plan of MODEL on a target, the samples of `--input` as codes, and the policy of the widths."""
    from ..engines.registry import check_codes
    from ..frontends import load
    from ..inputs.picture import read_input
    from ..planner import plan
    from ..target import load_target
    from ..widths import apply_bits

    target = load_target(target_name)
    graph, policy = apply_bits(load(model), bits)
    codes = read_input(input_path, graph)
    compiled = plan(graph, target)
    check_codes(compiled, codes)
    return compiled, codes, policy


def pairs_of_widths(text: str) -> "tuple[Widths, ...]":
    """Return the pairs of '2-8', '4,8' or '5,w8a6', each once, in order. Raises click.BadParameter."""
    found: list[Widths] = []
    for part in text.split(","):
        if whole := _RANGE.fullmatch(part):
            found += [(width, width) for width in range(int(whole[1]), int(whole[2]) + 1)]
        elif pair := _PAIR.fullmatch(part):
            found.append((int(pair[1]), int(pair[2])))
        elif part.isdecimal():
            found.append((int(part), int(part)))
        else:
            raise click.BadParameter("give widths such as 2-8, 4,8 or 5,w8a6")
    if not found or not all(1 <= width <= 8 for pair in found for width in pair):
        raise click.BadParameter("widths are from 1 to 8")
    return tuple(dict.fromkeys(found))


def console() -> "Console":
    """Return the console for results."""
    from rich.console import Console

    # names of models, layers and classes are plain text, even with brackets and colons; numbers are never shortened
    # to fit a narrow terminal, nor folded for a pipe
    return Console(highlight=False, markup=False, emoji=False, width=WIDEST, soft_wrap=True)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show progress and time left on stderr for `total` pieces of work; yields the function that counts one piece."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def counted(count: int, noun: str) -> str:
    """Return '1 picture' or '2 pictures'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def check_writable(path: Path, option: str, *suffixes: str) -> None:
    """Raise, before long work, if `path` could not be written, or is a file that the command reads."""
    if not path.parent.is_dir():
        raise OutputError(f"{option} writes into an existing folder; '{path.parent}' is none.")
    if path.suffix not in suffixes:
        kinds = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
        raise OutputError(f"{option} writes a {kinds} file; found '{path}'.")
    check_file(path)
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.params.get(str(parameter.name))
        for other in given if isinstance(given, tuple) else (given,):
            if option not in parameter.opts and isinstance(other, str | Path) and _same_file(path, Path(other)):
                raise OutputError(f"{option} would overwrite '{path}', which the command reads.")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of the two is not a file
        return False
