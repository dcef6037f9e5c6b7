"""A trained float model in a file becomes a nested model in a file, without training."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dqtsim import __version__, limits
from dqtsim.errors import InputError, reason
from dqtsim.graph import save
from dqtsim.graph.model import Graph
from dqtsim.train import program
from dqtsim.train.calibration import calibrate
from dqtsim.train.folding import fold
from dqtsim.train.golden import write_golden
from dqtsim.train.network import NestedNetwork
from dqtsim.train.onnx import network as float_onnx
from dqtsim.train.onnx import reference
from dqtsim.train.onnx.network import FloatFile
from dqtsim.train.program import ProgramFile
from dqtsim.train.rewrite import NestedConfig, prepare
from dqtsim.train.rules import NestingRules

Pictures = npt.NDArray[np.uint8]
# Pictures that are compared with onnxruntime, and those computed at once.
_COMPARED, _TOGETHER = 8, 16


@dataclass(frozen=True)
class Pixels:
    """What a picture's bytes are for the network: (largest * byte / 255 - mean) / std, one number per channel."""

    largest: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def values(self, pictures: Pictures) -> torch.Tensor:
        """The network's input of uint8 pictures [N, C, ...], float32."""
        shape = (1, -1, *([1] * (pictures.ndim - 2)))
        mean, std = (torch.tensor(part, dtype=torch.float64).reshape(shape) for part in (self.mean, self.std))
        scaled = torch.from_numpy(pictures).double() * (self.largest / 255)
        return ((scaled - mean) / std).float()

    def config(self, rules: NestingRules, shape: tuple[int, ...]) -> NestedConfig:
        """The arguments of `prepare` for such pictures of `shape` (C, H, W). Raises InputError for a wrong count."""
        each: dict[str, Any] = {}
        for name, part in (("input_mean", self.mean), ("input_std", self.std)):
            if len(part) not in (1, shape[0]):
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} must have one number or one per channel, {shape[0]}, and has {len(part)}.")
            each[name] = part * (shape[0] // len(part))
        if set(each["input_mean"]) == {0.0} and set(each["input_std"]) == {1.0}:
            each = {}
        return NestedConfig(rules, shape, input_zero_point=0, input_scale=self.largest / 255, **each)  # type: ignore[arg-type,unused-ignore]


def read(path: Path) -> FloatFile | ProgramFile:
    """A float ONNX file or a program of torch.export, by its content. Raises InputError or ModelError."""
    try:
        with limits.open_file(path, limits.MODEL_BYTES) as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"the model file '{path}' cannot be read: {reason(error)}.") from None
    return program.read(path) if program.is_program(start) else float_onnx.read(path)


def quantize(
    file: FloatFile | ProgramFile,
    pictures: Pictures,
    pixels: Pixels,
    rules: NestingRules,
    say: Callable[[str], None],
    adapt: int = 0,
) -> NestedNetwork:
    """The nested network of a float model, calibrated on pictures uint8 [N, C, H, W]; `say` is told what goes on.

    `adapt` is that of `calibrate`.

    Raises ModelError where the model as read differs from onnxruntime's run of the same file, or has no nested
    counterpart.
    """
    config = pixels.config(rules, file.shape)
    if isinstance(file, FloatFile):
        say("comparing what was read with onnxruntime")
        reference.check(file, pixels.values(pictures[:_COMPARED]))
    say("reading the network's steps")
    with warnings.catch_warnings():
        # A program's module warns about PyTorch's own workings when it is copied.
        warnings.simplefilter("ignore")
        network = prepare(file.network, config)
    for note in network.notes:
        say(note)
    say(f"calibrating on {len(pictures)} pictures")
    return calibrate(network, [torch.from_numpy(pictures)], adapt=adapt, progress=say)


def export(network: NestedNetwork, path: Path, source: Path, golden: Path | None, pictures: Pictures) -> Graph:
    """Write the model, and golden vectors of the pictures uint8 [N, C, H, W] if a folder is given."""
    producer = {
        "name": "dqtsim quantize",
        "version": __version__,
        "torch": str(torch.__version__),
        "source": source.name,
    }
    graph = fold(network, None, name=path.stem, producer=producer)
    save(graph, path)
    if golden is not None:
        own = torch.from_numpy(pictures).reshape(-1, *graph.input.shape[1:])
        command = f"dqtsim quantize {source.name} -o {path.name} --golden {golden.name}"
        write_golden(graph, own, None, golden, model=path, source="calibration", command=command, count=len(own))
    return graph


def float_outputs(network: NestedNetwork, pictures: Pictures) -> list[npt.NDArray[np.float64]]:
    """The float values of the network's outputs, [N, ...] each, in the order of the graph's outputs."""
    found: list[list[torch.Tensor]] = []
    for start in range(0, len(pictures), _TOGETHER):
        values = network.activations(torch.from_numpy(pictures[start : start + _TOGETHER]))
        found.append([values[name] for name in network.outputs])
    return [torch.cat(values).double().cpu().numpy() for values in zip(*found, strict=True)]


def float_tensors(network: NestedNetwork, sample: Pictures) -> dict[str, npt.NDArray[np.float32]]:
    """The float values [1, ...] of all steps for one sample uint8 (1, ...), by the names of the graph's tensors."""
    values = network.activations(torch.from_numpy(sample.reshape(1, *network.shape)))
    return {name: value.cpu().numpy() for name, value in values.items()}
