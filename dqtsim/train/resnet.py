"""ResNet-8 with nested weights and activations: what training optimises and what export folds.

Every activation tensor is a master code at its producer; each consumer nests it to its own width.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from dqtsim.train.data import INPUT_SCALE, INPUT_ZERO_POINT
from dqtsim.train.float_resnet import GAMMA_FLOOR, FloatConv, FloatResNet8
from dqtsim.train.nested import (
    NORM_EPSILON,
    add_codes,
    mixed_conv,
    nest_activation,
    nest_weight,
    quantize,
    quantize_normalised,
)
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, ActivationRule, WeightRule

# A four-level nesting of Gaussian weights is best when the 8-bit grid reaches about 2.7 standard deviations,
# and of rectified activations about 3.5 root mean squares; training moves both from there.
_WEIGHT_REACH = 2.7
_RECTIFIED_REACH = 3.5
# Signed tensors only meet a residual add, which reads all their bits.
_SIGNED_REACH = 4.5


@dataclass(frozen=True)
class NestingRules:
    """What the whole network shares: nesting rules and candidates ((weight width, activation width), ...)."""

    weight: WeightRule
    activation: ActivationRule
    candidates: tuple[tuple[int, int], ...]

    @property
    def row_widths(self) -> tuple[int, ...]:
        """B3': ascending widths, one row of (B, M, S) each."""
        return tuple(sorted({min(pair) for pair in self.candidates}))

    def row(self, candidate: int) -> int:
        """B3': the first row whose width is at least min(b_w, b_a), else the last."""
        rows = self.row_widths
        narrow = min(self.candidates[candidate])
        return next((r for r, width in enumerate(rows) if width >= narrow), len(rows) - 1)


@dataclass(frozen=True)
class Uniform:
    """The whole network at one candidate; in training, batch norm uses and updates batch statistics."""

    candidate: int


@dataclass(frozen=True)
class Mixed:
    """Every picture and layer its own candidate: probabilities [N, L, K], one-hot forward; choice int64 [N, L]."""

    probabilities: torch.Tensor
    choice: torch.Tensor
    explore: bool


@dataclass(frozen=True)
class Codes:
    """Master codes in a float dtype, with their step [] and zero point."""

    values: torch.Tensor
    step: torch.Tensor
    zero_point: int


class LearnedStep(nn.Module):
    """A quantizer's step, positive because its logarithm is what is learned."""

    def __init__(self, initial: torch.Tensor) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(initial.detach().clamp_min(1e-8).log())

    def forward(self) -> torch.Tensor:
        """The step: float32 [] or [O]."""
        return self.logarithm.exp()

    def set(self, value: torch.Tensor) -> None:
        """Replace the step."""
        with torch.no_grad():
            self.logarithm.copy_(value.clamp_min(1e-8).log())


