"""Nested layers, which training optimises and export folds.

A layer writes its activations as master codes; each consumer nests them to its own width.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from dqtsim.graph.model import Array
from dqtsim.train import steps
from dqtsim.train.constants import BIAS_LIMIT, multiplier_and_shift, per_channel, reals, rounded_bias
from dqtsim.train.integer import IntegerExact, Requantizer, exact_dtype, rescale, straight_through
from dqtsim.train.nested import (
    NORM_EPSILON,
    Geometry,
    add_codes,
    mixed_conv,
    nest_activation,
    nest_weight,
    quantize,
    quantize_normalised,
)
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, NestingRules

# A batch norm's scale is at least this: a folded multiplier M (B4) is unsigned, and a smaller one would be lost.
GAMMA_FLOOR = 1e-3
# A four-level nesting of Gaussian weights is best when the 8-bit grid reaches about 2.7 standard deviations,
# and of rectified activations about 3.5 root mean squares; training starts from there.
_WEIGHT_REACH = 2.7
_RECTIFIED_REACH = 3.5
# Signed tensors mostly go into a residual add, which reads all their bits.
_SIGNED_REACH = 4.5
_MASTER = (MASTER_WIDTH, MASTER_WIDTH)


@dataclass(frozen=True)
class Uniform:
    """The whole network at `rules.pairs[pair]`; in training, batch norm uses and updates batch statistics."""

    pair: int


@dataclass(frozen=True)
class Mixed:
    """A candidate for every picture and layer: probabilities [N, L, K], one-hot forward; choice int64 [N, L].

    With `soft` the probabilities are not one-hot, and a layer's output is the mean of its branches.
    """

    probabilities: torch.Tensor
    choice: torch.Tensor
    explore: bool
    soft: bool = False


Policy = Uniform | Mixed


@dataclass(frozen=True)
class Codes:
    """Master codes in a float dtype, with their step [] and zero point."""

    values: torch.Tensor
    step: torch.Tensor
    zero_point: int

    def real(self) -> torch.Tensor:
        """The real values of the codes, float32."""
        return (self.values.float() - self.zero_point) * self.step


class LearnedStep(nn.Module):
    """A quantizer's step; its logarithm is learned, so the step is positive."""

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


class Nested(nn.Module, IntegerExact):
    """Base of all nested steps: a name, and the grid of the output."""

    def __init__(self, name: str, positive: bool, activation: steps.Activation | None = None) -> None:
        super().__init__()
        self.name = name
        self.zero_point = 0 if positive else WEIGHT_ZERO_POINT
        self.ceiling: float | None = activation.ceiling if activation is not None else None
        self.step = LearnedStep(torch.tensor(1.0))

    def high(self) -> int:
        """The largest code (B4): that of the ceiling, where there is one."""
        if self.ceiling is None:
            return TOP_CODE
        code: int = math.floor(self.ceiling / self.step().item() + 0.5)
        return min(TOP_CODE, max(1, code))

    def rescaling(self, input_step: float) -> tuple[int, int]:
        """M and S that bring codes of `input_step` to the output's grid (B4)."""
        (multiplier,), shift = multiplier_and_shift([input_step / self.step().item()], self.name)
        return multiplier, shift

    def _rescaled(self, x: Codes) -> torch.Tensor:
        """The values of `x` on the output's grid: codes in the dtype of `x`."""
        codes = quantize(x.real(), self.step(), self.zero_point, self.high()).to(x.values.dtype)
        return self._exactly(codes, _centred(x), *self.rescaling(x.step.item())) if self.exact else codes

    def _exactly(self, codes: torch.Tensor, sums: torch.Tensor, multiplier: int, shift: int) -> torch.Tensor:
        """`codes` with their values replaced by those of int64 `sums` after B4."""
        exact = rescale(sums * multiplier, shift, self.zero_point, self.high())
        return straight_through(codes, exact.to(codes.dtype))

    def initialise(self, value: torch.Tensor) -> None:
        """Set the step from the float tensor that the output represents."""
        value = value.detach()
        reach = value.std() * _SIGNED_REACH if self.zero_point else value.square().mean().sqrt() * _RECTIFIED_REACH
        self.step.set(reach / (TOP_CODE - self.zero_point))


