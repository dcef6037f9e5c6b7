"""Differentiable nesting: exact forward values of the law's integer operands, straight-through gradients.

Tensors carry *codes* (integers 0 to 255) and operands in *master steps* (s * 2^e of A5). Both are integers of
at most eight significant bits, which bfloat16 holds exactly, so training convolves the integers themselves
in bfloat16; scales are applied once, per channel, afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch.nn import functional

from dqtsim.train import fused
from dqtsim.train.integer import Requantizer, exact_dtype
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, ActivationRule, WeightRule, nested_zero

# Added to a variance measured in accumulator steps, so it matters only for a dead channel.
NORM_EPSILON = 1.0

Gradients = tuple[torch.Tensor | None, ...]


def _applied(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A Function's `apply`, which torch leaves untyped."""
    return function.apply


def nested_values(codes: torch.Tensor, width: int, zero_point: int, rule: WeightRule, window: int = 0) -> torch.Tensor:
    """A1-A6: master codes of any float dtype to operands s * 2^e in master steps, same dtype and shape."""
    k = MASTER_WIDTH - width
    if window:
        return _in_window(codes, width, zero_point, rule, window)
    if k == 0:
        return codes.sub(zero_point) if zero_point else codes
    match rule:
        case "TIES_UP":
            # Adding before scaling keeps bfloat16 exact: sums stay below 256 or round within their own interval.
            nested = codes.add(2 ** (k - 1)).mul_(2.0**-k).floor_().clamp_max_(2**width - 1)
        case "FLOOR" | "MIDPOINT" | "CENTROID":
            nested = codes.mul(2.0**-k).floor_()
        case _:
            assert_never(rule)
    if zero := nested_zero(zero_point, width, rule):
        nested = nested.sub_(zero)
    match rule:
        case "TIES_UP" | "FLOOR":
            return nested.mul_(2.0**k)
        case "MIDPOINT":
            return nested.mul_(2.0).add_(1.0).mul_(2.0 ** (k - 1))
        case "CENTROID":
            return nested.mul_(2.0).add_(1.0).mul_(2.0 ** (k - 1)).sub_(0.5)
        case _:
            assert_never(rule)


def _in_window(codes: torch.Tensor, width: int, zero_point: int, rule: WeightRule, window: int) -> torch.Tensor:
    """A6: the code is taken `window` bits lower, with the zero point of its own width, and saturates."""
    wide = width + window
    own = zero_point if width == MASTER_WIDTH else nested_zero(zero_point, width, rule)
    moved = zero_point if wide == MASTER_WIDTH else nested_zero(zero_point, wide, rule)
    # Operands at the wider width are s * 2^e with the same e, and their zero is s = 0.
    steps = nested_values(codes, wide, zero_point, rule).mul(2.0 ** (wide - MASTER_WIDTH)).add_(moved)
    return steps.sub_(moved - own).clamp_(0, 2**width - 1).sub_(own).mul_(2.0 ** (MASTER_WIDTH - wide))


def _operand(codes: torch.Tensor, width: int, zero_point: int, rule: ActivationRule, window: int = 0) -> torch.Tensor:
    """`nested_values` of activation codes, in the fastest available way."""
    if width < MASTER_WIDTH and not window and fused.fits(codes):
        return fused.nest(codes, width, zero_point, rule)
    return nested_values(codes, width, zero_point, rule, window)


class _NestActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, codes: torch.Tensor, width: int, zero_point: int, rule: ActivationRule, window: int
    ) -> torch.Tensor:
        return _operand(codes, width, zero_point, rule, window)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        return grads[0], None, None, None, None


def nest_activation(
    codes: torch.Tensor, width: int, zero_point: int, rule: ActivationRule, window: int = 0
) -> torch.Tensor:
    """A1-A6 on activation codes, gradient straight through: float codes to operands in master steps.

    `window` is how many bits lower the code is taken at that width (A6).
    """
    result: torch.Tensor = _applied(_NestActivation)(codes, width, zero_point, rule, window)
    return result