class NestedConv(nn.Module):
    """Convolution, batch norm (one row per width) and quantization to a master code."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, source: FloatConv, rules: NestingRules, *, rectified: bool, layer: int | None) -> None:
        super().__init__()
        conv, norm = source.conv, source.norm
        if norm.running_mean is None or norm.running_var is None:
            raise RuntimeError("batch norm without running statistics")
        self.rules = rules
        self.layer = layer
        self.frozen = False
        self.candidates = rules.candidates if layer is not None else ((MASTER_WIDTH, MASTER_WIDTH),)
        self.rows = tuple(rules.row(k) for k in range(len(self.candidates))) if layer is not None else (0,)
        self.row_widths = rules.row_widths if layer is not None else (MASTER_WIDTH,)
        self.stride, self.padding = int(conv.stride[0]), conv.kernel_size[0] // 2
        self.zero_point = 0 if rectified else WEIGHT_ZERO_POINT
        count = len(self.row_widths)
        self.weight = nn.Parameter(conv.weight.detach().clone())
        spread = self.weight.detach().flatten(1).std(1).clamp_min(1e-4)
        self.weight_step = LearnedStep(spread * _WEIGHT_REACH / WEIGHT_ZERO_POINT)
        self.gamma = nn.Parameter(norm.positive_weight().detach().repeat(count, 1))
        self.beta = nn.Parameter(norm.bias.detach().repeat(count, 1))
        self.step = LearnedStep(torch.tensor(1.0))
        self.register_buffer("running_mean", norm.running_mean.repeat(count, 1))
        self.register_buffer("running_var", norm.running_var.repeat(count, 1))

    def positive_gamma(self) -> torch.Tensor:
        """Batch norm scales as they are used: float32 [R, O], positive, because M is unsigned (B4)."""
        return self.gamma.abs().clamp_min(GAMMA_FLOOR)

    def folded(self, input_step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Running batch norm and quantization as one affine map per row: scale and offset [R, O] in codes."""
        unit = self.weight_step() * input_step
        slope = self.positive_gamma() / (self.running_var + NORM_EPSILON * unit.square()).sqrt()
        step = self.step()
        return slope * unit / step, (self.beta - self.running_mean * slope) / step + self.zero_point

    def forward(self, x: Codes, policy: Uniform | Mixed) -> Codes:
        """Codes [N, I, H, W] to codes [N, O, H', W'] at the widths that `policy` gives this layer."""
        step = self.step()
        if self.training and isinstance(policy, Uniform) and not self.frozen:
            candidate = policy.candidate if self.layer is not None else 0
            values = self._batch_statistics(x, candidate, step)
        else:
            values = self._running_statistics(x, policy)
        return Codes(values, step, self.zero_point)

    def _operand(self, candidate: int, dtype: torch.dtype) -> torch.Tensor:
        width = self.candidates[candidate][0]
        operand = nest_weight(self.weight, self.weight_step(), width, self.rules.weight)
        return operand.to(dtype, memory_format=torch.channels_last)

    def _batch_statistics(self, x: Codes, candidate: int, step: torch.Tensor) -> torch.Tensor:
        operand = nest_activation(x.values, self.candidates[candidate][1], x.zero_point, self.rules.activation)
        weight = self._operand(candidate, operand.dtype)
        accumulator = functional.conv2d(operand, weight, None, self.stride, self.padding)
        row = self.rows[candidate]
        values, mean, variance = quantize_normalised(
            accumulator, self.positive_gamma()[row], self.beta[row], step, self.zero_point
        )
        with torch.no_grad():
            unit = self.weight_step() * x.step
            self.running_mean[row].lerp_(mean * unit, 0.1)
            self.running_var[row].lerp_(variance * unit.square(), 0.1)
        return values

    def _running_statistics(self, x: Codes, policy: Uniform | Mixed) -> torch.Tensor:
        scale, offset = self.folded(x.step)
        rows = torch.tensor(self.rows)
        count, total = len(x.values), len(self.candidates)
        if self.layer is None or isinstance(policy, Uniform):
            candidate = policy.candidate if isinstance(policy, Uniform) and self.layer is not None else 0
            choice, explore = torch.full((count,), candidate), False
            probabilities = x.values.new_zeros((count, total))
        else:
            probabilities, choice = policy.probabilities[:, self.layer], policy.choice[:, self.layer]
            explore = policy.explore
        return mixed_conv(
            x.values, probabilities, choice, [self._operand(k, x.values.dtype) for k in range(total)],
            scale[rows], offset[rows], widths=tuple(pair[1] for pair in self.candidates),
            zero_point=x.zero_point, rule=self.rules.activation, stride=self.stride, padding=self.padding,
            explore=explore,
        )  # fmt: skip


class NestedBlock(nn.Module):
    """Two nested convolutions, a shortcut, and the residual add (B5) with ReLU."""

    def __init__(self, conv1: NestedConv, conv2: NestedConv, down: NestedConv | None) -> None:
        super().__init__()
        self.conv1, self.conv2, self.down = conv1, conv2, down
        self.step = LearnedStep(torch.tensor(1.0))

    def forward(self, x: Codes, policy: Uniform | Mixed) -> Codes:
        """Codes [N, I, H, W] to codes [N, O, H', W'], zero point 0."""
        y: Codes = self.conv2(self.conv1(x, policy), policy)
        shortcut: Codes = x if self.down is None else self.down(x, policy)
        step = self.step()
        values = add_codes(y.values, shortcut.values, y.step, shortcut.step, step, y.zero_point, shortcut.zero_point)
        return Codes(values, step, 0)