def _centred(x: Codes) -> torch.Tensor:
    """Codes less their zero point, int64."""
    return x.values.detach().to(torch.int64) - x.zero_point


class NestedLayer(Nested):
    """Convolution or fully connected layer, batch norm (one row per width), quantization to a master code.

    Without a batch norm in the source there is a bias per row instead. `layer` is the layer's index among those that
    the controller decides, None if it is pinned.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, source: steps.Layer, rules: NestingRules, layer: int | None) -> None:
        super().__init__(source.name, source.positive, source.activation)
        self.rules, self.layer = rules, layer
        self.frozen, self.momentum = False, 0.1
        self.pairs = rules.pairs if layer is not None else (_MASTER,)
        self.rows = tuple(rules.row(pair) for pair in self.pairs) if layer is not None else (0,)
        self.row_widths = rules.row_widths if layer is not None else (MASTER_WIDTH,)
        self.flat = source.flat
        self.geometry = Geometry()
        if not source.flat:
            self.geometry = Geometry(source.strides, source.pads[:2], source.dilations, source.groups)
        self.normalised = source.norm is not None
        weight, gamma, beta, mean, variance = _folded_source(source)
        count = len(self.row_widths)
        self.weight = nn.Parameter(weight)
        spread = weight.flatten(1).std(1, unbiased=False).clamp_min(1e-4)
        self.weight_step = LearnedStep(spread * _WEIGHT_REACH / WEIGHT_ZERO_POINT)
        if self.normalised:
            self.gamma = nn.Parameter(gamma.repeat(count, 1))
        self.beta = nn.Parameter(beta.repeat(count, 1))
        self.register_buffer("running_mean", mean.repeat(count, 1))
        self.register_buffer("running_var", variance.repeat(count, 1))

    def positive_gamma(self) -> torch.Tensor:
        """Batch norm scales as they are used: float32 [R, O], positive, because M is unsigned (B4)."""
        return self.gamma.abs().clamp_min(GAMMA_FLOOR)

    def slope(self, unit: torch.Tensor) -> torch.Tensor:
        """Real output per real accumulator, [R, O], if one accumulator step has the value `unit` [O]."""
        if not self.normalised:
            return torch.ones_like(self.beta)
        return self.positive_gamma() / (self.running_var + NORM_EPSILON * unit.square()).sqrt()

    def folded(self, input_step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Running batch norm and quantization as one affine map per row: scale and offset [R, O] in codes."""
        unit = self.weight_step() * input_step
        slope, step = self.slope(unit), self.step()
        return slope * unit / step, (self.beta - self.running_mean * slope) / step + self.zero_point

    def constants(self, input_step: float) -> tuple[Array, Array, Array]:
        """B, M and S, int64 [R, O], as export writes them.

        With unit = step_w * step_a and slope = gamma / sigma:
        B = (beta / slope - mu) / unit and M * 2^-S = unit * slope / step.
        """
        unit = reals(self.weight_step()) * input_step
        slope = reals(self.slope(torch.from_numpy(unit).to(self.beta.device)))
        multiplier, shift = per_channel(unit * slope / self.step().item(), self.name)
        return rounded_bias((reals(self.beta) / slope - reals(self.running_mean)) / unit), multiplier, shift

    def _requantizers(self, x: Codes, pairs: tuple[int, ...]) -> list[Requantizer]:
        tables, device = self.constants(x.step.item()), x.values.device
        rows = [[table[self.rows[pair]] for table in tables] for pair in pairs]
        return [Requantizer.of(row, self.zero_point, self.high(), device) for row in rows]

    def forward(self, x: Codes, policy: Policy) -> Codes:
        """Codes [N, I, H, W] or [N, I] to codes [N, O, ...] at the widths that `policy` gives this layer."""
        step, values = self.step(), x.values
        if self.flat:
            x = Codes(values[:, :, None, None], x.step, x.zero_point)
        running = not self.normalised or self.frozen or self.exact or not self.training
        if isinstance(policy, Uniform) and not running:
            values = self._batch_statistics(x, policy.pair if self.layer is not None else 0, step)
        else:
            values = self._running_statistics(x, policy)
        return Codes(values.flatten(1) if self.flat else values, step, self.zero_point)

    def _operand(self, pair: int, dtype: torch.dtype) -> torch.Tensor:
        operand = nest_weight(self.weight, self.weight_step(), self.pairs[pair][0], self.rules.weight)
        operand = operand[:, :, None, None] if self.flat else operand
        return operand.to(dtype, memory_format=torch.channels_last)

    def _batch_statistics(self, x: Codes, pair: int, step: torch.Tensor) -> torch.Tensor:
        operand = nest_activation(x.values, self.pairs[pair][1], x.zero_point, self.rules.activation)
        accumulator = self.geometry.convolve(operand, self._operand(pair, operand.dtype))
        row = self.rows[pair]
        values, mean, variance = quantize_normalised(
            accumulator, self.positive_gamma()[row], self.beta[row], step, self.zero_point, self.high()
        )
        with torch.no_grad():
            unit = self.weight_step() * x.step
            self.running_mean[row].lerp_(mean * unit, self.momentum)
            self.running_var[row].lerp_(variance * unit.square(), self.momentum)
        return values

    def _running_statistics(self, x: Codes, policy: Policy) -> torch.Tensor:
        count = len(x.values)
        if self.layer is None or isinstance(policy, Uniform):
            pair = policy.pair if isinstance(policy, Uniform) and self.layer is not None else 0
            nothing = x.values.new_zeros((count, 1))
            return self._mixed(x, (pair,), nothing, torch.zeros_like(nothing[:, 0], dtype=torch.int64), explore=False)
        probabilities = policy.probabilities[:, self.layer]
        candidates = range(len(self.rules.candidates))
        if policy.soft:
            branches = [self._running_statistics(x, Uniform(k)) for k in candidates]
            weights = probabilities.to(x.values.dtype)[:, :, None, None, None]
            return (torch.stack(branches, 1) * weights).sum(1)
        choice = policy.choice[:, self.layer]
        return self._mixed(x, tuple(candidates), probabilities, choice, explore=policy.explore)

    def _mixed(
        self, x: Codes, pairs: tuple[int, ...], probabilities: torch.Tensor, choice: torch.Tensor, *, explore: bool
    ) -> torch.Tensor:
        scale, offset = self.folded(x.step)
        rows = torch.tensor([self.rows[pair] for pair in pairs]).to(scale.device)
        return mixed_conv(
            x.values, probabilities, choice, [self._operand(pair, x.values.dtype) for pair in pairs],
            scale[rows], offset[rows], widths=tuple(self.pairs[pair][1] for pair in pairs),
            zero_point=x.zero_point, rule=self.rules.activation, geometry=self.geometry, high=self.high(),
            explore=explore, integers=self._requantizers(x, pairs) if self.exact else None,
        )  # fmt: skip


