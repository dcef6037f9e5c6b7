"""From a trained network to integers: batch norm and steps fold into (B, M, S), and layers become nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dqtsim.graph import GraphBuilder
from dqtsim.graph.codes import Tensor
from dqtsim.graph.model import Array, Graph
from dqtsim.train import steps
from dqtsim.train.constants import reals
from dqtsim.train.controller import Controller, FoldedGemm
from dqtsim.train.device import on_cpu
from dqtsim.train.modules.base import Nested
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.modules.pointwise import (
    NestedAdd,
    NestedAveragePool,
    NestedConcat,
    NestedMultiply,
    NestedRescale,
    NestedTable,
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
    folding = _Folding(builder, network, {INPUT: _input(builder, network)})
    for step in network.steps:
        folding.add(step)
        if step is network.steps[0] and controller is not None:
            builder.control(_control(builder, controller, folding.tensors[step.name]))
    for output in network.outputs:
        builder.output(folding.tensors[output], classes=output == network.classifier)
    return builder.build()


def _input(builder: GraphBuilder, network: NestedNetwork) -> Tensor:
    """The picture. A model's input has one axis or three, so [C, L] enters as [C, 1, L]."""
    shape = network.shape
    own = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    x = builder.input(INPUT, (1, *own), zero_point=network.zero_point, scale=network.scale)
    return x if own == shape else builder.reshape(f"{INPUT}.line", x, shape)


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


def _zero(x: Tensor) -> int:
    if x.quantization is None:
        raise RuntimeError(f"{x.name} has no zero point")
    return x.quantization.zero_point


class _Folding:
    """Turns steps into nodes, one after another; `tensors` holds the output of each."""

    def __init__(self, builder: GraphBuilder, network: NestedNetwork, tensors: dict[str, Tensor]) -> None:
        self.builder, self.network, self.tensors = builder, network, tensors

    def add(self, step: steps.Step) -> None:
        """Add the node, or nodes, of one step."""
        sources = [self.tensors[source] for source in step.sources]
        move = _MOVES.get(type(step))
        if move is not None:
            self.tensors[step.name] = move(self.builder, step, sources[0])
            return
        module = self.network.layer(step.name)
        self.tensors[step.name] = _NODES[type(module)](self, module, step.name, *sources)

    def grid(self, module: Nested) -> dict[str, Any]:
        """The output's zero point, scale and clip."""
        return {"zero_point": module.zero_point, "scale": module.step().item(), "clip": (0, module.high())}

    def rows(self, module: NestedLayer | NestedLogits) -> dict[str, Any]:
        """What selects a layer's rows, and its windows."""
        found: dict[str, Any] = {"row_widths": module.row_widths}
        if module.row_pairs is not None:
            found = {"row_pairs": module.row_pairs}
        return found if module.windows is None else {**found, "windows": module.windows}

    def layer(self, module: NestedLayer, name: str, x: Tensor) -> Tensor:
        """A convolution or fully connected layer (B1-B4)."""
        input_step = _step(x)
        step = module.effective_step(torch.tensor(input_step, dtype=torch.float64))
        bias, multiplier, shift = module.constants(input_step)
        common: dict[str, Any] = {
            "weight": _codes(module.weight, step),
            "bias": bias,
            "multiplier": multiplier,
            "shift": shift,
            "weight_scale": reals(step),
            "pinned": (MASTER_WIDTH, MASTER_WIDTH) if module.layer is None else None,
            **self.rows(module),
            **self.grid(module),
        }
        if module.flat:
            return self.builder.gemm(name, x, **common)
        codes = module.padding_codes((input_step, _zero(x)))
        if codes is not None and bool((codes != _zero(x)).any()):
            common["padding"] = codes.to(torch.uint8).numpy()
        walk = module.geometry
        pads = module.pads if any(module.pads) else walk.padding * 2
        return self.builder.conv(
            name, x, **common, strides=walk.stride, pads=pads, dilations=walk.dilation, group=walk.groups
        )

    def logits(self, module: NestedLogits, name: str, x: Tensor) -> Tensor:
        """The classifier (B7)."""
        step = module.effective_step(torch.tensor(_step(x), dtype=torch.float64))
        return self.builder.logits(
            name, x, weight=_codes(module.weight, step), bias=module.constants(_step(x)),
            weight_scale=np.full((len(module.weight),), step.item()), **self.rows(module),
        )  # fmt: skip

    def add_up(self, module: NestedAdd, name: str, a: Tensor, b: Tensor) -> Tensor:
        """B5."""
        ratios, shift = module.constants(_step(a), _step(b))
        return self.builder.add(
            name, a, b, multiplier_a=ratios[0], multiplier_b=ratios[1], shift=shift, **self.grid(module)
        )

    def multiply(self, module: NestedMultiply, name: str, a: Tensor, b: Tensor) -> Tensor:
        """B10."""
        multiplier, shift = module.constants(_step(a), _step(b))
        return self.builder.multiply(name, a, b, multiplier=multiplier, shift=shift, **self.grid(module))

    def average(self, module: NestedAveragePool, name: str, x: Tensor) -> Tensor:
        """B6, or B6' where the divisor depends on the position."""
        multiplier, shift = module.constants(_step(x))
        return self.builder.average_pool(
            name, x, kernel=module.kernel, strides=module.stride, pads=module.pads, multiplier=multiplier,
            shift=shift, **self.grid(module),
        )  # fmt: skip

    def table(self, module: NestedTable, name: str, x: Tensor) -> Tensor:
        """B9, or B9' with a table per channel."""
        table = module.table(_step(x), _zero(x))
        return self.builder.table(name, x, table, zero_point=module.zero_point, scale=module.step().item())

    def concat(self, module: NestedConcat, name: str, *sources: Tensor) -> Tensor:
        """Parts on the output's grid, joined."""
        grid = module.zero_point, module.step().item()
        parts = [
            part if (_zero(part), _step(part)) == grid else self.rescale(module, f"{name}.input{i}", part)
            for i, part in enumerate(sources)
        ]
        return self.builder.concat(name, parts, module.axis + 1)

    def rescale(self, module: Nested, name: str, x: Tensor) -> Tensor:
        """B4 on codes."""
        multiplier, shift = module.rescaling(_step(x))
        return self.builder.requantize(name, x, multiplier=multiplier, shift=shift, **self.grid(module))


_NODES: dict[type[torch.nn.Module], Callable[..., Tensor]] = {
    NestedLayer: _Folding.layer,
    NestedLogits: _Folding.logits,
    NestedAdd: _Folding.add_up,
    NestedMultiply: _Folding.multiply,
    NestedAveragePool: _Folding.average,
    NestedTable: _Folding.table,
    NestedConcat: _Folding.concat,
    NestedRescale: _Folding.rescale,
}
_MOVES: dict[type[steps.Step], Callable[[GraphBuilder, Any, Tensor], Tensor]] = {
    steps.MaxPool: lambda builder, step, x: builder.max_pool(
        step.name, x, kernel=step.kernel, strides=step.stride, pads=step.pads, dilations=step.dilations
    ),
    steps.Flatten: lambda builder, step, x: builder.flatten(step.name, x),
    steps.Reshape: lambda builder, step, x: builder.reshape(step.name, x, step.shape),
    steps.Transpose: lambda builder, step, x: builder.transpose(step.name, x, (0, *(axis + 1 for axis in step.order))),
    steps.Take: lambda builder, step, x: builder.take(step.name, x, step.axis + 1, step.indices),
}
