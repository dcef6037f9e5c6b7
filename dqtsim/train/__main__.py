"""`python -m dqtsim.train`: the same two commands as `dqtsim train` and `dqtsim export`."""

import ctypes
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dqtsim.errors import DqtsimError
from dqtsim.train.config import TrainConfig
from dqtsim.train.rules import ACTIVATION_RULES, WEIGHT_RULES

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_memory() -> None:
    """Let glibc keep freed blocks, where there is a glibc.

    Every step frees and takes the same large tensors. glibc hands such blocks back to the kernel, which then clears
    each page anew; on a virtual machine that was measured to cost more than the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, 1 << 25),
        (_M_TRIM_THRESHOLD, (1 << 31) - 1),
        (_M_TOP_PAD, 1 << 26),
    ):
        mallopt(parameter, value)


def _candidates(context: click.Context, option: click.Parameter, value: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [tuple(int(width) for width in part.split("/")) for part in value.split(",")]
        return tuple((pair[0], pair[-1]) for pair in pairs)
    except ValueError:
        raise click.BadParameter("give widths such as 2,4,8 or pairs of them such as 4/8,8/8") from None


Command = Callable[..., Any]

_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(TrainConfig) if field.default is not dataclasses.MISSING
}


def _number(name: str, text: str) -> Callable[[Command], Command]:
    default = _DEFAULTS[name]
    option = "--" + name.replace("_", "-")
    return click.option(option, type=type(default), default=default, show_default=True, help=text)


@click.group()
def main() -> None:
    """Train nested networks and export them as integer models."""


@main.command("train")
@click.argument("network", type=click.Choice(["resnet8"]))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CIFAR-10 or of images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in --out after its last whole epoch.")
@_number("seed", "Seed of everything random.")
@_number("float_epochs", "Epochs in floating point.")
@_number("uniform_epochs", "Epochs with the whole network at each candidate.")
@_number("dynamic_epochs", "Epochs with the controller.")
@_number("frozen_epochs", "The last of these, with batch norm as inference has it.")
@_number("batch_size", "Pictures per step.")
@click.option("--weight-rule", type=click.Choice(WEIGHT_RULES), default="MIDPOINT", show_default=True)
@click.option("--activation-rule", type=click.Choice(ACTIVATION_RULES), default="TIES_UP", show_default=True)
@click.option("--candidates", default="2,4,8", show_default=True, callback=_candidates, help="Widths to choose from.")
@_number("alpha", "Weight of the consistency term.")
@_number("beta", "Weight of the cost term.")
@click.option("--budget", type=float, default=_DEFAULTS["budget"], show_default=True, help="Wanted average width.")
@_number("information", "Weight of the information term.")
@click.option("--pictures", type=int, help="Use only the first training pictures.")
def train_command(network: str, resume: bool, **options: Any) -> None:
    """Train NETWORK; the folder --out gets a checkpoint and a row of log.jsonl per epoch.

    A float.pt that is already there is taken as the float network.
    """
    keep_memory()
    from dqtsim.train.loop import train

    train(TrainConfig(**options), resume=resume)


@main.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--model", type=click.Path(path_type=Path), required=True, help="The model file, .onnx.")
@click.option("--golden", type=click.Path(path_type=Path), help="Folder for golden vectors.")
@click.option("--golden-pictures", type=int, default=12, show_default=True, help="Pictures with dynamic widths.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the pictures are now.")
@click.option("--data-name", help="What to call the pictures.")
def export_command(**options: Any) -> None:
    """Fold RUN to integers, write the model and its golden vectors, print accuracies as JSON."""
    keep_memory()
    from dqtsim.train.commands import ExportConfig, export

    click.echo(json.dumps(export(ExportConfig(**options)), indent=2))


def run() -> None:
    """Run the command line; a user's error is one line on stderr and exit status 2."""
    try:
        main()
    except DqtsimError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
