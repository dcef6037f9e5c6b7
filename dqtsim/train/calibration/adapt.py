"""Adapted master codes (`adapt`): weights that make up for what few bits lose in the activations.

Rounding (`rounding.py`) keeps the codes near the float weights. Here they follow the float network's outputs instead.
With x the inputs of a layer as the nested network computes them at a pair of widths p, s the operands of the codes at
the pair's weight width, and t what the float network has before the activation at the same places, all less their mean,
the codes of an output are to minimise

    sum over pairs p of lambda_p * f_p^2 * (mean over places of (s'x - t / f_p)^2 + ridge_p * |s - w|^2)

where w are the float weights in master steps and f_p is the factor of the pair's row, fitted anew in every round. With
the covariances H of the inputs and g of inputs and targets that mean is s'Hs - 2 s'g / f_p + a constant. So every layer
makes up for the errors of all layers before it, as far as these are alike on all pictures. A round is one coordinate
descent: each code in turn moves to the best of its neighbours, which is exact. Nothing is drawn by chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dqtsim.errors import InputError
from dqtsim.train.calibration import descent
from dqtsim.train.calibration.pictures import Parts, by_channel
from dqtsim.train.calibration.places import Taken, columns
from dqtsim.train.modules.base import Codes
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.nested import nest_activation, nested_values, weight_codes
from dqtsim.train.rules import TOP_CODE, WEIGHT_ZERO_POINT, Widths

# Pairs with a width of so many bits or fewer are adapted to; the others hold the codes back.
NARROW = 6
# A wide pair's error counts relative to its own, or to this share of the least narrow pair's if that is more.
_ANCHOR = 0.25
# How much less a pair counts than one of a bit less.
_SHARE = 0.6
# How far a code moves in a round: to any code of the next narrow one.
_REACH = 16
# The ridge, as a multiple of the inputs' mean variance: always a little, more if there are few places for many taps.
_RIDGE, _RIDGE_PLACES = 0.02, 2.0
# Layers with more taps per output are left as they are: the sums of products of their inputs would not fit memory.
_TAPS = 2304


def check(rounds: int, pairs: Sequence[Widths]) -> None:
    """Raise InputError for a negative number of rounds, or if no pair of widths has anything to gain."""
    if rounds < 0:
        raise InputError(f"adapt must be 0 or more, but is {rounds}.")
    if rounds and not any(min(pair) <= NARROW for pair in pairs):
        raise InputError(f"there is nothing to adapt: no pair of widths has a width of {NARROW} bits or fewer.")


@dataclass(frozen=True)
class _Seen:
    """What a layer reads at one pair, operands in master steps, with G groups of O / G outputs of n taps, in float64.

    `found` [G, n, n] is the covariance H of the inputs, `joint` [G, O / G, n] theirs with the targets, `ridge` [G].
    """

    found: torch.Tensor
    joint: torch.Tensor
    ridge: torch.Tensor


@dataclass(frozen=True)
class _State:
    """Where the codes stand at one pair: errors and factors [G, O / G], half the gradient [G, O / G, n]."""

    error: torch.Tensor
    factor: torch.Tensor
    slope: torch.Tensor


def adapt(
    module: NestedLayer | NestedLogits,
    weight: torch.Tensor,
    inputs: Sequence[tuple[Codes, Taken]],
    targets: Parts,
    rounds: int,
) -> str:
    """Move a calibrated layer's master codes in so many rounds, and say what that did.

    `weight` are the float weights; `inputs` has, for each of the module's pairs, the grid and the codes of what it
    reads at that pair; `targets` are what the float network has before the activation at the same places. The rows
    must be fitted afterwards. The codes stay as they were if nothing is better.
    """
    if weight[0].numel() > _TAPS:
        return f"{module.name} is left: it has more than {_TAPS} weights per output"
    layer = _Layer(module, weight, inputs, targets)
    before = layer.states(layer.codes)
    lambdas = _lambdas(module.pairs, [float(state.error.sum()) for state in before])
    codes, states = best, after = layer.codes, before
    for _ in range(rounds):
        codes = layer.descended(codes, states, lambdas)
        states = layer.states(codes)
        if _total(states, lambdas) < _total(after, lambdas):
            best, after = codes, states
    if best is layer.codes:
        return f"{module.name} stays as it was"
    layer.set(best)
    gains = [_decibels(b.error, a.error) for b, a in zip(before, after, strict=True)]
    told = ", ".join(f"w{w}a{a} {gain:+.2f}" for (w, a), gain in zip(module.pairs, gains, strict=True))
    return f"{module.name} adapted, dB: {told}"


def _lambdas(pairs: Sequence[Widths], errors: Sequence[float]) -> list[float]:
    """What the error of each pair counts, relative to its error before: fewer bits count more."""
    floor = _ANCHOR * min(error for error, pair in zip(errors, pairs, strict=True) if min(pair) <= NARROW)
    least = [0.0 if min(pair) <= NARROW else floor for pair in pairs]
    return [
        _SHARE ** (sum(pair) / 2) / max(error, low, 1e-30)
        for pair, error, low in zip(pairs, errors, least, strict=True)
    ]


def _decibels(before: torch.Tensor, after: torch.Tensor) -> float:
    return 10 * math.log10(max(float(before.sum()), 1e-300) / max(float(after.sum()), 1e-300))


def _total(states: Sequence[_State], lambdas: Sequence[float]) -> float:
    return sum(own * float(state.error.sum()) for own, state in zip(lambdas, states, strict=True))


class _Layer:
    """One layer's sums, for all its pairs; codes are uint8 [G, O / G, n], float32 outside `descended`."""

    def __init__(
        self, module: NestedLayer | NestedLogits, weight: torch.Tensor, inputs: Sequence[tuple[Codes, Taken]],
        targets: Parts,
    ) -> None:  # fmt: skip
        self.module, self.rule = module, module.rules.weight
        step = module.weight_step().detach()
        self.step = step.reshape(-1, *[1] * (weight.dim() - 1)) if step.dim() else step
        groups = 1 if isinstance(module, NestedLogits) else module.geometry.groups
        self.shape = (groups, len(weight) // groups, weight[0].numel())
        self.codes = weight_codes(module.weight.detach(), step).reshape(self.shape)
        self.wanted = (weight / self.step).reshape(self.shape).double()
        self.seen = [_seen(module, pair, *given, targets) for pair, given in enumerate(inputs)]
        together = torch.cat([by_channel(part) for part in targets], 1)
        self.variance = together.double().var(1, correction=0).reshape(self.shape[:2])
        self.plain = module.factors(inputs[0][0].step).detach().double()
        every = torch.arange(TOP_CODE + 1, dtype=torch.float32)
        self.operands = torch.stack([self.nested(every, pair) for pair in range(len(module.pairs))])

    def nested(self, codes: torch.Tensor, pair: int) -> torch.Tensor:
        """Operands of codes at a pair's weight width, in master steps."""
        return nested_values(codes.clone(), self.module.pairs[pair][0], WEIGHT_ZERO_POINT, self.rule)

    def states(self, codes: torch.Tensor) -> list[_State]:
        """Errors and slopes of `codes` at every pair."""
        return [self._state(self.nested(codes, pair), pair) for pair in range(len(self.seen))]

    def _state(self, operands: torch.Tensor, pair: int) -> _State:
        seen, operands = self.seen[pair], operands.double()
        plain = self.plain[self.module.rows[pair]].reshape(self.shape[:2])
        pulled = operands @ seen.found
        variance, joint = (pulled * operands).sum(2), (seen.joint * operands).sum(2)
        factor = plain
        if not isinstance(self.module, NestedLogits):
            # As rows.py fits it.
            own = (joint / variance * (self.variance / variance).sqrt()).sqrt()
            factor = torch.where((joint > 0) & (variance > 0), own.clamp(plain / 2, plain * 2), plain)
        error = (factor.square() * variance - 2 * factor * joint + self.variance).clamp_min(0)
        slope = pulled - seen.joint / factor[:, :, None] + seen.ridge[:, None, None] * (operands - self.wanted)
        return _State(error, factor, slope)

    def descended(self, codes: torch.Tensor, states: Sequence[_State], lambdas: Sequence[float]) -> torch.Tensor:
        """The codes after one round."""
        share = torch.stack([own * state.factor.square() for own, state in zip(lambdas, states, strict=True)], 2)
        slope = torch.stack([state.slope for state in states], 2)
        ridges = [torch.diag_embed(seen.ridge[:, None].expand(-1, self.shape[2])) for seen in self.seen]
        found = torch.stack([seen.found + ridge for seen, ridge in zip(self.seen, ridges, strict=True)], 1)
        moved = codes.to("cpu", torch.uint8).contiguous().numpy()
        own = (moved, *(table.float().cpu().contiguous().numpy() for table in (slope, found, share, self.operands)))
        descent.descend(*own, reach=_REACH, sweeps=1, threads=torch.get_num_threads())
        return torch.from_numpy(moved).to(codes)

    def set(self, codes: torch.Tensor) -> None:
        """Give the module the weights of `codes`."""
        with torch.no_grad():
            self.module.weight.copy_((codes.reshape(self.module.weight.shape) - WEIGHT_ZERO_POINT) * self.step)


def _seen(module: NestedLayer | NestedLogits, pair: int, grid: Codes, taken: Taken, targets: Parts) -> _Seen:
    width, rule = module.pairs[pair][1], module.rules.activation
    found, joint, sums, total, count = torch.zeros(()), torch.zeros(()), torch.zeros(()), torch.zeros(()), 0
    for part, target in zip(taken.codes, targets, strict=True):
        nested = nest_activation(part.float(), width, grid.zero_point, rule, module.window(width))
        x = columns(module, nested, taken.geometry).double()
        t = by_channel(target).double().reshape(len(x), -1, x.shape[2])
        found, joint, count = found + x @ x.mT, joint + t @ x.mT, count + x.shape[2]
        sums, total = sums + x.sum(2), total + t.sum(2)
    mean, middle = sums / count, total / count
    found = found / count - mean[:, :, None] * mean[:, None]
    taps = found.shape[1]
    ridge = found.diagonal(dim1=1, dim2=2).mean(1) * (_RIDGE + _RIDGE_PLACES * taps / count) + 1e-6
    return _Seen(found, joint / count - middle[:, :, None] * mean[:, None], ridge)
