"""A nested network: the steps of a float network, each at the widths that a policy gives it."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from dqtsim.errors import InputError, ModelError
from dqtsim.train import steps
from dqtsim.train.controller import Controller
from dqtsim.train.device import of
from dqtsim.train.floats import evaluate
from dqtsim.train.integer import IntegerExact
from dqtsim.train.layers import (
    Codes,
    Nested,
    NestedAdd,
    NestedAveragePool,
    NestedConcat,
    NestedLayer,
    NestedLogits,
    NestedRescale,
    Policy,
    Uniform,
)
from dqtsim.train.rules import NestingRules
from dqtsim.train.steps import Traced, converted


def _check_ends(traced: Traced) -> None:
    """Refuse what has no nested counterpart yet."""
    first, last = traced.steps[0], traced.steps[-1]
    reading = [step.name for step in steps.readers(traced.steps, steps.INPUT)]
    if not isinstance(first, steps.Layer) or first.flat or reading != [first.name]:
        raise ModelError(
            f"one convolution alone must read the picture, because it is pinned, but {', '.join(reading)} read it."
        )
    if not isinstance(last, steps.Logits) or traced.outputs != (last.name,):
        ends = ", ".join(traced.outputs)
        raise ModelError(f"a network must end in a Linear, whose outputs are the logits, but ends in {ends}.")
    for step in traced.steps:
        pads = getattr(step, "pads", (0, 0, 0, 0))
        if pads[:2] != pads[2:]:
            raise ModelError(f"step '{step.name}' must pad alike on both sides, but pads {pads}.")


def key(name: str) -> str:
    """A step's name as the name of a submodule, which may have no dots."""
    return name.replace(".", "/")


class NestedNetwork(nn.Module, IntegerExact):
    """The nested network, without a controller. Its first convolution is pinned; `layer_names` are the others.

    `shape` is the shape of a picture; its codes stand for scale * (code - zero point).
    """

    def __init__(
        self, traced: Traced, rules: NestingRules, shape: tuple[int, int, int], zero_point: int, scale: float
    ) -> None:
        super().__init__()
        self.rules, self.shape, self.zero_point, self.scale = rules, shape, zero_point, scale
        _check_ends(traced)
        self.steps = traced.steps
        self.outputs = traced.outputs
        self.layer_names: list[str] = []
        self.layers = nn.ModuleDict()
        for step in self.steps:
            if (module := self._module(step)) is not None:
                self.layers[key(step.name)] = module

    def _module(self, step: steps.Step) -> nn.Module | None:
        if isinstance(step, steps.Layer):
            return NestedLayer(step, self.rules, None if step.pinned else self._number(step))
        if isinstance(step, steps.Logits):
            return NestedLogits(step, self.rules, self._number(step))
        if isinstance(step, steps.Add):
            return NestedAdd(step)
        if isinstance(step, steps.AveragePool):
            return NestedAveragePool(step)
        if isinstance(step, steps.Concat):
            return NestedConcat(step)
        if isinstance(step, steps.Rectify):
            return NestedRescale(step.name, True, step.activation)
        return None

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
        """A controller with random weights for this network; it reads the first convolution."""
        step = self.steps[0]
        shape = cast(tuple[int, int, int], step.shape)
        stem = cast(NestedLayer, self.layer(step.name))
        return Controller(shape, stem.zero_point, len(self.layer_names), len(self.rules.candidates))

    def features(self, pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> Codes:
        """The first convolution's codes of uint8 pictures [N, C, H, W] on any device, which no policy changes."""
        if tuple(pictures.shape[1:]) != self.shape or pictures.dtype != torch.uint8:
            raise InputError(
                f"Pictures must be uint8 of shape {self.shape}, but are {pictures.dtype} {tuple(pictures.shape[1:])}."
            )
        values = pictures.to(self.device, torch.float32 if self.exact else dtype)
        values = values.contiguous(memory_format=torch.channels_last)
        source = Codes(values, torch.tensor(self.scale, dtype=torch.float64).to(self.device), self.zero_point)
        return cast(Codes, self.layer(self.steps[0].name)(source, Uniform(0)))

    def head(self, stem: Codes, policy: Policy) -> torch.Tensor:
        """The first convolution's codes to logits [N, classes] at the widths of `policy`.

        Logits are float32, or float64 in integer-exact mode.
        """
        values = {self.steps[0].name: stem}
        for step in self.steps[1:]:
            result = self._run(step, [values[source] for source in step.sources], policy)
            if isinstance(result, torch.Tensor):
                return result
            values[step.name] = result
        raise RuntimeError("a network without logits")

    def forward(self, pictures: torch.Tensor, policy: Policy) -> torch.Tensor:
        """Pictures uint8 [N, C, H, W] to logits [N, classes]."""
        return self.head(self.features(pictures), policy)

    def _run(self, step: steps.Step, inputs: list[Codes], policy: Policy) -> Codes | torch.Tensor:
        x = inputs[0]
        if isinstance(step, steps.MaxPool):
            pooled = functional.max_pool2d(x.values, step.kernel, step.stride, step.pads[:2])
            return Codes(pooled, x.step, x.zero_point)
        if isinstance(step, steps.Flatten):
            return Codes(x.values.flatten(1), x.step, x.zero_point)
        module = self.layer(step.name)
        if isinstance(step, steps.Layer | steps.Logits):
            return cast(Codes | torch.Tensor, module(x, policy))
        if isinstance(step, steps.Concat):
            return cast(Codes, module(inputs))
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

    def set_steps(self, pictures: torch.Tensor) -> None:
        """Set every activation's step from the float network's activations on a few uint8 pictures."""
        modules = self.by_name()
        for name, value in self.activations(pictures).items():
            if isinstance(module := modules.get(name), Nested):
                module.initialise(value)
