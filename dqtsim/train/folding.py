"""From a trained network to integers (folding), and from these to the model file."""

import math
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from dqtsim.errors import ModelError
from dqtsim.graph import GraphBuilder, Tensor, save
from dqtsim.train.controller import GRID, Controller, FoldedGemm
from dqtsim.train.data import INPUT_SCALE, INPUT_ZERO_POINT
from dqtsim.train.integer import Add, Flatten, Grid, IntegerNetwork, Layer, Operator, Pool, Rows
from dqtsim.train.nested import NORM_EPSILON, weight_codes
from dqtsim.train.resnet import NestedBlock, NestedConv, NestedResNet8
from dqtsim.train.rules import MASTER_WIDTH

MULTIPLIER_WIDTH = 16
LARGEST_SHIFT = 62
_BIAS_LIMIT = 2**31


def multiplier_and_shift(values: list[float], where: str) -> tuple[list[int], int]:
    """Unsigned M and one S with M * 2^-S ~ value, the largest M having its top (16th) bit set (B4, B5)."""
    largest = max(values)
    if not 0 < largest < math.inf:
        raise ModelError(f"A multiplier must be positive and finite, but that of {where} is {largest}.")
    shift = MULTIPLIER_WIDTH - math.frexp(largest)[1]
    if round(largest * 2.0**shift) >= 2**MULTIPLIER_WIDTH:
        shift -= 1
    if shift < 0:
        raise ModelError(f"A multiplier must be below {2**MULTIPLIER_WIDTH}, but that of {where} is {largest}.")
    # A channel so small that its shift would pass 62 is as good as constant; its M loses its top bits instead.
    shift = min(shift, LARGEST_SHIFT)
    return [round(value * 2.0**shift) for value in values], shift


def _per_channel(values: npt.NDArray[np.float64], where: str) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [[multiplier_and_shift([value], where) for value in row] for row in values.tolist()]
    multipliers = [[m[0] for m, _ in row] for row in pairs]
    return torch.tensor(multipliers), torch.tensor([[s for _, s in row] for row in pairs])


def _bias(real: npt.NDArray[np.float64]) -> torch.Tensor:
    """B3: rounded (ties up), then saturated to 32 bits signed."""
    codes = np.clip(np.floor(real + 0.5), -_BIAS_LIMIT, _BIAS_LIMIT - 1)
    return torch.from_numpy(codes.astype(np.int64))


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().double().numpy()