def _folded_source(
    source: steps.Layer,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, gamma, beta, mean and variance; a negative gamma negates its weights, a bias goes into the mean."""
    # Copies, because training changes them.
    weight, norm = source.weight.clone(), source.norm
    zeros = weight.new_zeros(len(weight))
    bias = source.bias.clone() if source.bias is not None else zeros
    if norm is None:
        return weight, torch.ones_like(zeros), bias, zeros, torch.ones_like(zeros)
    sign = torch.where(norm.gamma < 0, -1.0, 1.0)
    weight = weight * sign.reshape(-1, *([1] * (weight.dim() - 1)))
    return weight, norm.gamma.abs(), norm.beta.clone(), (norm.mean - bias) * sign, norm.variance + norm.eps


class NestedLogits(nn.Module, IntegerExact):
    """Classifier (B7): one weight step for all classes, because their logits are compared; one bias row per width."""

    def __init__(self, source: steps.Logits, rules: NestingRules, layer: int) -> None:
        super().__init__()
        self.rules, self.layer = rules, layer
        self.row_widths = rules.row_widths
        self.weight = nn.Parameter(source.weight.clone())
        self.weight_step = LearnedStep(self.weight.std() * _WEIGHT_REACH / WEIGHT_ZERO_POINT)
        bias = self.weight.new_zeros(len(self.weight)) if source.bias is None else source.bias
        self.bias = nn.Parameter(bias.repeat(len(rules.row_widths), 1))

    def constants(self, input_step: float) -> Array:
        """B, int64 [R, O], as export writes it."""
        # The logits are int32 (B7), so the bias leaves room for the largest sum.
        room = BIAS_LIMIT - 1 - self.weight[0].numel() * 2 ** (2 * MASTER_WIDTH - 1)
        return rounded_bias(reals(self.bias) / (self.weight_step().item() * input_step), room)

    def forward(self, x: Codes, policy: Policy) -> torch.Tensor:
        """Codes [N, I] to logits [N, classes]: float32, or float64 in integer-exact mode."""
        if isinstance(policy, Uniform):
            return self._at(x, policy.pair)
        branches = torch.stack([self._at(x, k) for k in range(len(self.rules.candidates))], 1)
        return (policy.probabilities[:, self.layer, :, None] * branches).sum(1)

    def _at(self, x: Codes, pair: int) -> torch.Tensor:
        width_w, width_a = self.rules.pairs[pair]
        step = self.weight_step()
        weight = nest_weight(self.weight, step, width_w, self.rules.weight)
        operand = nest_activation(x.values.float(), width_a, x.zero_point, self.rules.activation)
        product: torch.Tensor = functional.linear(operand, weight)
        row = self.rules.row((width_w, width_a))
        result: torch.Tensor = product * (step * x.step) + self.bias[row]
        if not self.exact:
            return result
        dtype = exact_dtype(operand, weight)
        sums = functional.linear(operand.detach().to(dtype), weight.detach().to(dtype)).double()
        bias = torch.from_numpy(self.constants(x.step.item())[row]).to(sums.device)
        return straight_through(result, (sums + bias) * (step.item() * x.step.item()))


class NestedAdd(Nested):
    """Residual add (B5) and its activation."""

    def __init__(self, source: steps.Add) -> None:
        super().__init__(source.name, source.positive, source.activation)

    def constants(self, step_a: float, step_b: float) -> tuple[list[int], int]:
        """M_a and M_b, and S."""
        step = self.step().item()
        return multiplier_and_shift([step_a / step, step_b / step], self.name)

    def forward(self, a: Codes, b: Codes) -> Codes:
        """Codes of one shape to codes of that shape."""
        step, zeros = self.step(), (a.zero_point, b.zero_point, self.zero_point)
        codes = add_codes(a.values, b.values, a.step, b.step, step, zeros, self.high())
        if self.exact:
            (m_a, m_b), shift = self.constants(a.step.item(), b.step.item())
            codes = self._exactly(codes, _centred(a) * m_a + _centred(b) * m_b, 1, shift)
        return Codes(codes, step, self.zero_point)


class NestedRescale(Nested):
    """B4 on codes: the same values on another grid, for a Concat or a separate activation."""

    def forward(self, x: Codes) -> Codes:
        """Codes to codes of the same shape."""
        return Codes(self._rescaled(x), self.step(), self.zero_point)


class NestedAveragePool(Nested):
    """B6: average over windows, on a grid of its own."""

    def __init__(self, source: steps.AveragePool) -> None:
        super().__init__(source.name, source.positive)
        self.kernel, self.stride, self.padding = source.kernel, source.stride, source.pads[:2]

    def constants(self, input_step: float) -> tuple[int, int]:
        """M and S."""
        area = self.kernel[0] * self.kernel[1]
        (multiplier,), shift = multiplier_and_shift([input_step / (area * self.step().item())], self.name)
        return multiplier, shift

    def forward(self, x: Codes) -> Codes:
        """Codes [N, C, H, W] to codes [N, C, H', W']."""
        step = self.step()
        mean = functional.avg_pool2d(x.real(), self.kernel, self.stride, self.padding)
        codes = quantize(mean, step, self.zero_point).to(x.values.dtype)
        if self.exact:
            walk = self.kernel, self.stride, self.padding
            sums = functional.avg_pool2d(_centred(x).double(), *walk, divisor_override=1).to(torch.int64)
            codes = self._exactly(codes, sums, *self.constants(x.step.item()))
        return Codes(codes, step, self.zero_point)


class NestedConcat(Nested):
    """B6: every input is brought to the grid of the output, then they are concatenated."""

    def __init__(self, source: steps.Concat) -> None:
        super().__init__(source.name, source.positive)

    def forward(self, parts: list[Codes]) -> Codes:
        """Codes [N, C, ...] each to codes of all their channels."""
        return Codes(torch.cat([self._rescaled(part) for part in parts], 1), self.step(), self.zero_point)
