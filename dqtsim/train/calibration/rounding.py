"""Master codes of weights, chosen for several widths at once.

One master code serves all widths, so its upper bits are the narrow code: rounding it to the nearest value leaves the
narrow codes to chance. With d_b = w - s_b * 2^e_b the error of an output channel's weights at width b, and H the
covariance of the layer's inputs (a constant error is the bias's affair), what width b does to the outputs is
d_b' H d_b. Coordinate descent minimises the sum over b of lambda_b * d_b' H d_b over the codes, one weight of all
output channels at a time, each move among the nearest codes exact. There is no randomness and no step size.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from dqtsim.train.calibration.pictures import Parts
from dqtsim.train.modules.base import Codes
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.nested import nested_values, weight_codes
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, WeightRule

# How much less a width counts, relative to its error before, than the next narrower one: wide codes have bits to spare.
_SHARE = 0.7
_SWEEPS = 3
_REACH = 10
# Inputs of one weight's column that are looked at together; what is further apart counts as uncorrelated.
_BLOCK = 2304
# Samples of the inputs per coordinate, and their least number.
_SAMPLES = (8, 20_000)
# H shrinks towards a multiple of the identity: always a little, more if there are few samples for its size.
_RIDGE, _RIDGE_SAMPLES = 0.02, 0.1


def covariance(module: NestedLayer | NestedLogits, inputs: Parts, grid: Codes) -> torch.Tensor:
    """The covariance of a layer's inputs, in master steps: float32 [blocks, n, n], a block per group or part of one.

    `inputs` are codes uint8 on the step and zero point of `grid`.
    """
    total, sums, count = torch.zeros(()), torch.zeros(()), 0
    for part in inputs:
        taken = _taken(module, part, grid, len(inputs)).double()
        count += taken.shape[2]
        total, sums = total + taken @ taken.mT, sums + taken.sum(2)
    mean = sums / count
    found = total / count - mean[:, :, None] * mean[:, None]
    middle = found.diagonal(dim1=1, dim2=2).mean(1)
    ridge = middle * (_RIDGE + _RIDGE_SAMPLES * found.shape[1] / count) + 1e-6
    result: torch.Tensor = (found + torch.diag_embed(ridge[:, None].expand(-1, found.shape[1]))).float()
    return result


def _taken(module: NestedLayer | NestedLogits, part: torch.Tensor, grid: Codes, parts: int) -> torch.Tensor:
    """Inputs of the taps [blocks, n, samples] at evenly taken places."""
    codes = Codes(part.float(), grid.step, grid.zero_point)
    if isinstance(module, NestedLogits):
        columns = (codes.values - codes.zero_point).T[None]
        groups, taps = 1, module.weight[0].numel()
    else:
        walk = module.geometry
        x = module.padded(codes).values - codes.zero_point
        taps, groups = module.weight[0].numel(), walk.groups
        kernel = (module.weight.shape[2], module.weight.shape[3]) if module.weight.dim() == 4 else (1, 1)
        wanted = max(_SAMPLES[0] * min(taps, _BLOCK), _SAMPLES[1]) // (parts * len(x)) + 1
        columns = _columns(x, kernel, module, wanted).reshape(groups, taps, -1)
    blocks = -(-taps // _BLOCK)
    size = -(-taps // blocks)
    if blocks * size != taps:
        columns = functional.pad(columns, (0, 0, 0, blocks * size - taps))
    return columns.reshape(groups * blocks, size, -1)


def _columns(x: torch.Tensor, kernel: tuple[int, int], module: NestedLayer, wanted: int) -> torch.Tensor:
    """The windows of x [N, C, H, W] at about `wanted` evenly taken places of each: [C * kh * kw, samples]."""
    walk = module.geometry
    if kernel == (1, 1):
        flat = x[:, :, :: walk.stride[0], :: walk.stride[1]].flatten(2)
    else:
        flat = functional.unfold(x, kernel, walk.dilation, walk.padding, walk.stride)
    return flat[:, :, :: max(1, flat.shape[2] // wanted)].transpose(0, 1).flatten(1)


def round_weights(module: NestedLayer | NestedLogits, step: torch.Tensor, found: torch.Tensor) -> None:
    """Replace the weights by those of the best master codes at the weight step `step`, [O] or []."""
    weight, rule = module.weight.detach(), module.rules.weight
    widths = sorted({pair[0] for pair in module.pairs} | {MASTER_WIDTH})
    reached = step.reshape(-1, 1) if step.dim() else step
    blocks, size = found.shape[:2]
    shape = blocks if isinstance(module, NestedLogits) else blocks // module.geometry.groups
    groups, taps = blocks // shape, weight[0].numel()

    def split(values: torch.Tensor, fill: float) -> torch.Tensor:
        """[O, ...] as [groups * blocks, O / groups, n]."""
        flat = functional.pad(values.flatten(1), (0, shape * size - taps), value=fill)
        return flat.reshape(groups, -1, shape, size).transpose(1, 2).reshape(blocks, -1, size).contiguous()

    wanted = split(weight / reached.reshape(-1, *[1] * (weight.dim() - 1)), 0.0)
    codes = split(weight_codes(weight, step), float(WEIGHT_ZERO_POINT))
    scale = split((reached * torch.ones_like(weight.flatten(1)))[:, :1].expand(-1, taps), 1.0)[:, :, :1].square()
    codes = descend(codes, wanted, scale, found, widths, rule)
    rounded = codes.reshape(groups, shape, -1, size).transpose(1, 2).reshape(len(weight), -1)[:, :taps]
    with torch.no_grad():
        module.weight.copy_((rounded - WEIGHT_ZERO_POINT).mul(reached).reshape(weight.shape))


def descend(
    codes: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor, found: torch.Tensor, widths: Sequence[int],
    rule: WeightRule,
) -> torch.Tensor:  # fmt: skip
    """Codes [B, O, n], from `codes`, for weights `wanted` in master steps [B, O, n] and H `found` [B, n, n].

    Errors of an output count `scale` [B, O, 1], the square of its master step. Each width counts `_SHARE` times the
    next narrower one, relative to its error before.
    """
    codes = codes.clone()
    error = {b: nested_values(codes, b, WEIGHT_ZERO_POINT, rule) - wanted for b in widths}
    slope = {b: error[b] @ found for b in widths}
    share = {}
    for b in widths:
        before = float((error[b] * slope[b] * scale).sum())
        share[b] = _SHARE**b / max(before, 1e-30)
    moves = torch.arange(-_REACH, _REACH + 1, device=codes.device, dtype=codes.dtype)
    for _ in range(_SWEEPS):
        for i in range(codes.shape[2]):
            tried = (codes[:, :, i, None] + moves).clamp_(0, TOP_CODE)
            own = found[:, i, i, None, None]
            cost = torch.zeros_like(tried)
            change = {}
            for b in widths:
                operands = nested_values(tried, b, WEIGHT_ZERO_POINT, rule)
                delta = operands - (wanted[:, :, i] + error[b][:, :, i])[..., None]
                change[b] = delta
                cost += share[b] * delta * (2 * slope[b][:, :, i, None] + own * delta)
            best = cost.argmin(2, keepdim=True)
            codes[:, :, i] = tried.gather(2, best)[..., 0]
            for b in widths:
                moved = change[b].gather(2, best)[..., 0]
                error[b][:, :, i] += moved
                slope[b] += moved[..., None] * found[:, i, None]
    return codes