class NestedLinear(nn.Module):
    """Classifier (B7): one weight step for all classes, whose logits are compared; one bias row per width."""

    def __init__(self, source: nn.Linear, rules: NestingRules, layer: int) -> None:
        super().__init__()
        self.rules, self.layer = rules, layer
        self.weight = nn.Parameter(source.weight.detach().clone())
        self.weight_step = LearnedStep(self.weight.std() * _WEIGHT_REACH / WEIGHT_ZERO_POINT)
        self.bias = nn.Parameter(source.bias.detach().repeat(len(rules.row_widths), 1))

    def forward(self, x: Codes, policy: Uniform | Mixed) -> torch.Tensor:
        """Codes [N, I] to float32 logits [N, classes]."""
        if isinstance(policy, Uniform):
            return self._at(x, policy.candidate)
        branches = torch.stack([self._at(x, k) for k in range(len(self.rules.candidates))], 1)
        return (policy.probabilities[:, self.layer, :, None] * branches).sum(1)

    def _at(self, x: Codes, candidate: int) -> torch.Tensor:
        width_w, width_a = self.rules.candidates[candidate]
        step = self.weight_step()
        weight = nest_weight(self.weight, step, width_w, self.rules.weight)
        operand = nest_activation(x.values, width_a, x.zero_point, self.rules.activation)
        product: torch.Tensor = functional.linear(operand, weight)
        result: torch.Tensor = product * (step * x.step) + self.bias[self.rules.row(candidate)]
        return result


class NestedResNet8(nn.Module):
    """The nested network without its controller. Layer order, as in `bits`: see `layer_names`."""

    layer_names = (
        "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "block2.down",
        "block3.conv1", "block3.conv2", "block3.down", "fc",
    )  # fmt: skip

    def __init__(self, source: FloatResNet8, rules: NestingRules) -> None:
        super().__init__()
        self.rules = rules
        number = {name: i for i, name in enumerate(self.layer_names)}
        self.stem = NestedConv(source.stem, rules, rectified=True, layer=None)
        blocks = []
        for name in ("block1", "block2", "block3"):
            block = getattr(source, name)
            down = block.down and NestedConv(block.down, rules, rectified=False, layer=number[f"{name}.down"])
            blocks.append(
                NestedBlock(
                    NestedConv(block.conv1, rules, rectified=True, layer=number[f"{name}.conv1"]),
                    NestedConv(block.conv2, rules, rectified=False, layer=number[f"{name}.conv2"]),
                    down,
                )
            )
        self.block1, self.block2, self.block3 = blocks
        self.pool_step = LearnedStep(torch.tensor(1.0))
        self.fc = NestedLinear(source.fc, rules, number["fc"])

    def features(self, pictures: torch.Tensor, dtype: torch.dtype) -> Codes:
        """The stem's codes, zero point 0, of uint8 pictures [N, 3, H, W]; they depend on no policy."""
        values = pictures.to(dtype).contiguous(memory_format=torch.channels_last)
        source = Codes(values, torch.tensor(INPUT_SCALE), INPUT_ZERO_POINT)
        return cast(Codes, self.stem(source, Uniform(0)))

    def head(self, x: Codes, policy: Uniform | Mixed) -> torch.Tensor:
        """The stem's codes to float32 logits [N, classes] at the widths of `policy`."""
        for block in (self.block1, self.block2, self.block3):
            x = block(x, policy)
        mean = x.values.mean((2, 3), dtype=torch.float32) * x.step
        step = self.pool_step()
        return cast(torch.Tensor, self.fc(Codes(quantize(mean, step), step, 0), policy))

    def freeze_norm(self, frozen: bool) -> None:
        """Whether training, too, normalises with the running statistics and leaves them alone."""
        for module in self.modules():
            if isinstance(module, NestedConv):
                module.frozen = frozen

    def set_steps(self, activations: dict[str, torch.Tensor]) -> None:
        """Initial activation steps from the float network's activations on a few pictures."""
        for name, value in activations.items():
            step = self.get_submodule("pool_step" if name == "pool" else f"{name.removesuffix('.add')}.step")
            cast(LearnedStep, step).set(_initial_step(value.detach()))


def _initial_step(value: torch.Tensor) -> torch.Tensor:
    signed = bool((value < 0).any())
    reach = value.std() * _SIGNED_REACH if signed else value.square().mean().sqrt() * _RECTIFIED_REACH
    result: torch.Tensor = reach / (WEIGHT_ZERO_POINT if signed else TOP_CODE)
    return result


def float_activations(network: FloatResNet8, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every tensor that nested training quantizes, by name, from float pictures [N, 3, H, W]."""
    found: dict[str, torch.Tensor] = {}
    x = found["stem"] = functional.relu(network.stem(pictures))
    for name in ("block1", "block2", "block3"):
        block = getattr(network, name)
        hidden = found[f"{name}.conv1"] = functional.relu(block.conv1(x))
        y = found[f"{name}.conv2"] = block.conv2(hidden)
        if block.down is not None:
            x = found[f"{name}.down"] = block.down(x)
        x = found[f"{name}.add"] = functional.relu(y + x)
    found["pool"] = x.mean((2, 3))
    return found
