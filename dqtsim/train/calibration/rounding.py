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

from dqtsim.train.calibration import descent
from dqtsim.train.calibration.places import Taken, columns, pieces
from dqtsim.train.modules.base import Codes
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.nested import nested_values, weight_codes
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, WeightRule

# How much less a width counts, relative to its error before, than the next narrower one: wide codes have bits to spare.
# No width counts less than the last share, so that 8 bits stay as good whatever the narrowest is.
_SHARE, _LEAST_SHARE = 0.5, 1 / 16
_SWEEPS = 3
# How far a code moves at once.
_REACH = 10
# Inputs of an output that are looked at together; what is further apart counts as uncorrelated.
_BLOCK = 2304
# Weights that are looked at together.
_WEIGHTS = 1 << 24
# H shrinks towards a multiple of the identity: always a little, more if there are few samples for its size.
_RIDGE, _RIDGE_SAMPLES = 0.02, 0.1


def covariance(module: NestedLayer | NestedLogits, inputs: Taken, grid: Codes) -> torch.Tensor:
    """The covariance of a layer's inputs, in master steps: float32 [blocks, n, n], a block per group or part of one.

    `inputs` are codes uint8 on the step and zero point of `grid`. Sums are exact, in any order.
    """
    taps = module.weight[0].numel()
    blocks = -(-taps // _BLOCK)
    size = -(-taps // blocks)
    total, sums, count = torch.zeros(()), torch.zeros(()), 0
    for piece in pieces(inputs.codes):
        found = columns(module, piece.double() - grid.zero_point, inputs.geometry)
        found = functional.pad(found, (0, 0, 0, blocks * size - taps)).reshape(-1, size, found.shape[2])
        count += found.shape[2]
        total, sums = total + found @ found.mT, sums + found.sum(2)
    mean = sums / count
    centred = total / count - mean[:, :, None] * mean[:, None]
    middle = centred.diagonal(dim1=1, dim2=2).mean(1)
    ridge = middle * (_RIDGE + _RIDGE_SAMPLES * size / count) + 1e-6
    result: torch.Tensor = (centred + torch.diag_embed(ridge[:, None].expand(-1, size))).float()
    return result


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
    # Few blocks at once, because there is a number per weight and width.
    each = max(1, _WEIGHTS // codes[0].numel())
    parts = (slice(start, start + each) for start in range(0, blocks, each))
    codes = torch.cat([descend(codes[p], wanted[p], scale[p], found[p], widths, rule) for p in parts])
    rounded = codes.reshape(groups, shape, -1, size).transpose(1, 2).reshape(len(weight), -1)[:, :taps]
    with torch.no_grad():
        module.weight.copy_((rounded - WEIGHT_ZERO_POINT).mul(reached).reshape(weight.shape))


def descend(
    codes: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor, found: torch.Tensor, widths: Sequence[int],
    rule: WeightRule,
) -> torch.Tensor:  # fmt: skip
    """Codes [B, O, n], from `codes`, for weights `wanted` in master steps [B, O, n] and H `found` [B, n, n].

    Errors of an output count `scale` [B, O, 1], the square of its master step. Each width counts `_SHARE` times the
    next narrower one, but at least `_LEAST_SHARE`, relative to its error before.
    """
    error = torch.stack([nested_values(codes, b, WEIGHT_ZERO_POINT, rule) - wanted for b in widths], 2)
    # One product per block: broadcasting would copy H for every output.
    slope = (error.flatten(1, 2) @ found).reshape(error.shape)
    before = (slope * error * scale[:, :, None]).sum((0, 1, 3))
    counts = [max(_SHARE ** (b - min(widths)), _LEAST_SHARE) for b in widths]
    share = torch.tensor(counts) / before.cpu().clamp_min(1e-30)
    every = torch.arange(TOP_CODE + 1, dtype=codes.dtype)
    operands = torch.stack([nested_values(every, b, WEIGHT_ZERO_POINT, rule) for b in widths])
    moved = codes.to("cpu", torch.uint8).contiguous().numpy()
    each = share.expand(*codes.shape[:2], -1)
    own = (moved, *(table.cpu().contiguous().numpy() for table in (slope, found[:, None], each, operands)))
    descent.descend(*own, reach=_REACH, sweeps=_SWEEPS, threads=torch.get_num_threads())
    return torch.from_numpy(moved).to(codes)
