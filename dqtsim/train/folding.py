"""From a trained network to integers: batch norm and steps fold into (B, M, S), and layers become nodes."""

from typing import Any, cast

import numpy as np
import torch

from dqtsim.graph import GraphBuilder
from dqtsim.graph.builder import Tensor
from dqtsim.graph.model import Array, Graph
from dqtsim.train import steps
from dqtsim.train.constants import reals
from dqtsim.train.controller import Controller, FoldedGemm
from dqtsim.train.device import on_cpu
from dqtsim.train.layers import (
    Nested,
    NestedAdd,
    NestedAveragePool,
    NestedConcat,
    NestedLayer,
    NestedLogits,
    NestedRescale,
)
from dqtsim.train.nested import weight_codes
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rules import MASTER_WIDTH
from dqtsim.train.steps import INPUT


def _codes(weight: torch.Tensor, step: torch.Tensor) -> Array:
    return np.ascontiguousarray(weight_codes(weight.detach(), step.detach()).to(torch.uint8).numpy())


def fold(
    network: NestedNetwork,
    controller: Controller | None = None,
    *,
    name: str = "network",
    class_names: tuple[str, ...] = (),
    producer: dict[str, str] | None = None,
) -> Graph:
    """The network as a model; without `controller` its widths are static, at the master width.

    Computed on the CPU, wherever the modules are.
    """
    network, controller = on_cpu(network), on_cpu(controller) if controller is not None else None
    rules = network.rules
    builder = GraphBuilder(
        name,
        master_width=MASTER_WIDTH,
        weight_rule=rules.weight,
        activation_rule=rules.activation,
        rounding="TIES_UP",
        candidates=rules.candidates,
        class_names=class_names,
        producer=producer,
    )
    x = builder.input(INPUT, (1, *network.shape), zero_point=network.zero_point, scale=network.scale)
    folding = _Folding(builder, network, {INPUT: x})
    for step in network.steps:
        folding.add(step)
        if step is network.steps[0] and controller is not None:
            builder.control(_control(builder, controller, folding.tensors[step.name]))
    builder.output(folding.tensors[network.steps[-1].name], classes=True)
    return builder.build()


def _control(builder: GraphBuilder, controller: Controller, stem: Tensor) -> Tensor:
    """B8: pool, hidden layer and logits; returns the logits."""
    pooled, hidden = controller.pool_step().item(), controller.hidden_step().item()
    multiplier, shift = controller.pool_constants(_step(stem))
    x = builder.average_pool(
        "controller.pool", stem, kernel=controller.window, strides=controller.window, multiplier=multiplier,
        shift=shift, zero_point=controller.zero_point, scale=pooled, clip=(0, 255),
    )  # fmt: skip
    x = builder.flatten("controller.features", x)
    bias, rates, shifts = controller.hidden_constants()
    x = builder.gemm(
        "controller.hidden", x, **_gemm(controller.folded_hidden()), bias=bias[None], multiplier=rates[None],
        shift=shifts[None], zero_point=0, scale=hidden, clip=(0, 255), controller=True,
    )  # fmt: skip
    logits = controller.folded_logits()
    return builder.logits(
        "controller.logits", x, **_gemm(logits), bias=logits.integer_bias(hidden)[None], controller=True
    )


def _gemm(gemm: FoldedGemm) -> dict[str, Any]:
    return {
        "weight": _codes(gemm.weight, gemm.step),
        "row_widths": (MASTER_WIDTH,),
        "weight_scale": gemm.steps(),
    }


def _step(x: Tensor) -> float:
    if x.quantization is None:
        raise RuntimeError(f"{x.name} has no step")
    return x.quantization.scale[0]


class _Folding:
    """Turns steps into nodes, one after another; `tensors` holds the output of each."""

    def __init__(self, builder: GraphBuilder, network: NestedNetwork, tensors: dict[str, Tensor]) -> None:
        self.builder, self.network, self.tensors = builder, network, tensors

    def add(self, step: steps.Step) -> None:
        """Add the node, or nodes, of one step."""
        sources = [self.tensors[source] for source in step.sources]
        x, name = sources[0], step.name
        if isinstance(step, steps.MaxPool):
            y = self.builder.max_pool(name, x, kernel=step.kernel, strides=step.stride, pads=step.pads)
        elif isinstance(step, steps.Flatten):
            y = self.builder.flatten(name, x)
        else:
            module = self.network.layer(name)
            if isinstance(module, NestedLayer):
                y = self._layer(module, name, x)
            elif isinstance(module, NestedLogits):
                y = self._logits(module, name, x)
            elif isinstance(module, NestedAdd):
                y = self._sum(module, name, sources)
            elif isinstance(module, NestedAveragePool):
                y = self._average(module, name, x)
            elif isinstance(module, NestedConcat):
                parts = [self._rescale(module, f"{name}.input{i}", part) for i, part in enumerate(sources)]
                y = self.builder.concat(name, parts)
            else:
                y = self._rescale(cast(NestedRescale, module), name, x)
        self.tensors[name] = y

    def _grid(self, module: Nested) -> dict[str, Any]:
        return {"zero_point": module.zero_point, "scale": module.step().item(), "clip": (0, module.high())}

    def _layer(self, module: NestedLayer, name: str, x: Tensor) -> Tensor:
        bias, multiplier, shift = module.constants(_step(x))
        common: dict[str, Any] = {
            "weight": _codes(module.weight, module.weight_step()),
            "bias": bias,
            "multiplier": multiplier,
            "shift": shift,
            "row_widths": module.row_widths,
            "weight_scale": reals(module.weight_step()),
            "pinned": (MASTER_WIDTH, MASTER_WIDTH) if module.layer is None else None,
            **self._grid(module),
        }
        if module.flat:
            return self.builder.gemm(name, x, **common)
        walk = module.geometry
        return self.builder.conv(
            name, x, **common, strides=walk.stride, pads=walk.padding * 2, dilations=walk.dilation, group=walk.groups
        )

    def _logits(self, module: NestedLogits, name: str, x: Tensor) -> Tensor:
        step = np.full((len(module.weight),), module.weight_step().item())
        return self.builder.logits(
            name, x, weight=_codes(module.weight, module.weight_step()),
            bias=module.constants(_step(x)), row_widths=module.row_widths, weight_scale=step,
        )  # fmt: skip

    def _sum(self, module: NestedAdd, name: str, sources: list[Tensor]) -> Tensor:
        ratios, shift = module.constants(*(_step(source) for source in sources))
        return self.builder.add(
            name, sources[0], sources[1], multiplier_a=ratios[0], multiplier_b=ratios[1], shift=shift,
            **self._grid(module),
        )  # fmt: skip

    def _average(self, module: NestedAveragePool, name: str, x: Tensor) -> Tensor:
        multiplier, shift = module.constants(_step(x))
        return self.builder.average_pool(
            name, x, kernel=module.kernel, strides=module.stride, pads=module.padding * 2, multiplier=multiplier,
            shift=shift, **self._grid(module),
        )  # fmt: skip

    def _rescale(self, module: Nested, name: str, x: Tensor) -> Tensor:
        multiplier, shift = module.rescaling(_step(x))
        return self.builder.requantize(name, x, multiplier=multiplier, shift=shift, **self._grid(module))