def _codes(weight: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return weight_codes(weight.detach(), step.detach()).to(torch.uint8).contiguous()


def fold_conv(conv: NestedConv, name: str, source: str, input_step: float) -> Layer:
    """B = (beta * sigma/gamma - mu) / unit and M * 2^-S = unit * gamma / (sigma * step), unit = step_w * step_a."""
    step_w, step = _numpy(conv.weight_step()), conv.step().item()
    unit = step_w * input_step
    sigma = np.sqrt(_numpy(conv.running_var) + NORM_EPSILON * unit**2)
    slope = _numpy(conv.positive_gamma()) / sigma
    multiplier, shift = _per_channel(unit * slope / step, name)
    bias = _bias((_numpy(conv.beta) / slope - _numpy(conv.running_mean)) / unit)
    return Layer(
        name,
        source,
        _codes(conv.weight, conv.weight_step()),
        torch.from_numpy(step_w),
        Rows(conv.row_widths, bias, multiplier, shift),
        Grid(conv.zero_point, step),
        conv.stride,
        conv.padding,
        pinned=(MASTER_WIDTH, MASTER_WIDTH) if conv.layer is None else None,
    )


def _fold_gemm(gemm: FoldedGemm, name: str, source: str, input_step: float, step: float | None) -> Layer:
    """A controller layer: B = b / unit, M * 2^-S = unit / step; without `step`, logits."""
    outputs = len(gemm.weight)
    step_w = np.broadcast_to(_numpy(gemm.step), (outputs,)).copy()
    unit = step_w * input_step
    bias = _bias(_numpy(gemm.bias) / unit)[None]
    nothing = torch.zeros((1, outputs), dtype=torch.int64)
    multiplier, shift = (nothing, nothing) if step is None else _per_channel((unit / step)[None], name)
    return Layer(
        name,
        source,
        _codes(gemm.weight, gemm.step),
        torch.from_numpy(step_w),
        Rows((MASTER_WIDTH,), bias, multiplier, shift),
        None if step is None else Grid(0, step),
        controller=True,
    )


def _fold_classifier(network: NestedResNet8, source: str, input_step: float) -> Layer:
    fc = network.fc
    outputs = len(fc.weight)
    step_w = np.full((outputs,), fc.weight_step().item())
    bias = _bias(_numpy(fc.bias) / (step_w * input_step))
    nothing = torch.zeros_like(bias)
    rows = Rows(network.rules.row_widths, bias, nothing, nothing)
    return Layer("fc", source, _codes(fc.weight, fc.weight_step()), torch.from_numpy(step_w), rows, None)


def _fold_pool(name: str, source: str, window: tuple[int, int], input_step: float, step: float) -> Pool:
    (multiplier,), shift = multiplier_and_shift([input_step / (window[0] * window[1] * step)], name)
    return Pool(name, source, window, multiplier, shift, Grid(0, step))


def _fold_block(block: NestedBlock, name: str, source: str, input_step: float) -> tuple[list[Operator], float]:
    """A block's operators and the step of its output, `<name>.add`."""
    conv1 = fold_conv(block.conv1, f"{name}.conv1", source, input_step)
    conv2 = fold_conv(block.conv2, f"{name}.conv2", conv1.name, block.conv1.step().item())
    operators: list[Operator] = [conv1, conv2]
    shortcut, shortcut_step = source, input_step
    if block.down is not None:
        shortcut, shortcut_step = f"{name}.down", block.down.step().item()
        operators.append(fold_conv(block.down, shortcut, source, input_step))
    step, y_step = block.step().item(), block.conv2.step().item()
    ratios, shift = multiplier_and_shift([y_step / step, shortcut_step / step], f"{name}.add")
    operators.append(Add(f"{name}.add", (conv2.name, shortcut), (ratios[0], ratios[1]), shift, Grid(0, step)))
    return operators, step


def fold(network: NestedResNet8, controller: Controller, size: tuple[int, int]) -> IntegerNetwork:
    """The trained network as integers, for pictures of `size` (height, width)."""
    stem = fold_conv(network.stem, "stem", "input", INPUT_SCALE)
    stem_step = network.stem.step().item()
    pooled, hidden = controller.pool_step().item(), controller.hidden_step().item()
    operators: list[Operator] = [
        stem,
        _fold_pool("controller.pool", "stem", (size[0] // GRID, size[1] // GRID), stem_step, pooled),
        Flatten("controller.features", "controller.pool"),
        _fold_gemm(controller.folded_hidden(), "controller.hidden", "controller.features", pooled, hidden),
        _fold_gemm(controller.folded_logits(), "controller.logits", "controller.hidden", hidden, None),
    ]
    source, step = "stem", stem_step
    for name in ("block1", "block2", "block3"):
        block = cast(NestedBlock, network.get_submodule(name))
        added, step = _fold_block(block, name, source, step)
        operators += added
        source = f"{name}.add"
    window, pool_step = (size[0] // 4, size[1] // 4), network.pool_step().item()
    operators.append(_fold_pool("pool", source, window, step, pool_step))
    operators.append(Flatten("features", "pool"))
    operators.append(_fold_classifier(network, "features", pool_step))
    rules = network.rules
    return IntegerNetwork(
        input_name="input",
        input_grid=Grid(INPUT_ZERO_POINT, INPUT_SCALE),
        input_shape=(3, *size),
        operators=tuple(operators),
        weight_rule=rules.weight,
        activation_rule=rules.activation,
        candidates=rules.candidates,
        decision="controller.logits",
        output="fc",
    )


def save_model(
    network: IntegerNetwork, path: Path, *, name: str, class_names: tuple[str, ...], producer: dict[str, str]
) -> None:
    """Write `network` as a nested ONNX model."""
    builder = GraphBuilder(
        name,
        master_width=MASTER_WIDTH,
        weight_rule=network.weight_rule,
        activation_rule=network.activation_rule,
        rounding="TIES_UP",
        candidates=network.candidates,
        class_names=class_names,
        producer=producer,
    )
    grid = network.input_grid
    tensors: dict[str, Tensor] = {
        network.input_name: builder.input(
            network.input_name, (1, *network.input_shape), zero_point=grid.zero_point, scale=grid.scale
        )
    }
    for op in network.operators:
        if isinstance(op, Layer):
            tensors[op.name] = _build_layer(builder, op, tensors[op.source])
            if op.name == network.decision:
                builder.control(tensors[op.name])
        elif isinstance(op, Add):
            tensors[op.name] = builder.add(
                op.name,
                tensors[op.sources[0]],
                tensors[op.sources[1]],
                multiplier_a=op.multipliers[0],
                multiplier_b=op.multipliers[1],
                shift=op.shift,
                zero_point=op.grid.zero_point,
                scale=op.grid.scale,
                clip=(op.grid.low, op.grid.high),
            )
        elif isinstance(op, Pool):
            tensors[op.name] = builder.average_pool(
                op.name,
                tensors[op.source],
                kernel=op.window,
                strides=op.window,
                pads=(0, 0, 0, 0),
                multiplier=op.multiplier,
                shift=op.shift,
                zero_point=op.grid.zero_point,
                scale=op.grid.scale,
                clip=(op.grid.low, op.grid.high),
            )
        else:
            tensors[op.name] = builder.flatten(op.name, tensors[op.source])
    builder.output(tensors[network.output], classes=True)
    save(builder.build(), path)


def _build_layer(builder: GraphBuilder, layer: Layer, source: Tensor) -> Tensor:
    weight, bias = layer.weight.numpy(), layer.rows.bias.numpy()
    scales, row_widths = layer.weight_scale.numpy(), layer.rows.widths
    if layer.grid is None:
        return builder.logits(
            layer.name,
            source,
            weight=weight,
            bias=bias,
            row_widths=row_widths,
            weight_scale=scales,
            pinned=layer.pinned,
            controller=layer.controller,
        )
    multiplier, shift = layer.rows.multiplier.numpy(), layer.rows.shift.numpy()
    zero_point, scale, clip = layer.grid.zero_point, layer.grid.scale, (layer.grid.low, layer.grid.high)
    if weight.ndim == 2:
        return builder.gemm(
            layer.name,
            source,
            weight=weight,
            bias=bias,
            multiplier=multiplier,
            shift=shift,
            row_widths=row_widths,
            zero_point=zero_point,
            scale=scale,
            clip=clip,
            weight_scale=scales,
            pinned=layer.pinned,
            controller=layer.controller,
        )
    return builder.conv(
        layer.name,
        source,
        weight=weight,
        bias=bias,
        multiplier=multiplier,
        shift=shift,
        row_widths=row_widths,
        zero_point=zero_point,
        scale=scale,
        clip=clip,
        strides=(layer.stride, layer.stride),
        pads=(layer.padding,) * 4,
        dilations=(1, 1),
        group=1,
        weight_scale=scales,
        pinned=layer.pinned,
    )
