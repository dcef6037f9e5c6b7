"""Convolutions and fully connected layers, with their batch norm, requantized to codes (B1 to B4)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.graph.model import Array
from dqtsim.train import steps
from dqtsim.train.constants import BIAS_LIMIT, Reals, reals, requantizing, rounded_bias
from dqtsim.train.integer import Requantizer
from dqtsim.train.modules.base import LEAST_STEP, MASTER, Codes, LearnedStep, Nested, Policy, Uniform
from dqtsim.train.nested import Geometry, mixed_conv, nest_activation, nest_weight, quantize_normalised
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, NestingRules, Widths

# A four-level nesting of Gaussian weights is best when the 8-bit grid reaches about 2.7 standard deviations.
WEIGHT_REACH = 2.7


class NestedLayer(Nested):
    """Convolution or fully connected layer, batch norm (one row per width), quantization to a master code.

    Without a batch norm in the source there is a bias per row instead. `layer` is the layer's index among those that
    the controller decides, None if it is pinned. Rows are selected by `row_widths` (B3') or, after `separate_rows`, by
    `row_pairs` (B3''). `windows` [9] moves activations at each width to lower bits (A6).
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    centre: torch.Tensor | None

    def __init__(self, source: steps.Layer, rules: NestingRules, layer: int | None) -> None:
        super().__init__(source)
        self.rules, self.layer = rules, layer
        self.frozen, self.momentum = False, 0.1
        self.pairs = rules.pairs if layer is not None else (MASTER,)
        self.rows = tuple(rules.row(pair) for pair in self.pairs) if layer is not None else (0,)
        self.row_widths = rules.row_widths if layer is not None else (MASTER_WIDTH,)
        self.row_pairs: tuple[Widths, ...] | None = None
        self.windows: tuple[int, ...] | None = None
        self.flat, self.pads = source.flat, (0, 0, 0, 0) if source.flat else source.pads
        self.geometry = Geometry()
        if not source.flat:
            even = source.padding is None and self.pads[:2] == self.pads[2:]
            padding = self.pads[:2] if even else (0, 0)
            self.pads = (0, 0, 0, 0) if even else self.pads
            self.geometry = Geometry(source.strides, padding, source.dilations, source.groups)
        # Whether there is a factor per output besides the weight's step; and whether training measures its statistics.
        self.normalised = self.tracked = source.norm is not None
        self.eps = source.norm.eps if source.norm is not None else 0.0
        weight, gamma, beta, mean, variance = _folded_source(source)
        count = len(self.row_widths)
        self.weight = nn.Parameter(weight)
        spread = weight.flatten(1).std(1, unbiased=False)
        # A channel of one weight, or of equal ones, has no spread.
        spread = torch.maximum(spread, weight.flatten(1).abs().amax(1) / WEIGHT_REACH)
        self.weight_step = LearnedStep(spread * WEIGHT_REACH / WEIGHT_ZERO_POINT)
        if self.normalised:
            self.gamma = nn.Parameter(gamma.repeat(count, 1))
        self.beta = nn.Parameter(beta.repeat(count, 1))
        self.register_buffer("running_mean", mean.repeat(count, 1))
        self.register_buffer("running_var", variance.repeat(count, 1))
        centre = None if source.padding is None else torch.tensor(source.padding, dtype=torch.float64)
        self.register_buffer("centre", centre, persistent=False)

    def separate_rows(self) -> None:
        """Give every pair of widths a row of its own (B3''), equal to the one that it had."""
        if self.row_pairs is not None or len(self.pairs) == 1:
            return
        index = torch.tensor(self.rows).to(self.beta.device)
        with torch.no_grad():
            if self.normalised:
                self.gamma = nn.Parameter(self.gamma[index])
            self.beta = nn.Parameter(self.beta[index])
            self.running_mean, self.running_var = self.running_mean[index], self.running_var[index]
        self.row_pairs, self.rows = self.pairs, tuple(range(len(self.pairs)))

    def set_statistics(self, source: steps.Layer) -> None:
        """Take over the batch norm statistics of the step that this layer was made of."""
        *_, mean, variance = _folded_source(source)
        with torch.no_grad():
            self.running_mean.copy_(mean.expand_as(self.running_mean))
            self.running_var.copy_(variance.expand_as(self.running_var))

    def multiply_rows(self, factors: torch.Tensor) -> None:
        """Multiply the outputs by positive `factors` [O]."""
        with torch.no_grad():
            self.beta.mul_(factors)
            if self.normalised:
                self.gamma.mul_(factors)
            else:
                self.weight.mul_(factors.reshape(-1, *[1] * (self.weight.dim() - 1)))

    def factors(self, input_step: torch.Tensor) -> torch.Tensor:
        """Real output per accumulator step, [R, O]."""
        return self.slope() * (self.effective_step(input_step) * input_step)

    def constant(self) -> torch.Tensor:
        """Real output at accumulator 0, [R, O]."""
        return self.beta - self.slope() * self.running_mean

    def set_row(self, row: int, factor: torch.Tensor, constant: torch.Tensor, input_step: torch.Tensor) -> None:
        """Let the outputs of a row be factor * accumulator + constant, float64 [O] each, before the activation.

        A layer without a batch norm gets a factor per row; training will not measure statistics for it.
        """
        if not self.normalised:
            self.gamma = nn.Parameter(torch.ones_like(self.beta))
            self.running_var, self.eps, self.normalised = torch.ones_like(self.beta), 0.0, True
        unit = (self.effective_step(input_step) * input_step).double()
        slope = factor / unit.clamp_min(LEAST_STEP)
        with torch.no_grad():
            self.gamma[row] = slope * (self.running_var[row].double() + self.eps).sqrt()
            self.beta[row] = constant + slope * self.running_mean[row].double()

    def operand(self, pair: int, input_step: torch.Tensor) -> torch.Tensor:
        """The weights' operands [O, I / groups, kh, kw] at one of `pairs`, in master steps, float32."""
        operand = self._weights(pair, input_step)
        operand = operand[:, :, None, None] if self.flat else operand
        return operand.contiguous(memory_format=torch.channels_last)

    def sums(self, x: Codes, operand: torch.Tensor, pair: int, geometry: Geometry | None = None) -> torch.Tensor:
        """Sums [N, O, H', W'] of operands at one of `pairs` (B1, B2), less what the input's centre adds.

        `x` is read with `geometry`, which finds its border there; without one, as the layer does it.
        """
        x = self.padded(x) if geometry is None else x
        width = self.pairs[pair][1]
        values = nest_activation(x.values, width, x.zero_point, self.rules.activation, self.window(width))
        sums, centre = (geometry or self.geometry).convolve(values, operand), self._centre_sums(x.step)
        return sums if centre is None else sums - centre.reshape(-1, 1, 1)

    def positive_gamma(self) -> torch.Tensor:
        """Batch norm scales as they are used: float32 [R, O], positive, because M is unsigned (B4)."""
        return self.gamma.abs().clamp_min(LEAST_STEP)

    def slope(self) -> torch.Tensor:
        """Real output per real accumulator, [R, O]."""
        if not self.normalised:
            return torch.ones_like(self.beta)
        return self.positive_gamma() / (self.running_var + self.eps).sqrt().clamp_min(LEAST_STEP)

    def _slopes(self) -> Reals:
        """`slope` in float64, for constants."""
        if not self.normalised:
            return reals(torch.ones_like(self.beta))
        deviation = (self.running_var.double() + self.eps).sqrt().clamp_min(LEAST_STEP)
        return reals(self.positive_gamma().double() / deviation)

    def effective_step(self, input_step: torch.Tensor) -> torch.Tensor:
        """The weight step [O] that is used: the learned one, raised where B would otherwise pass 32 bits (B3).

        Where it is raised, 2^31 accumulator steps are less than the channel's constant, so that what its weights lose
        by it is below 2^-23 of that constant per tap.
        """
        step: torch.Tensor = self.weight_step()
        constant = np.abs(reals(self.beta) / self._slopes() - reals(self.running_mean)).max(0)
        least = torch.from_numpy(constant / (input_step.item() * self._bias_limit())).to(step.device)
        raised = least > step.detach()
        if not bool(raised.any()):
            return step
        return step.where(~raised, (least * (1 + 1e-6)).to(step.dtype))

    def _bias_limit(self) -> int:
        # What is taken off B for the centre of the input is at most one accumulator.
        return BIAS_LIMIT - 2 - (self.weight[0].numel() << (2 * MASTER_WIDTH - 1) if self.centre is not None else 0)

    def _offsets(self, x_step: float) -> torch.Tensor | None:
        """Real zero of every channel of the input less its zero point, in codes: float64 [I]; None if all are 0."""
        if self.centre is None:
            return None
        offsets: torch.Tensor = self.centre / x_step
        return offsets

    def padding_codes(self, x: Codes | tuple[float, int]) -> torch.Tensor | None:
        """The codes int64 [I] of padded taps (B1'), None where they are the zero point."""
        step, zero_point = (x.step.item(), x.zero_point) if isinstance(x, Codes) else x
        offsets = self._offsets(step)
        if offsets is None or not any(self.pads):
            return None
        codes = (offsets + 0.5).floor().to(torch.int64) + zero_point
        if int(codes.min()) < 0 or int(codes.max()) > TOP_CODE:
            raise ModelError(
                f"padded taps hold a code of the picture, 0 to {TOP_CODE}, but those of {self.name} would be "
                f"{int(codes.min())} to {int(codes.max())}; the mean of the input must lie in its range."
            )
        return codes

    def _centre_sums(self, x_step: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
        """What the centre of the input adds to every accumulator: [O]; None without a centre."""
        offsets = self._offsets(x_step.item())
        if offsets is None:
            return None
        # Only pinned layers have one, hence one pair of widths.
        operand = self._weights(0, x_step).to(dtype)
        groups, per_group = self.geometry.groups, operand.shape[1]
        own = offsets.to(operand.dtype).reshape(groups, 1, per_group)
        sums = operand.flatten(2).sum(2) if operand.dim() > 2 else operand
        return (sums.reshape(groups, -1, per_group) * own).sum(2).flatten()

    def folded(self, x: Codes) -> tuple[torch.Tensor, torch.Tensor]:
        """Running batch norm and quantization as one affine map per row: scale and offset [R, O] in codes."""
        unit = self.effective_step(x.step) * x.step
        slope, step = self.slope(), self.step()
        scale, offset = slope * unit / step, (self.beta - self.running_mean * slope) / step + self.zero_point
        sums = self._centre_sums(x.step)
        return scale, offset if sums is None else offset - scale * sums

    def constants(self, input_step: float) -> tuple[Array, Array, Array]:
        """B, M and S, int64 [R, O], as export writes them.

        With unit = step_w * step_a and slope = gamma / sigma:
        B = (beta / slope - mu) / unit and M * 2^-S = unit * slope / step. Where the input has a centre, it is taken
        off B with the weights as they are quantized.
        """
        step = torch.tensor(input_step, dtype=torch.float64)
        unit, slope = reals(self.effective_step(step)) * input_step, self._slopes()
        multiplier, shift = requantizing(unit * slope / self.step().item(), self.name)
        bias = (reals(self.beta) / slope - reals(self.running_mean)) / unit
        sums = self._centre_sums(step, torch.float64)
        return rounded_bias(bias if sums is None else bias - reals(sums)), multiplier, shift

    def _requantizers(self, x: Codes, pairs: tuple[int, ...]) -> list[Requantizer]:
        tables, device = self.constants(x.step.item()), x.values.device
        rows = [[table[self.rows[pair]] for table in tables] for pair in pairs]
        return [Requantizer.of(row, self.zero_point, self.high(), device) for row in rows]

    def forward(self, x: Codes, policy: Policy) -> Codes:
        """Codes [N, I, H, W] or [N, I] to codes [N, O, ...] at the widths that `policy` gives this layer."""
        step, x = self.step(), self.padded(x)
        running = not self.tracked or self.frozen or self.exact or not self.training
        if isinstance(policy, Uniform) and not running:
            values = self._batch_statistics(x, policy.pair if self.layer is not None else 0, step)
        else:
            values = self._running_statistics(x, policy)
        return Codes(values.flatten(1) if self.flat else values, step, self.zero_point)

    def padded(self, x: Codes) -> Codes:
        """The codes with their border, unless the convolution itself adds zeros."""
        values = x.values
        if self.flat:
            return x.moved(values[:, :, None, None])
        if not any(self.pads):
            return x
        top, left, bottom, right = self.pads
        codes = self.padding_codes(x)
        if codes is None:
            return x.moved(functional.pad(values, (left, right, top, bottom), value=float(x.zero_point)))
        border = codes.to(values.device, values.dtype)[:, None, None]
        return x.moved(functional.pad(values - border, (left, right, top, bottom)) + border)

    def _weights(self, pair: int, input_step: torch.Tensor) -> torch.Tensor:
        return nest_weight(self.weight, self.effective_step(input_step), self.pairs[pair][0], self.rules.weight)

    def _operand(self, pair: int, x: Codes) -> torch.Tensor:
        return self.operand(pair, x.step).to(x.values.dtype)

    def window(self, width: int) -> int:
        """How many bits lower activations of a width are taken (A6)."""
        return self.windows[width] if self.windows is not None else 0

    def _batch_statistics(self, x: Codes, pair: int, step: torch.Tensor) -> torch.Tensor:
        width = self.pairs[pair][1]
        operand = nest_activation(x.values, width, x.zero_point, self.rules.activation, self.window(width))
        accumulator = self.geometry.convolve(operand, self._operand(pair, x))
        row = self.rows[pair]
        values, mean, variance = quantize_normalised(
            accumulator, self.positive_gamma()[row], self.beta[row], step, self.zero_point, self.high()
        )
        with torch.no_grad():
            unit, sums = self.effective_step(x.step) * x.step, self._centre_sums(x.step)
            self.running_mean[row].lerp_((mean if sums is None else mean - sums) * unit, self.momentum)
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
        scale, offset = self.folded(x)
        rows = torch.tensor([self.rows[pair] for pair in pairs]).to(scale.device)
        widths = tuple(self.pairs[pair][1] for pair in pairs)
        return mixed_conv(
            x.values, probabilities, choice, [self._operand(pair, x) for pair in pairs], scale[rows], offset[rows],
            widths=widths, windows=tuple(map(self.window, widths)), zero_point=x.zero_point,
            rule=self.rules.activation, geometry=self.geometry, high=self.high(), explore=explore,
            integers=self._requantizers(x, pairs) if self.exact else None,
        )  # fmt: skip


def _folded_source(
    source: steps.Layer,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, gamma, beta, mean and variance; a negative gamma negates its weights, a bias goes into the mean.

    A layer with `padding` p computes w * x + b; here it is w * (x - p) + (b + w * p), so that padded taps add nothing.
    """
    # Copies, because training changes them.
    weight, norm = source.weight.clone(), source.norm
    bias = weight.new_zeros(len(weight), dtype=torch.float64) if source.bias is None else source.bias.double()
    if source.padding is not None:
        groups, per_group = source.groups, weight.shape[1]
        padding = torch.tensor(source.padding, dtype=torch.float64).reshape(groups, 1, per_group)
        taps = weight.double().flatten(2).sum(2) if weight.dim() > 2 else weight.double()
        bias = bias + (taps.reshape(groups, -1, per_group) * padding).sum(2).flatten()
    zeros = weight.new_zeros(len(weight))
    if norm is None:
        return weight, torch.ones_like(zeros), bias.to(weight.dtype), zeros, torch.ones_like(zeros)
    sign = torch.where(norm.gamma < 0, -1.0, 1.0)
    weight = weight * sign.reshape(-1, *([1] * (weight.dim() - 1)))
    mean = ((norm.mean.double() - bias) * sign).to(weight.dtype)
    return weight, norm.gamma.abs(), norm.beta.clone(), mean, norm.variance.clone()
