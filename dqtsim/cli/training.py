"""`dqtsim train` and `dqtsim export`: from pictures to a model file. PyTorch is imported when they run."""

import ctypes
import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from ..train.config import TrainConfig
from ..train.rules import ACTIVATION_RULES, WEIGHT_RULES
from .common import Decorator

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(TrainConfig) if field.default is not dataclasses.MISSING
}


def _number(name: str, text: str) -> Decorator:
    """Return the option for one number of TrainConfig, with its default."""
    default = _DEFAULTS[name]
    return click.option(
        f"--{name.replace('_', '-')}", type=type(default), default=default, show_default=True, help=text
    )


def _candidates(_context: click.Context, _option: click.Parameter, value: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [tuple(int(width) for width in part.split("/")) for part in value.split(",")]
        return tuple((pair[0], pair[-1]) for pair in pairs)
    except ValueError:
        raise click.BadParameter("give widths such as 2,4,8 or pairs of them such as 4/8,8/8") from None


def _needs_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError('training needs PyTorch; install it with pip install "dqtsim[train]".') from None


def _keep_memory() -> None:
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


@click.command("train")
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
@click.option(
    "--candidates", default="2,4,8", show_default=True, callback=_candidates, help="Widths, or pairs such as 4/8."
)
@_number("alpha", "Weight of the consistency term (eq. 11).")
@_number("beta", "Weight of the cost term (eq. 11).")
@click.option("--budget", type=float, default=_DEFAULTS["budget"], show_default=True, help="Wanted average width.")
@_number("information", "Weight of the information term (ours).")
@click.option("--pictures", type=click.IntRange(1), help="Use only the first training pictures.")
def train_command(network: str, resume: bool, **options: Any) -> None:
    """Train NETWORK nested; the folder --out gets a checkpoint and a row of log.jsonl per epoch.

    A float.pt that is already in --out is taken as the float network.
    """
    _needs_torch()
    _keep_memory()
    from ..train.loop import train

    train(TrainConfig(**options), resume=resume)


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--model", type=click.Path(path_type=Path), required=True, help="The model file, .onnx.")
@click.option("--golden", type=click.Path(path_type=Path), help="Folder for golden vectors.")
@click.option("--golden-pictures", type=click.IntRange(1), default=12, show_default=True, help="Pictures, dynamic.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the pictures are now.")
@click.option("--data-name", help="What to call the pictures.")
def export_command(**options: Any) -> None:
    """Fold RUN to integers, write the model and its golden vectors, print accuracies as JSON."""
    _needs_torch()
    _keep_memory()
    from ..train.commands import ExportConfig, export

    click.echo(json.dumps(export(ExportConfig(**options)), indent=2))