def weight_codes(weight: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Master codes of float weights [O, ...] with step [O] or []: clip(floor(w/step + 1/2) + 128, 0, 255)."""
    scaled = weight / _per_output(step, weight)
    return (scaled + 0.5).floor_().add_(WEIGHT_ZERO_POINT).clamp_(0, TOP_CODE)


def _per_output(step: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return step.reshape(-1, *([1] * (weight.dim() - 1))) if step.dim() else step


class _NestWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, step: torch.Tensor, width: int, rule: WeightRule) -> torch.Tensor:
        ctx.save_for_backward(weight, step)
        return nested_values(weight_codes(weight, step), width, WEIGHT_ZERO_POINT, rule)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        weight, step = ctx.saved_tensors
        steps = _per_output(step, weight)
        scaled = weight / steps
        inside = (scaled > -WEIGHT_ZERO_POINT - 0.5) & (scaled < TOP_CODE - WEIGHT_ZERO_POINT + 0.5)
        to_weight = grads[0] * inside / steps
        to_step = -(to_weight * scaled)
        reduced = to_step.flatten(1).sum(1) if step.dim() else to_step.sum()
        return to_weight, reduced, None, None


def nest_weight(weight: torch.Tensor, step: torch.Tensor, width: int, rule: WeightRule) -> torch.Tensor:
    """A1-A5 on float weights [O, ...], step [O] or []: float32 operands in master steps, LSQ gradient."""
    result: torch.Tensor = _applied(_NestWeight)(weight, step, width, rule)
    return result


def round_codes(values: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Codes of float `values` in code units, in place: ties up in float32 (B4); ties to even in bfloat16.

    A bfloat16 value near 128 is nearly always a tie; rounding all of them up would bias training.
    """
    if values.dtype == torch.bfloat16:
        return values.round_().clamp_(low, high)
    return values.add_(0.5).floor_().clamp_(low, high)


def _inside(grad: torch.Tensor, codes: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Gradient where a code is strictly between its clips, else 0: one vectorised pass."""
    result: torch.Tensor = torch.ops.aten.hardtanh_backward(grad, codes, low, high)
    return result


class _QuantizeNormalised(torch.autograd.Function):
    """Batch norm with batch statistics and quantization in one; returns codes, mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, accumulator: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, step: torch.Tensor,
        zero_point: int, high: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        scaled_gamma = gamma / step
        scaled_beta = beta / step + zero_point
        if fused.fits(accumulator):
            codes, mean, deviation = fused.normalised(accumulator, scaled_gamma, scaled_beta, NORM_EPSILON, high)
        else:
            values, mean, deviation = torch.native_batch_norm(
                accumulator, scaled_gamma, scaled_beta, None, None, True, 0.0, NORM_EPSILON
            )
            codes = round_codes(values, 0, high)
        ctx.high = high
        ctx.save_for_backward(accumulator, codes, gamma, beta, step, scaled_gamma, scaled_beta, mean, deviation)
        variance = deviation.pow(-2) - NORM_EPSILON
        ctx.mark_non_differentiable(mean, variance)
        return codes, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        accumulator, codes, gamma, beta, step, scaled_gamma, scaled_beta, mean, deviation = ctx.saved_tensors
        if fused.fits(accumulator):
            grad = grads[0].contiguous(memory_format=torch.channels_last)
            to_accumulator, to_gamma, to_beta = fused.normalised_backward(
                grad, accumulator, scaled_gamma, scaled_beta, mean, deviation, ctx.high
            )
        else:
            to_accumulator, to_gamma, to_beta = torch.ops.aten.native_batch_norm_backward(
                _inside(grads[0], codes, 0, ctx.high), accumulator, scaled_gamma, None, None, mean, deviation, True,
                NORM_EPSILON, [True, True, True],
            )  # fmt: skip
        # A code is y/step + z with y = gamma * x + beta, so the step's gradient is -sum(g * y) / step^2.
        to_step = -(gamma * to_gamma + beta * to_beta).sum() / step.square()
        return to_accumulator, to_gamma / step, to_beta / step, to_step, None, None


def quantize_normalised(
    accumulator: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, step: torch.Tensor, zero_point: int, high: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of the accumulator [N, C, H, W] normalised by batch statistics, and these statistics: mean, variance [C].

    Batch statistics cancel the accumulator's scale, which is therefore neither needed nor differentiated.
    """
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _applied(_QuantizeNormalised)(
        accumulator, gamma, beta, step, zero_point, high
    )
    return result


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products of two tensors of one layout, float32 []; without a product tensor if that is exact enough."""
    if a.dtype == torch.float32 and a.dim() == 4:
        return torch.dot(a.permute(0, 2, 3, 1).reshape(-1), b.permute(0, 2, 3, 1).reshape(-1))
    return (a * b).sum(dtype=torch.float32)


class _AddCodes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, ratio_a: torch.Tensor, ratio_b: torch.Tensor,
        zeros: tuple[int, int, int], high: int,
    ) -> torch.Tensor:  # fmt: skip
        zero_a, zero_b, zero = zeros
        offset = float(zero_a * ratio_a + zero_b * ratio_b) - zero
        if fused.fits(a, b):
            codes = fused.add(a, b, float(ratio_a), float(ratio_b), offset, high)
        else:
            codes = round_codes((a * float(ratio_a)).add_(b, alpha=float(ratio_b)).sub_(offset), 0, high)
        ctx.save_for_backward(a, b, ratio_a, ratio_b, codes)
        ctx.zeros, ctx.high = zeros, high
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        a, b, ratio_a, ratio_b, codes = ctx.saved_tensors
        zero_a, zero_b, _ = ctx.zeros
        if fused.fits(a, b):
            grad = grads[0].contiguous(memory_format=torch.channels_last)
            to_a, to_b, sums = fused.add_backward(grad, codes, a, b, float(ratio_a), float(ratio_b), ctx.high)
            total, with_a, with_b = sums
            return to_a, to_b, (with_a - zero_a * total).float(), (with_b - zero_b * total).float(), None, None
        masked = _inside(grads[0], codes, 0, ctx.high)
        total = masked.sum(dtype=torch.float32)
        to_ratio_a = _dot(masked, a) - zero_a * total
        to_ratio_b = _dot(masked, b) - zero_b * total
        return masked * float(ratio_a), masked.mul_(float(ratio_b)), to_ratio_a, to_ratio_b, None, None


def add_codes(
    a: torch.Tensor, b: torch.Tensor, step_a: torch.Tensor, step_b: torch.Tensor, step: torch.Tensor,
    zeros: tuple[int, int, int], high: int = TOP_CODE,
) -> torch.Tensor:  # fmt: skip
    """B5: codes 0 to `high` of step_a*(a - zeros[0]) + step_b*(b - zeros[1]) at `step`, zero point zeros[2]."""
    result: torch.Tensor = _applied(_AddCodes)(a, b, step_a / step, step_b / step, zeros, high)
    return result


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, high: int) -> torch.Tensor:
        codes = round_codes(values.clone(), 0, high)
        ctx.save_for_backward(values)
        ctx.high = high
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        (values,) = ctx.saved_tensors
        return _inside(grads[0], values, 0, ctx.high), None


def quantize(values: torch.Tensor, step: torch.Tensor, zero_point: int = 0, high: int = TOP_CODE) -> torch.Tensor:
    """Codes 0 to `high` of float32 `values` at `step`, LSQ step gradient."""
    result: torch.Tensor = _applied(_Quantize)(values / step + zero_point, high)
    return result


def _samples(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x[index] along the batch, in the channels-last layout of the convolutions."""
    return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Geometry:
    """The geometry of a convolution: stride, padding (rows, columns), dilation, groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """[N, I, H, W] with [O, I/groups, kh, kw] to [N, O, H', W']."""
        return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def gradients(self, grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of x and weight for `grad` [N, O, H', W']."""
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False, [0, 0], self.groups,
            [True, True, False],
        )  # fmt: skip
        return to_x, to_weight


class _MixedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, codes: torch.Tensor, probabilities: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor,
        choice: torch.Tensor, widths: tuple[int, ...], windows: tuple[int, ...], zero_point: int,
        rule: ActivationRule, geometry: Geometry, high: int, explore: bool,
        integers: Sequence[Requantizer] | None, *weights: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        saved: list[torch.Tensor] = []
        branches: list[torch.Tensor] = []
        result: torch.Tensor | None = None
        for k, weight in enumerate(weights):
            index = (choice == k).nonzero().squeeze(1)
            source = codes if explore else _samples(codes, index)
            operand = _operand(source, widths[k], zero_point, rule, windows[k])
            if integers is None:
                accumulator = geometry.convolve(operand, weight)
                slope, start = (table[k].to(codes.dtype) for table in (scale, offset))
                if fused.fits(accumulator):
                    branch = fused.affine(accumulator, slope, start, high)
                else:
                    branch = round_codes(accumulator * slope[:, None, None] + start[:, None, None], 0, high)
            else:
                dtype = exact_dtype(operand, weight) if len(operand) else torch.float32
                accumulator = geometry.convolve(operand.to(dtype), weight.to(dtype))
                branch = integers[k].codes(accumulator).to(codes.dtype)
                accumulator = accumulator.to(codes.dtype)
            if result is None:
                shape = (len(codes), *branch.shape[1:])
                result = codes.new_empty(shape).contiguous(memory_format=torch.channels_last)
            if explore:
                branches.append(branch)
                operand, accumulator, branch = (_samples(t, index) for t in (operand, accumulator, branch))
            result.permute(0, 2, 3, 1).index_copy_(0, index, branch.permute(0, 2, 3, 1))
            saved += [index, operand, accumulator, branch, weight]
        if result is None:
            raise ValueError("a mixed convolution needs at least one candidate")
        ctx.save_for_backward(scale, result, *saved, *branches)
        ctx.layout = len(weights), geometry, high, codes.shape
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        count, geometry, high, shape = ctx.layout
        scale, result, *rest = ctx.saved_tensors
        branches = rest[5 * count :]
        to_codes = grad.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        to_scale, to_offset = torch.zeros_like(scale), torch.zeros_like(scale)
        to_weights: list[torch.Tensor] = []
        for k in range(count):
            index, operand, accumulator, branch, weight = rest[5 * k : 5 * k + 5]
            if not len(index):
                to_weights.append(torch.zeros_like(weight))
                continue
            slope = scale[k].to(grad.dtype)
            if fused.fits(grad, branch, accumulator):
                scaled, to_scale[k], to_offset[k] = fused.affine_backward(grad, index, branch, accumulator, slope, high)
            else:
                masked = _inside(_samples(grad, index), branch, 0, high)
                to_scale[k] = (masked * accumulator).sum((0, 2, 3), dtype=torch.float32)
                to_offset[k] = masked.sum((0, 2, 3), dtype=torch.float32)
                scaled = masked * slope[:, None, None]
            to_operand, to_weight = geometry.gradients(scaled, operand, weight)
            to_codes.permute(0, 2, 3, 1).index_copy_(0, index, to_operand.permute(0, 2, 3, 1))
            to_weights.append(to_weight)
        to_probabilities = None
        if branches:
            # Relative to the branch chosen: softmax ignores the common part, which bfloat16 would round badly.
            if fused.fits(grad, result, *branches):
                columns = [fused.differences(grad, branch, result) for branch in branches]
            else:
                columns = [(grad * (branch - result)).sum((1, 2, 3), dtype=torch.float32) for branch in branches]
            to_probabilities = torch.stack(columns, 1)
        return (to_codes, to_probabilities, to_scale, to_offset, *([None] * 9), *to_weights)


def mixed_conv(
    codes: torch.Tensor, probabilities: torch.Tensor, choice: torch.Tensor, weights: list[torch.Tensor],
    scale: torch.Tensor, offset: torch.Tensor, *, widths: tuple[int, ...],
    zero_point: int, rule: ActivationRule, geometry: Geometry, high: int, explore: bool,
    integers: Sequence[Requantizer] | None = None, windows: tuple[int, ...] | None = None,
) -> torch.Tensor:  # fmt: skip
    """One convolution in which every picture has its own widths: codes [N, C, H, W] to codes [N, O, H', W'].

    `probabilities` [N, K] is one-hot forward and soft backward; `choice` int64 [N]; `weights`, one operand
    [O, C/groups, kh, kw] per candidate; `scale`, `offset` float32 [K, O] turn accumulators into code units, 0 to
    `high`. With `explore` all branches are computed, so that each probability receives the gradient of its branch's
    codes; weights and inputs receive gradients only through the branch chosen. With `integers`, one per candidate,
    the codes are made by these from exact accumulators, and `scale` and `offset` only serve the gradient.
    """
    result: torch.Tensor = _applied(_MixedConv)(
        codes,
        probabilities,
        scale,
        offset,
        choice,
        widths,
        windows or (0,) * len(widths),
        zero_point,
        rule,
        geometry,
        high,
        explore,
        integers,
        *weights,
    )
    return result
