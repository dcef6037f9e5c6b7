"""`dqtsim quantize`: a trained float model becomes a nested one, without training and without Python."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..train.rules import WEIGHT_RULES, NestingRules
from .common import check_writable, console, counted, pairs_of_widths, progress, threads_option
from .sensitivity import PICTURES, check_report, write_report
from .training import _keep_memory, _needs_torch

if TYPE_CHECKING:
    from ..fidelity import Fidelity
    from ..graph.model import Array, Graph, Widths
    from ..sensitivity import Sensitivity
    from ..train.network import NestedNetwork
    from ..train.rules import WeightRule


def _widths(_context: click.Context, _option: click.Parameter, text: str) -> "tuple[Widths, ...]":
    """Return the pairs of '2-8', '4,8' or '5,w8a6', with 8 bits."""
    return tuple(sorted({*pairs_of_widths(text), (8, 8)}))


def _numbers(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter("give a number, or one per channel with commas") from None


@click.command("quantize")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calibrate", "data", type=click.Path(path_type=Path), required=True,
    help="Pictures: a folder of images or CIFAR-10, or a .npy file (uint8).",
)  # fmt: skip
@click.option(
    "--pictures", type=click.IntRange(1), default=100, show_default=True,
    help="Calibrate on so many; as many others, if there are some, measure the result.",
)  # fmt: skip
@click.option("--widths", default="2-8", show_default=True, callback=_widths, help="As 2-8, 4,8 or 5,w8a6; 8 is added.")
@click.option(
    "--weight-rule", type=click.Choice(WEIGHT_RULES), default="CENTROID", show_default=True,
    help="How weights nest; CENTROID has no error on average, which training would have to make up for.",
)  # fmt: skip
@click.option(
    "--adapt", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Rounds in which weights are adapted to 6 bits and below; 2 or 3 are enough.",
)  # fmt: skip
@click.option(
    "--input-range", type=click.Choice(["1", "255"]), default="1", show_default=True,
    help="The network's pixels are from 0 to this, before mean and deviation.",
)  # fmt: skip
@click.option("--input-mean", default="0", show_default=True, callback=_numbers, help="Taken off; one, or per channel.")
@click.option("--input-std", default="1", show_default=True, callback=_numbers, help="Divided by; one, or per channel.")
@threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The nested model, .onnx.")
@click.option("--golden", type=click.Path(path_type=Path), help="Folder for golden vectors, replaced whole.")
@click.option(
    "--golden-pictures", type=click.IntRange(1), default=1, show_default=True, help="Pictures in it, at all widths."
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="File that says which layer hurts: .csv, .png, .svg or .html."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quantize_command(
    model: Path,
    data: Path,
    pictures: int,
    widths: "tuple[Widths, ...]",
    weight_rule: "WeightRule",
    adapt: int,
    input_range: str,
    input_mean: tuple[float, ...],
    input_std: tuple[float, ...],
    threads: int,
    output: Path,
    golden: Path | None,
    golden_pictures: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Make MODEL, a float ONNX file or a program of torch.export (.pt2), nested; write it and what it keeps.

    What is read is compared with onnxruntime's run of the same file and refused if it differs. Then the table: by
    widths, how often the class is the float network's, and the outputs' signal to noise.

    For a network of torchvision: --input-mean 0.485,0.456,0.406 --input-std 0.229,0.224,0.225
    """
    _needs_torch()
    _keep_memory()
    from ..inputs.calibration import read_pictures
    from ..outputs import check_apart, check_folder
    from ..report.text import fidelity, sensitivity
    from ..train import quantize
    from ..train.calibration.adapt import check
    from ..train.golden import FOLDER

    check_writable(output, "-o", ".onnx")
    if report is not None:
        check_report(report, "--report")
    if golden is not None:
        check_folder(golden, FOLDER)
        check_apart(output, golden)
    _check_pixels(float(input_range), input_mean, input_std)
    check(adapt, widths)
    pixels = quantize.Pixels(float(input_range), input_mean, input_std)
    _say(f"reading {model}")
    source = quantize.read(model)
    with progress(2 * pictures, "images") as count:
        used, others = read_pictures(data, source.shape, model.stem, pictures, count)
    network = quantize.quantize(source, used, pixels, NestingRules(weight_rule, candidates=widths), _say, adapt)
    _say("writing the model" + (" and golden vectors" if golden else ""))
    graph = quantize.export(network, output, model, golden, used[:golden_pictures])
    measured, what = (others, "other pictures") if len(others) else (used, "pictures of the calibration")
    rows = _measure(graph, network, measured, widths, threads)
    notes = [
        f"{output}: {counted(len(used), 'picture')} to calibrate, x = {_formula(pixels)}",
        *network.notes,
    ]
    found: dict[str, Any] = {}
    if report is not None:
        layers = _measure_layers(graph, network, measured, widths, threads)
        write_report(report, layers, f"{model.name}, {counted(layers.pictures, 'picture')},")
        found["sensitivity"] = sensitivity.as_json(layers)
        notes += [*sensitivity.sentences(layers), f"{report}: {sensitivity.summary(layers)}"]
    if as_json:
        found |= {"model": str(model), "output": str(output), "pictures": len(measured)}
        click.echo(json.dumps(fidelity.as_json(rows, **found)))
        return
    fidelity.print_fidelity(console(), rows, f"{model.name} against float on {len(measured)} {what}")
    for note in notes:
        click.echo(note)


