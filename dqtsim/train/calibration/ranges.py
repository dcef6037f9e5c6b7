"""Steps and zero points: of weights by their own error, of activations by what it does to the layers that read them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dqtsim.train import steps
from dqtsim.train.calibration.pictures import Parts, by_channel
from dqtsim.train.modules.base import Nested
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.modules.moves import is_move
from dqtsim.train.nested import nest_activation, nest_weight
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT, ActivationRule

# The ends of a weight's grid to try, as fractions of the largest value.
_WEIGHT_ENDS = torch.linspace(0.3, 1.0, 36)
# Values of a tensor on which zero points are tried.
_VALUES = 8_000
# Shares of a tensor's values that lie beyond a percentile's ends; and fractions of the largest values as ends.
_BEYOND = (0.0002, 0.001, 0.005)
_FRACTIONS = (0.85, 0.7, 0.55, 0.4, 0.28, 0.2)
# The least squared error, in steps, whose logarithm is taken.
_NO_ERROR = 1e-12
# A tensor that is 0 on all pictures gets some grid.
_LEAST = 1e-6
_WIDEST_WINDOW = 2


def fit_weight_step(module: NestedLayer | NestedLogits) -> None:
    """Set the step, per output or one for all, whose nested weights are nearest to the float ones over all widths.

    Nearest is the least sum of the logarithms of the squared errors, so that all widths count alike.
    """
    weight, own = module.weight.detach(), module.weight_step().dim() == 1
    widths = sorted({pair[0] for pair in module.pairs})
    largest = weight.flatten(1).abs().amax(1) if own else weight.abs().max()
    # The master code of the largest weight is 127, so that nothing is clipped at the far end.
    whole = largest / (WEIGHT_ZERO_POINT - 1)
    some = whole.clamp_min(torch.finfo(whole.dtype).tiny)
    wanted = weight / (some.reshape(-1, *([1] * (weight.dim() - 1))) if own else some)

    def error(end: float, width: int) -> torch.Tensor:
        """In units of `whole`, so that no weights are too small to be told apart."""
        off = (nest_weight(weight, some * end, width, module.rules.weight) * end - wanted).square()
        return (off.flatten(1).sum(1) if own else off.sum()).clamp_min(_NO_ERROR).log()

    totals = torch.stack([sum((error(end, b) for b in widths), torch.zeros(())) for end in _WEIGHT_ENDS.tolist()])
    module.weight_step.set(whole * _WEIGHT_ENDS.to(whole.device)[totals.argmin(0)])


@dataclass(frozen=True)
class Reads:
    """How a tensor is read: the widths; by layers, with the influence [C] of its channels on their outputs."""

    widths: frozenset[int]
    influence: torch.Tensor | None
    rule: ActivationRule


def reads_of(network: NestedNetwork, walked: Sequence[steps.Step], name: str) -> Reads:
    """How the tensor called `name` is read, through steps that only move codes; other operators read 8 bits."""
    widths: set[int] = set()
    influences = []
    for step in steps.readers(walked, name):
        module = None if is_move(step) else network.layer(step.name)
        if is_move(step):
            widths |= reads_of(network, walked, step.name).widths
        elif isinstance(module, NestedLayer | NestedLogits):
            widths |= {pair[1] for pair in module.pairs}
            influences.append(_influence(module))
        else:
            widths.add(MASTER_WIDTH)
    influence = torch.stack(influences).sum(0) if len({len(found) for found in influences}) == 1 else None
    return Reads(frozenset(widths or {MASTER_WIDTH}), influence, network.rules.activation)


def _influence(module: NestedLayer | NestedLogits) -> torch.Tensor:
    """The sum of squared weights that read each channel, in units of the outputs' own steps."""
    weight = module.weight.detach()
    if isinstance(module, NestedLayer):
        weight = weight * module.slope()[-1].detach().reshape(-1, *[1] * (weight.dim() - 1))
    groups = module.geometry.groups if isinstance(module, NestedLayer) else 1
    squares = weight.square().flatten(2).sum(2) if weight.dim() > 2 else weight.square()
    return squares.reshape(groups, -1, squares.shape[1]).sum(1).flatten()


