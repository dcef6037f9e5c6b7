"""`calibrate`: a usable nested network from pictures, without training."""

from collections.abc import Callable

import torch

from dqtsim.errors import InputError
from dqtsim.train import given, steps
from dqtsim.train.layers import Nested, NestedLayer, NestedLogits, Uniform
from dqtsim.train.nested import nest_activation, nest_weight
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT

# The end of the grid, as fractions of the largest value, to try.
_ENDS = torch.linspace(0.15, 1.0, 35)
_VALUES = 65536


def calibrate(network: NestedNetwork, batches: object) -> NestedNetwork:
    """Fit `network` to batches of uint8 pictures [N, C, H, W], and return it, ready for export.

    `batches` is a list, a DataLoader or one tensor; a batch is a tensor or an array, or (pictures, labels).

    Steps of weights and activations minimise the squared error over all widths of the rules; batch norm's statistics
    are measured again for each row. Labels are not needed. Raises InputError for anything else (see `given`).
    """
    pictures = list(given.batches(batches, network.shape))
    if not pictures or not sum(len(batch) for batch in pictures):
        raise InputError("calibration needs at least one picture, but there is none.")
    with torch.no_grad():
        for module in network.layers.values():
            if isinstance(module, NestedLayer | NestedLogits):
                _fit_weights(module)
        _fit_activations(network, pictures[0])
        _measure_norms(network, pictures)
    return network.eval()


def _fit_weights(module: NestedLayer | NestedLogits) -> None:
    """Set the step, per output or one for all, whose nested weights are nearest to the float ones over all widths."""
    pairs = module.pairs if isinstance(module, NestedLayer) else module.rules.pairs
    widths = {pair[0] for pair in pairs}
    weight, own = module.weight, module.weight_step().dim() == 1
    largest = weight.flatten(1).abs().amax(1) if own else weight.abs().max()
    largest = largest.clamp_min(1e-8)

    def error(step: torch.Tensor, width: int) -> torch.Tensor:
        reached = step.reshape(-1, *([1] * (weight.dim() - 1))) if own else step
        off = (nest_weight(weight, step, width, module.rules.weight) * reached - weight).square()
        return off.flatten(1).sum(1) if own else off.sum()

    # The master code of the largest weight is 127, so that nothing is clipped at the far end.
    module.weight_step.set(_best(largest / (WEIGHT_ZERO_POINT - 1), error, widths))


def _best(largest: torch.Tensor, error: Callable[[torch.Tensor, int], torch.Tensor], widths: set[int]) -> torch.Tensor:
    """The step among fractions of `largest` with the least sum of root errors over `widths`.

    With the squared errors the narrowest width alone would decide, with their logarithms the widest.
    """
    totals = []
    for end in _ENDS.tolist():
        roots = [error(largest * end, width).sqrt() for width in sorted(widths)]
        totals.append(torch.stack(roots).sum(0))
    return largest * _ENDS.to(largest.device)[torch.stack(totals).argmin(0)]


def _fit_activations(network: NestedNetwork, pictures: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    widths, modules = _widths_read(network), network.by_name()
    for name, value in network.activations(pictures).items():
        module = modules.get(name)
        if not isinstance(module, Nested):
            continue
        flat = value.flatten()
        if len(flat) > _VALUES:
            flat = flat[torch.randint(0, len(flat), (_VALUES,), generator=generator).to(flat.device)]
        if module.ceiling is not None:
            flat = flat.clamp_max(module.ceiling)
        zero = module.zero_point
        largest = value.abs().max().clamp_min(1e-6) / (TOP_CODE - zero)

        def error(step: torch.Tensor, width: int, flat: torch.Tensor = flat, zero: int = zero) -> torch.Tensor:
            codes = (flat / step + zero + 0.5).floor().clamp(0, TOP_CODE)
            return (nest_activation(codes, width, zero, network.rules.activation) * step - flat).square().mean()

        module.step.set(_best(largest, error, widths[name]))


def _widths_read(network: NestedNetwork) -> dict[str, set[int]]:
    """By step, the widths at which its output is read; an operator that is no layer reads at the master width."""
    found: dict[str, set[int]] = {step.name: set() for step in network.steps}
    every = {pair[1] for pair in network.rules.pairs}
    for step in reversed(network.steps):
        for source in step.sources:
            if source not in found:
                continue
            if isinstance(step, steps.Layer | steps.Logits):
                found[source] |= every
            elif isinstance(step, steps.MaxPool | steps.Flatten):
                found[source] |= found[step.name]
            else:
                found[source].add(MASTER_WIDTH)
    return found


def _measure_norms(network: NestedNetwork, pictures: list[torch.Tensor]) -> None:
    """Batch norm's statistics of each row, as the mean over the batches at the row's widest pair of equal widths."""
    layers = list(network.nested_layers())
    chosen: dict[int, int] = {}
    for k, pair in enumerate(network.rules.pairs):
        row = network.rules.row(pair)
        if row not in chosen or sum(pair) > sum(network.rules.pairs[chosen[row]]):
            chosen[row] = k
    network.train()
    network.freeze_norm(False)
    for k in chosen.values():
        for seen, batch in enumerate(pictures):
            for layer in layers:
                layer.momentum = 1 / (seen + 1)
            network(batch, Uniform(k))
    for layer in layers:
        layer.momentum = 0.1