def _check_pixels(largest: float, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if min(std) <= 0:
        raise InputError(f"--input-std must be positive; found {min(std):g}.")
    # a mean of pixels to 255 for pixels to 1, which would give a useless model without a word
    outside = [value for value in mean if not 0 <= value <= largest]
    if outside:
        raise InputError(f"--input-mean must lie within --input-range, 0 to {largest:g}; found {outside[0]:g}.")


def _measure(
    graph: "Graph", network: "NestedNetwork", pictures: "Array", widths: "tuple[Widths, ...]", threads: int
) -> "list[Fidelity]":
    """Return a row for each pair of widths, widest first, of the integer engine's results beside float's."""
    from ..engines.registry import run
    from ..fidelity import Fidelity
    from ..planner import plan
    from ..target import load_target
    from ..train.quantize import float_outputs
    from ..widths import apply_bits

    expected = float_outputs(network, pictures)
    samples = pictures.reshape(-1, *graph.input.shape[1:])
    rows = []
    with progress(len(widths) * len(samples), "pictures") as count:
        for w, a in sorted(widths, reverse=True):
            compiled = plan(apply_bits(graph, f"w{w}a{a}")[0], load_target("default"))
            row = Fidelity((w, a), graph)
            for index, result in enumerate(run(compiled, samples, threads=threads)):
                row.add(result, [output[index] for output in expected])
                count()
            rows.append(row)
    return rows


def _measure_layers(
    graph: "Graph", network: "NestedNetwork", pictures: "Array", widths: "tuple[Widths, ...]", threads: int
) -> "Sensitivity":
    """Return which layer hurts, from a few of the pictures, taken evenly."""
    from ..sensitivity import measure
    from ..target import load_target
    from ..train.quantize import float_tensors

    few = pictures[:: max(1, len(pictures) // PICTURES)][:PICTURES].reshape(-1, *graph.input.shape[1:])
    _say(f"measuring which layer hurts, on {counted(len(few), 'picture')}")
    reference = partial(float_tensors, network)
    return measure(graph, load_target("default"), widths, few, reference, threads=threads, progress=progress)


def _formula(pixels: Any) -> str:
    """Return what a pixel is for the network, as text."""
    scaled = "q" if pixels.largest == 255 else "q / 255"
    if pixels.mean == (0.0,) and pixels.std == (1.0,):
        return scaled
    mean, std = (", ".join(f"{value:g}" for value in part) for part in (pixels.mean, pixels.std))
    return f"({scaled} - [{mean}]) / [{std}]"


def _say(text: str) -> None:
    click.echo(text, err=True)
