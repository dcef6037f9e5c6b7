"""Steps and zero points: of weights by their own error, of activations by what it does to the layers that read them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from dqtsim.train import steps
from dqtsim.train.calibration.measured import Extent
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
# A tensor that is 0 on all pictures gets some grid.
_LEAST = 1e-6
_WIDEST_WINDOW = 2


def fit_weight_step(module: NestedLayer | NestedLogits) -> None:
    """Set the step, per output or one for all, whose nested weights are nearest to the float ones over all widths."""
    weight, own = module.weight.detach(), module.weight_step().dim() == 1
    widths = sorted({pair[0] for pair in module.pairs})
    largest = weight.flatten(1).abs().amax(1) if own else weight.abs().max()

    def error(step: torch.Tensor, width: int) -> torch.Tensor:
        reached = step.reshape(-1, *([1] * (weight.dim() - 1))) if own else step
        off = (nest_weight(weight, step, width, module.rules.weight) * reached - weight).square()
        return off.flatten(1).sum(1) if own else off.sum()

    # The master code of the largest weight is 127, so that nothing is clipped at the far end.
    whole = largest / (WEIGHT_ZERO_POINT - 1)
    tiny = torch.finfo(whole.dtype).tiny
    totals = torch.stack([_total(whole.clamp_min(tiny) * end, error, widths) for end in _WEIGHT_ENDS.tolist()])
    module.weight_step.set(whole * _WEIGHT_ENDS.to(whole.device)[totals.argmin(0)])


def _total(
    step: torch.Tensor, error: Callable[[torch.Tensor, int], torch.Tensor], widths: Iterable[int]
) -> torch.Tensor:
    """The sum of root errors over `widths`: squares would be the narrowest one's alone, logarithms the widest's."""
    return torch.stack([error(step, width).sqrt() for width in widths]).sum(0)


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


def fit_grid(module: Nested, outputs: Parts, extent: Extent, factors: torch.Tensor | None, reads: Reads) -> None:
    """Set step and zero point of a module's output.

    `outputs` are its float values [N, C, ...], codes stand for `factors` [C] times these, and `extent` is that of the
    product. The least sum of root errors over all widths wins, at each width in the best window (A6).
    """
    # The grid ends at the largest value of all pictures: a sample misses the rare large values, so by it a nearer end
    # would seem free. Windows do the rest for few bits.
    values, influence = _sampled(outputs, factors, reads.influence)
    low, high = min(float(extent.low.min()), 0.0), max(float(extent.high.max()), 0.0)
    if module.ceiling is not None:
        high = min(high, module.ceiling)
        values = values.clamp_max(module.ceiling)
    zeros = {0} if module.positive else {WEIGHT_ZERO_POINT, _asymmetric(low, high, min(reads.widths))}
    found = []
    for zero in sorted(zeros):
        step = max(high / (TOP_CODE - zero), -low / zero if zero else 0.0, _LEAST / TOP_CODE)
        found.append((_grid_error(values, influence, step, zero, reads), -step, zero))
    _, step, zero = min(found)
    module.zero_point = zero
    module.step.set(torch.full_like(module.step.logarithm, -step))


def _grid_error(values: torch.Tensor, influence: torch.Tensor, step: float, zero: int, reads: Reads) -> float:
    codes = (values / step + zero + 0.5).floor().clamp(0, TOP_CODE)
    total = 0.0
    for width in sorted(reads.widths):
        errors = []
        for window in windows_at(width):
            operands = nest_activation(codes, width, zero, reads.rule, window)
            errors.append(float(((operands * step - values).square() * influence).sum()))
        total += min(errors) ** 0.5
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
