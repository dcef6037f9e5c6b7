"""Rows (B, M, S) per pair of widths (B3''), and windows (A6), from what the nested network itself computes.

A row takes the accumulators of the pair, on the nested network's own inputs at that pair, to the float network's values
before the activation: one factor and one constant per output channel. The constant gives the outputs the mean of
float's. The least squares fit would make noisy outputs smaller than float's, the more the narrower the widths, and so
layer after layer; a factor that gives them float's variance would make all of the noise count. The factor is the
geometric mean of both. The logits have no factor (B7).
"""

from collections.abc import Sequence

import torch

from dqtsim.train.calibration.pictures import PART, Parts, by_channel
from dqtsim.train.calibration.places import Taken, accumulators, pieces
from dqtsim.train.calibration.ranges import windows_at
from dqtsim.train.modules.base import Codes
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.rules import MASTER_WIDTH

# A fitted factor is at most this much greater or smaller than the weights' own.
_REACH = 2.0


class Moments:
    """Sums of accumulators a and targets t, per channel, from which t ~ factor * a + constant follows."""

    def __init__(self, accumulators: Parts, targets: Parts) -> None:
        sums = [
            _products(by_channel(a).double(), by_channel(t).double())
            for a, t in zip(accumulators, targets, strict=True)
        ]
        count = sum(by_channel(a).shape[1] for a in accumulators)
        self.a, self.t, self.aa, self.at, self.tt = (torch.stack(s).sum(0) / count for s in zip(*sums, strict=True))

    def fit(self, plain: torch.Tensor, fixed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and constant float64 [C]; the factor is near `plain` [C], or is that if `fixed`."""
        plain = plain.double()
        variance, joint = self.aa - self.a.square(), self.at - self.a * self.t
        wanted = (self.tt - self.t.square()).clamp_min(0)
        factor = plain
        if not fixed:
            sound = (variance > 1e-9 * self.aa) & (joint > 0)
            variance = variance.clamp_min(1e-300)
            both = (joint / variance * (wanted / variance).sqrt()).sqrt()
            factor = torch.where(sound, both, plain)
            factor = torch.minimum(torch.maximum(factor, plain / _REACH), plain * _REACH)
        return factor, self.t - factor * self.a

    def error(self, factor: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        """The mean squared error of a row, float64 [C]."""
        square = factor.square() * self.aa + constant.square() + self.tt
        cross = factor * constant * self.a - factor * self.at - constant * self.t
        found: torch.Tensor = square + 2 * cross
        return found


def _products(a: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return a.sum(1), t.sum(1), a.square().sum(1), (a * t).sum(1), t.square().sum(1)


def deciding(module: NestedLayer | NestedLogits) -> list[int]:
    """For each row the widest pair that selects it, which decides it."""
    found: dict[int, int] = {}
    for pair, row in enumerate(module.rows):
        if row not in found or sum(module.pairs[pair]) > sum(module.pairs[found[row]]):
            found[row] = pair
    return list(found.values())


def fit_row(module: NestedLayer | NestedLogits, pair: int, grid: Codes, inputs: Taken, targets: Parts) -> None:
    """Fit the row of one of `module.pairs` to what the float network has before the activation at the same places."""
    row = module.rows[pair]
    plain = module.factors(grid.step)[row]
    found = Moments(_sums(module, pair, grid, inputs), targets)
    module.set_row(row, *found.fit(plain, fixed=isinstance(module, NestedLogits)), grid.step)


def _sums(module: NestedLayer | NestedLogits, pair: int, grid: Codes, inputs: Taken) -> Parts:
    return list(accumulators(module, pair, grid, iter(inputs.codes), inputs.geometry))


def coded(module: NestedLayer, pair: int, grid: Codes, codes: Parts) -> Parts:
    """The layer's own codes uint8 at one of its pairs, for codes uint8 of its input on `grid`."""
    row = module.rows[pair]
    step, shape = module.step(), (-1, 1, 1)
    factor = (module.factors(grid.step)[row] / step).reshape(shape)
    # half a step more, so that floor rounds
    constant = (module.constant()[row] / step + (module.zero_point + 0.5)).reshape(shape)
    found = [
        sums.mul_(factor).add_(constant).floor_().clamp_(0, module.high()).to(torch.uint8)
        for sums in accumulators(module, pair, grid, pieces(codes), None)
    ]
    together = torch.cat([part.flatten(1) for part in found] if module.flat else found)
    return list(torch.split(together, PART))


def fit_windows(module: NestedLayer | NestedLogits, inputs: Sequence[tuple[Codes, Taken]], targets: Parts) -> None:
    """Choose a window per activation width, by the error of the outputs after the best row.

    `inputs` has, for each of `module.pairs`, the grid and the codes of the layer's inputs at that pair, at some places.
    """
    chosen = [0] * (MASTER_WIDTH + 1)
    fixed = isinstance(module, NestedLogits)
    for width in sorted({pair[1] for pair in module.pairs if pair[1] < MASTER_WIDTH}):
        pair = max((p for p in range(len(module.pairs)) if module.pairs[p][1] == width), key=lambda p: module.pairs[p])
        grid, given = inputs[pair]
        plain = module.factors(grid.step)[module.rows[pair]]
        errors = []
        for window in windows_at(width):
            chosen[width] = window
            module.windows = tuple(chosen)
            found = Moments(_sums(module, pair, grid, given), targets)
            errors.append(float(found.error(*found.fit(plain, fixed)).sum()))
        chosen[width] = errors.index(min(errors))
    module.windows = tuple(chosen) if any(chosen) else None
