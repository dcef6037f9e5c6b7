"""`prepare`: a PyTorch classifier becomes a nested one."""

from dataclasses import dataclass, field

import torch
from torch import nn

from dqtsim.errors import InputError
from dqtsim.train import given
from dqtsim.train.device import of
from dqtsim.train.guard import check, copied
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rules import TOP_CODE, NestingRules
from dqtsim.train.steps import converted
from dqtsim.train.tracing import trace

INPUT_ZERO_POINT = 128
INPUT_SCALE = 1 / 64


@dataclass(frozen=True)
class NestedConfig:
    """The arguments of `prepare` besides the network: the rules, a picture's shape, and the values of its codes.

    A code q of a picture stands for input_scale * (q - input_zero_point), as in the float network's training.
    """

    rules: NestingRules = field(default_factory=NestingRules)
    input_shape: tuple[int, int, int] = (3, 32, 32)
    input_zero_point: int = INPUT_ZERO_POINT
    input_scale: float = INPUT_SCALE

    def check(self) -> None:
        """Refuse values with which no network is possible."""
        self.rules.check()
        if not 0 <= self.input_zero_point <= TOP_CODE or not self.input_scale > 0:
            raise InputError(
                f"A picture's zero point must be a code and its scale positive, but they are {self.input_zero_point} "
                f"and {self.input_scale}."
            )


def prepare(model: nn.Module, config: NestedConfig | None = None) -> NestedNetwork:
    """`model` with nested layers, on copies of its parameters and on its device; `model` itself is left as it is.

    It is read in eval mode. The steps as read are always evaluated and compared with it. Steps of activations need
    `calibrate`, or `NestedNetwork.set_steps`. Raises ModelError for what is no network of float32 (see `given`), naming
    the module or operation that has no nested counterpart, or the first step whose values differ from the model's.
    """
    config = config or NestedConfig()
    config.check()
    own = copied(given.network(model))
    device = of(model)
    # The model may draw random numbers; the caller's generator must not change.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Exporting may leave traces in the copy.
        reading = trace(copied(model), config.input_shape)
        check(own, reading, config.input_shape, config.input_zero_point, config.input_scale)
    traced = converted(reading.traced, torch.float32)
    network = NestedNetwork(traced, config.rules, config.input_shape, config.input_zero_point, config.input_scale)
    return network.to(device)
