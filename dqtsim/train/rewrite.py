"""`prepare`: a PyTorch classifier becomes a nested one."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.export import ExportedProgram

from dqtsim.train import given
from dqtsim.train.guard import check, copied, of_program
from dqtsim.train.network import NestedNetwork
from dqtsim.train.pixels import Pixels
from dqtsim.train.rules import NestingRules
from dqtsim.train.steps import Traced, converted
from dqtsim.train.tracing import trace

INPUT_ZERO_POINT = 128
INPUT_SCALE = 1 / 64


@dataclass(frozen=True)
class NestedConfig:
    """The arguments of `prepare` besides the network: the rules, a picture's shape, and the values of its codes.

    A code q of a picture stands for the pixel v = input_scale * (q - input_zero_point), and channel c of what the float
    network was trained on is (v - input_mean[c]) / input_std[c]; without mean and deviation it is v. So torchvision's
    networks, which normalise pixels from 0 to 1, take input_zero_point=0, input_scale=1/255, input_mean=(0.485, 0.456,
    0.406) and input_std=(0.229, 0.224, 0.225). Both fold into the first layers; padded taps of these hold the code
    next to the channel's mean, which is real 0 to half a code.
    """

    rules: NestingRules = field(default_factory=NestingRules)
    input_shape: tuple[int, ...] = (3, 32, 32)
    input_zero_point: int = INPUT_ZERO_POINT
    input_scale: float = INPUT_SCALE
    input_mean: tuple[float, ...] | None = None
    input_std: tuple[float, ...] | None = None

    @property
    def pixels(self) -> Pixels:
        """What the codes of a picture stand for."""
        return Pixels(self.input_shape, self.input_zero_point, self.input_scale, self.input_mean, self.input_std)

    def check(self) -> None:
        """Refuse values with which no network is possible."""
        self.rules.check()
        self.pixels.check()


def prepare(model: nn.Module | ExportedProgram, config: NestedConfig | None = None) -> NestedNetwork:
    """`model` with nested layers, on copies of its parameters and on its device; `model` itself is left as it is.

    It is read in eval mode; a program that torch.export made, as it was exported. The steps as read are always
    evaluated and compared with it. Steps of activations need `calibrate`, or `NestedNetwork.set_steps`. Raises
    ModelError for what is no network of float32 (see `given`), naming the module or operation that has no nested
    counterpart, or the first step whose values differ from the model's.
    """
    config = config or NestedConfig()
    config.check()
    placed = None if isinstance(model, ExportedProgram) else next(given.network(model).parameters(), None)
    device = torch.device("cpu") if placed is None else placed.device
    # The model may draw random numbers; the caller's generator must not change.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        traced = converted(config.pixels.folded(read(model, config)), torch.float32)
    network = NestedNetwork(traced, config.rules, config.input_shape, config.input_zero_point, config.input_scale)
    return network.to(device)


def read(model: nn.Module | ExportedProgram, config: NestedConfig) -> Traced:
    """The steps of `model` in float64, compared with it; raises ModelError as `prepare` does."""
    if isinstance(model, ExportedProgram):
        reading = trace(model, config.input_shape)
        check(of_program(model, reading.exported.batch), reading, config.pixels)
        return reading.traced
    own = copied(model)
    # Exporting may leave traces in the copy.
    reading = trace(copied(model), config.input_shape)
    check(own, reading, config.pixels)
    return reading.traced
