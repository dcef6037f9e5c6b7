"""A nested network: the steps of a float network, each at the widths that a policy gives it."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn

from dqtsim.errors import InputError, ModelError
from dqtsim.train import steps
from dqtsim.train.controller import Controller
from dqtsim.train.device import of
from dqtsim.train.floats import evaluate
from dqtsim.train.integer import IntegerExact
from dqtsim.train.modules.base import Codes, Nested, Policy, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.modules.moves import is_move, moved
from dqtsim.train.modules.pointwise import (
    NestedAdd,
    NestedAveragePool,
    NestedConcat,
    NestedMultiply,
    NestedRescale,
    NestedTable,
)
from dqtsim.train.rules import NestingRules
from dqtsim.train.steps import INPUT, Traced, converted

Values = dict[str, Codes | torch.Tensor]
_MODULES: dict[type[steps.Step], Callable[[Any], Nested]] = {
    steps.Add: NestedAdd,
    steps.Multiply: NestedMultiply,
    steps.AveragePool: NestedAveragePool,
    steps.Concat: NestedConcat,
    steps.Rectify: NestedRescale,
    steps.Table: NestedTable,
}


def key(name: str) -> str:
    """A step's name as the name of a submodule, which may have no dots."""
    return name.replace(".", "/")


class NestedNetwork(nn.Module, IntegerExact):
    """The nested network, without a controller. What reads the picture is pinned; `layer_names` are the other layers.

    `shape` is the shape of a picture; its codes stand for scale * (code - zero point). `outputs` are the steps whose
    values are the results: logits, or codes with their scale.
    """

    def __init__(
        self, traced: Traced, rules: NestingRules, shape: tuple[int, ...], zero_point: int, scale: float
    ) -> None:
        super().__init__()
        self.rules, self.shape, self.zero_point, self.scale = rules, tuple(shape), zero_point, scale
        self.steps, self.outputs, self.notes = traced.steps, traced.outputs, traced.notes
        self.calibrated = False
        self.layer_names: list[str] = []
        self.layers = nn.ModuleDict()
        for step in self.steps:
            if not is_move(step):
                self.layers[key(step.name)] = self._module(step)
        self._last_readers = {source: step.name for step in self.steps for source in step.sources}

    def _module(self, step: steps.Step) -> nn.Module:
        if isinstance(step, steps.Layer):
            return NestedLayer(step, self.rules, None if step.pinned else self._number(step))
        if isinstance(step, steps.Logits):
            return NestedLogits(step, self.rules, self._number(step))
        return _MODULES[type(step)](step)

    @property
    def classifier(self) -> str:
        """The first output with logits, "" if there is none."""
        logits = {step.name for step in self.steps if isinstance(step, steps.Logits)}
        return next((name for name in self.outputs if name in logits), "")

    def _number(self, step: steps.Step) -> int:
        self.layer_names.append(step.name)
        return len(self.layer_names) - 1

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return of(self)

    def layer(self, name: str) -> nn.Module:
        """The module of the step called `name`."""
        return self.layers[key(name)]

    def by_name(self) -> dict[str, nn.Module]:
        """The modules of all steps that have one."""
        return {step.name: self.layer(step.name) for step in self.steps if key(step.name) in self.layers}

    def new_controller(self) -> Controller:
        """A controller with random weights for this network; it reads the first convolution.

        Raises ModelError if the network does not begin with a convolution that alone reads the picture.
        """
        step, readers = self.steps[0], [reader.name for reader in steps.readers(self.steps, INPUT)]
        if not isinstance(step, steps.Layer) or step.flat or readers != [step.name]:
            raise ModelError(
                f"a controller reads the one convolution that reads the picture, but {', '.join(readers)} read it."
            )
        shape = cast(tuple[int, int, int], step.shape)
        stem = cast(NestedLayer, self.layer(step.name))
        return Controller(shape, stem.zero_point, len(self.layer_names), len(self.rules.candidates))

    def check_pictures(self, pictures: torch.Tensor) -> None:
        """Raise InputError unless these are uint8 pictures [N, C, H, W] of the network's shape."""
        if tuple(pictures.shape[1:]) != self.shape or pictures.dtype != torch.uint8:
            raise InputError(
                f"Pictures must be uint8 of shape {self.shape}, but are {pictures.dtype} {tuple(pictures.shape[1:])}."
            )

    def codes(self, pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> Codes:
        """Pictures uint8 [N, C, H, W] as codes on the network's device; raises InputError for other shapes."""
        self.check_pictures(pictures)
        values = pictures.to(self.device, torch.float32 if self.exact else dtype)
        if values.dim() == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return Codes(values, torch.tensor(self.scale, dtype=torch.float64).to(self.device), self.zero_point)

    def features(self, pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> Codes:
        """The first convolution's codes of uint8 pictures [N, C, H, W] on any device, which no policy changes."""
        return cast(Codes, self.layer(self.steps[0].name)(self.codes(pictures, dtype), Uniform(0)))

    def head(self, stem: Codes, policy: Policy) -> torch.Tensor:
        """The first convolution's codes to logits [N, classes] at the widths of `policy`.

        Logits are float32, or float64 in integer-exact mode.
        """
        values = self._walk({self.steps[0].name: stem}, self.steps[1:], policy, self.outputs[:1])
        return cast(torch.Tensor, values[self.outputs[0]])

    def values(self, pictures: torch.Tensor, policy: Policy, kept: tuple[str, ...]) -> Values:
        """Codes, or logits, of the steps named in `kept`, for uint8 pictures [N, C, H, W]."""
        return self._walk({INPUT: self.codes(pictures)}, self.steps, policy, kept)

    def forward(self, pictures: torch.Tensor, policy: Policy) -> Any:
        """Pictures uint8 [N, C, H, W] to the network's output in real values, or a tuple of all its outputs.

        Logits are float32, or float64 in integer-exact mode; codes are float32 and stand for the integers exactly only
        by their step and zero point, see `values`.
        """
        values = self.values(pictures, policy, self.outputs)
        found = [values[name] for name in self.outputs]
        real = tuple(value.real() if isinstance(value, Codes) else value for value in found)
        return real[0] if len(real) == 1 else real

    def _walk(self, values: Values, walked: tuple[steps.Step, ...], policy: Policy, kept: tuple[str, ...]) -> Values:
        """Compute steps from `values`; only those in `kept` remain."""
        for step in walked:
            values[step.name] = self.run(step, [cast(Codes, values[source]) for source in step.sources], policy)
            for source in {*step.sources} - {*kept}:
                if self._last_readers[source] == step.name:
                    del values[source]
        return values

    def run(self, step: steps.Step, inputs: list[Codes], policy: Policy) -> Codes | torch.Tensor:
        """One step of codes [N, ...]: codes, or logits."""
        if (found := moved(step, inputs[0])) is not None:
            return found
        module = self.layer(step.name)
        if isinstance(step, steps.Layer | steps.Logits):
            return cast(Codes | torch.Tensor, module(inputs[0], policy))
        return cast(Codes, module(*inputs))

    def freeze_norm(self, frozen: bool) -> None:
        """Set whether training, too, normalises with the running statistics and does not change them."""
        for layer in self.nested_layers():
            layer.frozen = frozen

    def nested_layers(self) -> Iterator[NestedLayer]:
        """The convolutions and inner fully connected layers, in order."""
        for module in self.layers.values():
            if isinstance(module, NestedLayer):
                yield module

    def activations(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs of the original float network, by step, for uint8 pictures."""
        values = (pictures.to(self.device).float() - self.zero_point) * self.scale
        with torch.no_grad():
            return evaluate(converted(self.steps, self.device), values)

    @property
    def fitted(self) -> bool:
        """Whether the steps of activations were ever set: each is 1 at first."""
        codes = [module for module in self.layers.values() if isinstance(module, Nested)]
        return not codes or any(bool(module.step.logarithm != 0) for module in codes)

    def replace_norms(self, measured: tuple[steps.Step, ...]) -> None:
        """Take over the statistics of batch norm from steps that are equal otherwise."""
        self.steps = measured
        for step in measured:
            if isinstance(step, steps.Layer) and step.norm is not None:
                cast(NestedLayer, self.layer(step.name)).set_statistics(step)

    def set_steps(self, pictures: torch.Tensor) -> None:
        """Set every activation's step from the float network's activations on a few uint8 pictures."""
        modules = self.by_name()
        for name, value in self.activations(pictures).items():
            if isinstance(module := modules.get(name), Nested):
                module.initialise(value)