def fit_grid(module: Nested, outputs: Parts, factors: torch.Tensor | None, reads: Reads) -> None:
    """Set step and zero point of a module's output.

    `outputs` are its float values [N, C, ...], and codes stand for `factors` [C] times these. The ends of the grid are
    the least and greatest value (min-max), percentiles, or those of the least mean squared error, with one or two zero
    points each. Chosen is what disturbs the outputs of the layers that read the
    tensor least: the sum over all widths of the error's logarithm, in the best window (A6) of each width, every
    channel's error weighted by its influence.
    """
    values, influence = _sampled(outputs, factors, reads.influence)
    low, high = _extremes(outputs, factors)
    if module.ceiling is not None:
        high = min(high, module.ceiling)
        values = values.clamp_max(module.ceiling)
    tried = []
    for ends in _ends(values, low, high):
        zeros = {0} if module.positive else {WEIGHT_ZERO_POINT, _asymmetric(*ends, min(reads.widths))}
        for zero in sorted(zeros):
            step = max(ends[1] / (TOP_CODE - zero), -ends[0] / zero if zero else 0.0) or _LEAST / TOP_CODE
            tried.append((_grid_error(values.clamp(*ends), influence, step, zero, reads), -step, zero, ends))
    found = (math.inf, *tried[0][1:])
    for least, step, zero, ends in sorted(tried):
        if least >= found[0]:
            break
        # The sample misses the rare large values, so by it alone a nearer end would seem free.
        beyond = _beyond(outputs, factors, influence, ends, (low, high)) if ends != (low, high) else 0.0
        error = _grid_error(values.clamp(*ends), influence, -step, zero, reads, beyond) if beyond else least
        found = min(found, (error, step, zero, ends))
    _, step, zero, _ = found
    module.zero_point = zero
    module.step.set(torch.full_like(module.step.logarithm, -step))


def _extremes(outputs: Parts, factors: torch.Tensor | None) -> tuple[float, float]:
    """The least and greatest of all values times their factors, and of 0, which every grid has."""
    flat = [by_channel(value) for value in outputs]
    low = torch.stack([part.amin(1) for part in flat]).amin(0)
    high = torch.stack([part.amax(1) for part in flat]).amax(0)
    if factors is not None:
        low, high = low * factors, high * factors
    return min(float(low.min()), 0.0), max(float(high.max()), 0.0)


def _ends(values: torch.Tensor, low: float, high: float) -> list[tuple[float, float]]:
    """Ends of a grid to try: those of all values, percentiles, and fractions among which the least error is."""
    ordered, count = values.flatten().sort().values, values.numel()
    found = [(low, high)]
    for share in _BEYOND:
        cut = round(share * count)
        found.append((min(float(ordered[cut]), 0.0), max(float(ordered[count - 1 - cut]), 0.0)))
    found += [(low * part, high * part) for part in _FRACTIONS]
    return [ends for i, ends in enumerate(found) if ends not in found[:i] and ends[0] < ends[1]] or found[:1]


def _beyond(
    outputs: Parts, factors: torch.Tensor | None, influence: torch.Tensor, ends: tuple[float, float],
    limits: tuple[float, float],
) -> float:  # fmt: skip
    """The mean squared distance of all values from a grid's ends, which are within `limits`, by influence."""
    total = torch.zeros(len(influence), dtype=torch.float64, device=influence.device)
    for part in outputs:
        value = part if factors is None else part * factors.reshape(-1, *[1] * (part.dim() - 2))
        off = value.clamp(*limits).sub_(value.clamp(*ends)).square_()
        total += by_channel(off).sum(1, dtype=torch.float64)
    count = sum(part.numel() for part in outputs) // len(influence)
    return float((total * influence[:, 0]).sum()) / count


def _grid_error(
    values: torch.Tensor, influence: torch.Tensor, step: float, zero: int, reads: Reads, beyond: float = 0.0
) -> float:
    """The sum over all widths of the logarithm of the mean squared error by influence, of which `beyond` is known."""
    # In steps, so that no values are too small to be told apart.
    values = values / step
    codes = (values + zero + 0.5).floor().clamp(0, TOP_CODE)
    total = 0.0
    for width in sorted(reads.widths):
        errors = []
        for window in windows_at(width):
            operands = nest_activation(codes, width, zero, reads.rule, window)
            errors.append(float(((operands - values).square() * influence).sum()) / values.shape[1])
        total += math.log(max(min(errors) + beyond / step**2, _NO_ERROR)) + 2 * math.log(step)
    return total


def windows_at(width: int) -> range:
    """The windows (A6) that are tried at a width."""
    return range(min(_WIDEST_WINDOW, MASTER_WIDTH - width) + 1)


def _sampled(
    outputs: Parts, factors: torch.Tensor | None, influence: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [C, n] of all parts, evenly taken, times their factors; and influences [C, 1]."""
    channels = outputs[0].shape[1]
    each = max(1, _VALUES // (channels * len(outputs)))
    taken = []
    for part in outputs:
        flat = by_channel(part)
        taken.append(flat[:, :: -(-flat.shape[1] // each)])
    values = torch.cat(taken, 1)
    if factors is not None:
        values = values * factors[:, None]
    if influence is None or len(influence) != channels or not bool(influence.sum() > 0):
        influence = torch.ones(channels, device=values.device)
    return values, (influence / influence.sum())[:, None]


def _asymmetric(low: float, high: float, narrowest: int) -> int:
    """The zero point that suits both ends, a multiple of what the narrowest width drops, so that it nests exactly."""
    grain = 1 << (MASTER_WIDTH - narrowest)
    if high <= low:
        return WEIGHT_ZERO_POINT
    wanted = round(-low / (high - low) * TOP_CODE / grain) * grain
    return min(max(wanted, grain), TOP_CODE + 1 - grain) if grain < WEIGHT_ZERO_POINT else WEIGHT_ZERO_POINT
