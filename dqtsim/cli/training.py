"""`dqtsim train` and `dqtsim export`: from pictures to a model file. PyTorch is imported when they run."""

import ctypes
import dataclasses
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import limits
from ..errors import InputError, cut, reason
from ..train.config import COSTS, DEVICES, PRECISIONS, RELAXATIONS, TEACHERS, RunDir, TrainConfig
from ..train.rules import ACTIVATION_RULES, NETWORK_NAMES, WEIGHT_RULES
from .common import Decorator, check_writable

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


def _pairs(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    try:
        pairs = [tuple(int(width) for width in part.split("/")) for part in value.split(",")]
        return tuple((pair[0], pair[-1]) for pair in pairs)
    except ValueError:
        raise click.BadParameter("give widths such as 2,4,8 or pairs of them such as 4/8,8/8") from None


def _read_config(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """Make the keys of a TOML file the defaults of this command's options."""
    if path is None:
        return
    try:
        tree = limits.toml_tree(limits.read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the configuration '{path}' cannot be read: {reason(error)}.") from None
    except ValueError as error:
        raise InputError(f"the configuration '{path}' is not TOML: {str(error).rstrip('.')}.") from None
    known = sorted(str(option.name) for option in context.command.params if option.name not in ("config", "resume"))
    unknown = [key for key in tree if key not in known]
    if unknown:
        raise InputError(f"the configuration '{path}' may hold {', '.join(known)}; found '{cut(unknown[0])}'.")
    for key, value in tree.items():
        # Pairs may be a list of widths or of pairs, as well as the text of the command line.
        if isinstance(value, list):
            tree[key] = ",".join("/".join(map(str, part)) if isinstance(part, list) else str(part) for part in value)
    context.default_map = tree


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


def _resumed(options: dict[str, Any], told: Mapping[str, bool]) -> dict[str, Any]:
    """Return the options; those that were not given are taken from the run in `out`. `told`: flags of other names."""
    own = RunDir(options["out"]).read_config()
    source = click.get_current_context().get_parameter_source
    given = [name for name in options if told.get(name) or source(name) is not ParameterSource.DEFAULT]
    return {name: options[name] if name in given else getattr(own, name) for name in options}


@click.command("train")
@click.option(
    "--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_read_config,
    help="TOML file with these options as keys (underscores); the command line goes before it.",
)  # fmt: skip
@click.argument("network", type=click.Choice(NETWORK_NAMES))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CIFAR-10 or of images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in --out after its last whole epoch.")
@_number("width", "Factor on the network's channel counts.")
@_number("seed", "Seed of everything random.")
@_number("float_epochs", "Epochs in floating point.")
@_number("uniform_epochs", "Epochs with the whole network at each pair of widths.")
@_number("dynamic_epochs", "Epochs with the controller.")
@_number("frozen_epochs", "The last of these, with batch norm as inference has it.")
@_number("settled_epochs", "The last of these, with the controller left as it is.")
@_number("exact_epochs", "The last epochs, with the forward values of the exported model.")
@_number("batch_size", "Pictures per step.")
@_number("float_rate", "Peak learning rate in floating point.")
@_number("nested_rate", "Peak learning rate of the uniform epochs.")
@_number("dynamic_rate", "Peak learning rate of the dynamic epochs.")
@_number("step_rate", "Learning rate of the quantizers' steps.")
@_number("controller_rate", "Learning rate of the controller.")
@_number("weight_decay", "In floating point.")
@_number("nested_weight_decay", "In nested epochs.")
@_number("smoothing", "Of labels.")
@_number("gradient_limit", "Largest norm of a gradient.")
@click.option("--weight-rule", type=click.Choice(WEIGHT_RULES), default="MIDPOINT", show_default=True)
@click.option("--activation-rule", type=click.Choice(ACTIVATION_RULES), default="TIES_UP", show_default=True)
@click.option("--candidates", default="2,4,8", show_default=True, callback=_pairs, help="Widths, or pairs such as 4/8.")
@click.option("--separately", is_flag=True, help="Weights and activations apart: all pairs of the candidates' widths.")
@click.option("--consistency", callback=_pairs, help="K' of eq. 11. [default: the candidates]")
@click.option("--pairs-per-step", type=int, help="Pairs of K' per step: the widest, others at random. [default: all]")
@click.option("--shared-norm", is_flag=True, help="One row of batch norm statistics for all widths.")
@_number("alpha", "Weight of the consistency term (eq. 11).")
@_number("beta", "Weight of the cost term (eq. 11).")
@click.option("--cost", type=click.Choice(COSTS), default="bits", show_default=True, help="What the cost term counts.")
@click.option("--budget", type=float, help="Average width; or MBitOPs, uJ or cycles per picture. [default: 3.75 bits]")
@click.option("--target", default="default", show_default=True, help="Whose cycles and energy: a target or .toml file.")
@click.option("--energy", default="horowitz-45nm", show_default=True, help="Energy table, or a .toml file.")
@click.option("--no-budget", is_flag=True, help="Lower the cost as far as beta drives it.")
@_number("information", "Weight of the information term (ours).")
@click.option("--relaxation", type=click.Choice(RELAXATIONS), default="gumbel", show_default=True)
@_number("temperature", "Of Gumbel-softmax.")
@click.option("--final-temperature", type=float, help="What it falls to over the dynamic epochs.")
@_number("distill", "Share of the teacher's predictions in the targets.")
@click.option(
    "--teacher", type=click.Choice(TEACHERS), default="float", show_default=True,
    help="The float network, or the widest pair of the same step.",
)  # fmt: skip
@_number("ema", "Decay of the averaged parameters that are evaluated and exported; 0 is none.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
    help="What convolutions train in; auto is bfloat16 where the device has its instructions.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where to train; auto is a GPU (cuda) where there is one.",
)  # fmt: skip
@_number("evaluate_every", "Epochs between measurements of accuracy; a phase's last epoch always has one.")
@click.option("--pictures", type=click.IntRange(1), help="Use only the first training pictures.")
@click.option(
    "--size", type=click.IntRange(1),
    help="Crop and scale the pictures of an image folder to this, and read them when needed.  [default: all at once]",
)  # fmt: skip
def train_command(resume: bool, separately: bool, no_budget: bool, **options: Any) -> None:
    """Train NETWORK nested; the folder --out gets a checkpoint, and a row of log.jsonl and log.csv per epoch.

    TensorBoard shows that folder: tensorboard --logdir OUT. --resume takes options that are not given from the run.

    A float.pt of the same network that is already in --out is taken as the float network, and a uniform.pt beside it as
    the nested network that the dynamic epochs begin with: so one network serves several budgets.
    """
    _needs_torch()
    _keep_memory()
    from ..train.loop import train

    if separately:
        weights, activations = (list(dict.fromkeys(part)) for part in zip(*options["candidates"], strict=True))
        options["candidates"] = tuple(product(weights, activations))
    if options["budget"] is None and not no_budget and options["cost"] == "bits":
        options["budget"] = _DEFAULTS["budget"]
    if options["budget"] is not None and no_budget:
        raise InputError("--budget and --no-budget exclude each other.")
    if resume:
        options = _resumed(options, {"candidates": separately, "budget": no_budget})
    train(TrainConfig(**options), resume=resume)


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--model", type=click.Path(path_type=Path), required=True, help="The model file, .onnx.")
@click.option("--golden", type=click.Path(path_type=Path), help="Folder for golden vectors, replaced whole.")
@click.option("--golden-pictures", type=click.IntRange(1), default=12, show_default=True, help="Pictures, dynamic.")
@click.option("--pictures", type=click.IntRange(1), help="Test pictures for the accuracies.  [default: all]")
@click.option("--data", type=click.Path(path_type=Path), help="Where the pictures are now.")
@click.option("--data-name", help="What to call the pictures.")
def export_command(**options: Any) -> None:
    """Fold RUN to integers, write the model and its golden vectors, print accuracies as JSON."""
    _needs_torch()
    _keep_memory()
    from ..train.commands import ExportConfig, export_run

    check_writable(options["model"], "-o", ".onnx")
    click.echo(json.dumps(export_run(ExportConfig(**options)), indent=2))
