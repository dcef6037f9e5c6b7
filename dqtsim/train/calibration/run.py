"""`calibrate`: one walk through the network, every step fitted on what the steps before it give."""

import sys
from collections.abc import Callable
from typing import cast

import torch

from dqtsim.errors import InputError
from dqtsim.train import steps
from dqtsim.train.calibration import adapt as adapting
from dqtsim.train.calibration.equalize import equalize
from dqtsim.train.calibration.measured import extents
from dqtsim.train.calibration.pictures import Parts, Walk, drop, last_readers, never_trained, parts_of
from dqtsim.train.calibration.pictures import with_measured_norms as measured_norms
from dqtsim.train.calibration.places import Places, taken
from dqtsim.train.calibration.ranges import fit_grid, fit_weight_step, reads_of
from dqtsim.train.calibration.rounding import covariance, round_weights
from dqtsim.train.calibration.rows import coded, deciding, fit_row, fit_windows
from dqtsim.train.modules.base import Codes, Nested, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits
from dqtsim.train.network import NestedNetwork

Progress = Callable[[str], None]
_UNTRAINED = (
    "The batch norms of this network have mean 0 and variance 1: it was never trained. Their statistics are measured "
    "on the calibration pictures."
)


def calibrate(
    network: NestedNetwork,
    batches: object,
    *,
    equalized: bool = False,
    adapt: int = 0,
    progress: Progress | None = None,
) -> NestedNetwork:
    """Fit `network` to batches of uint8 pictures [N, C, H, W], and return it, ready for export.

    `batches` is a list, a DataLoader or one tensor; a batch is a tensor or an array, or (pictures, labels). All
    pictures count alike, whatever the batches; labels are not needed. `progress` gets a line before each step.
    `equalized` scales channels to share a tensor's codes (`equalize.py`). `adapt` is the number of rounds in which
    master codes follow the float network's outputs for the sake of 6 bits and below (`adapt.py`).

    Batch norm's statistics are those of the network, unless it was never trained, which is said on stderr. Steps,
    zero points, master codes and, for every pair of widths, rows (B, M, S) and windows are fitted to the float network.
    Raises InputError for anything else (see `given`), and for a network that has been calibrated already, and
    for an `adapt` below 0 or without a pair of widths that it could help.
    """
    parts = parts_of(batches, network.shape)
    if network.calibrated:
        raise InputError("this network has been calibrated; calibrate what prepare returns.")
    adapting.check(adapt, network.rules.pairs)
    told = progress or (lambda _: None)
    network.eval()
    with torch.no_grad():
        if never_trained(network.steps):
            print(_UNTRAINED, file=sys.stderr)
            network.replace_norms(measured_norms(network, parts, told))
        _Calibration(network, parts, told, adapt).run(equalized)
    network.calibrated = True
    return network


class _Calibration:
    """The float tensors and, for every pair of widths, the nested network's codes, of all parts at one step."""

    def __init__(self, network: NestedNetwork, parts: Parts, progress: Progress, rounds: int) -> None:
        self.network, self.parts, self.progress, self.rounds = network, parts, progress, rounds
        self.steps = steps.converted(network.steps, network.device)
        self.last = last_readers(self.steps)
        self.pairs = range(len(network.rules.pairs))
        widest = max(self.pairs, key=lambda k: (sum(network.rules.pairs[k]), network.rules.pairs[k]))
        self.widest = widest
        source = network.codes(parts[0])
        self.grids: dict[str, Codes] = {steps.INPUT: source}
        # What no width has changed yet is the same list for all pairs.
        own = [part.to(network.device) for part in parts]
        self.codes: list[dict[str, Parts]] = [{steps.INPUT: own} for _ in self.pairs]

    def run(self, equalized: bool) -> None:
        """Fit all steps."""
        self.factors = {}
        if equalized:
            self.factors = equalize(
                self.network, self.steps, extents(self.network, self.steps, self.parts, self.progress)
            )
        count = sum(len(part) for part in self.parts)
        walk = Walk(self.network, self.steps, self.parts)
        for step in self.steps:
            self.progress(f"fitting {step.name}")
            places = Places.among(step.shape, count)
            before, after = walk.step(step, places.of if isinstance(step, steps.Layer | steps.Logits) else None)
            self._fit(step, places, before, after)
            walk.forget(step)
            if not isinstance(step, steps.Logits):
                for codes in self.codes:
                    drop(codes, self.last, step)
            self.grids = {name: grid for name, grid in self.grids.items() if name in self.codes[0]}

    def _fit(self, step: steps.Step, places: Places, before: Parts, after: Parts) -> None:
        module = self.network.by_name().get(step.name)
        factors = self.factors.get(step.name)
        if isinstance(module, Nested):
            fit_grid(module, after, factors, reads_of(self.network, self.steps, step.name))
        if isinstance(module, NestedLayer | NestedLogits):
            self._fit_layer(step, module, places, _times(before, factors))
        else:
            self._put(step, [self._run(step, k) for k in self.pairs])

    def _fit_layer(self, step: steps.Step, module: NestedLayer | NestedLogits, places: Places, targets: Parts) -> None:
        source = step.sources[0]
        grid = self.grids[source]
        # A pinned layer has one pair, whatever the network's.
        free = len(module.pairs) == len(self.pairs)
        if not self.network.rules.shared_norm:
            module.separate_rows()
        fit_weight_step(module)
        module.weight_step.set(module.effective_step(grid.step))
        weight = module.weight.detach().clone()
        seen = {k: taken(module, grid, self.codes[k][source], places) for k in (self.pairs if free else [self.widest])}
        round_weights(module, module.weight_step(), covariance(module, seen[self.widest], grid))
        if free:
            fit_windows(module, [(grid, seen[k]) for k in self.pairs], targets)
        if free and self.rounds:
            self.progress(adapting.adapt(module, weight, [(grid, seen[k]) for k in self.pairs], targets, self.rounds))
        for k in deciding(module):
            fit_row(module, k, grid, seen[k if free else self.widest], targets)
        if isinstance(module, NestedLogits):
            return
        # Only now, because every row may raise the weight step.
        self.grids[step.name] = Codes(targets[0], module.step(), module.zero_point)
        for k in self.pairs:
            if k and not free and self.codes[k][source] is self.codes[0][source]:
                self.codes[k][step.name] = self.codes[0][step.name]
            else:
                self.codes[k][step.name] = coded(module, k if free else 0, grid, self.codes[k][source])

    def _run(self, step: steps.Step, pair: int) -> list[Codes]:
        """An operator that knows no widths, at one pair."""
        sources = [self.codes[pair][source] for source in step.sources]
        grids = [self.grids[source] for source in step.sources]
        found = []
        for inputs in zip(*sources, strict=True):
            given = [_on(grid, values) for grid, values in zip(grids, inputs, strict=True)]
            result = cast(Codes, self.network.run(step, given, Uniform(pair)))
            found.append(result.moved(result.values.to(torch.uint8)))
        return found

    def _put(self, step: steps.Step, found: list[list[Codes]]) -> None:
        self.grids[step.name] = found[0][0]
        for k in self.pairs:
            self.codes[k][step.name] = [codes.values for codes in found[k]]


def _on(grid: Codes, values: torch.Tensor) -> Codes:
    """Codes uint8 in float32 on a grid."""
    return grid.moved(
        values.float().contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values.float()
    )


def _times(values: Parts, factors: torch.Tensor | None) -> Parts:
    if factors is None:
        return values
    return [value * factors.reshape(-1, *[1] * (value.dim() - 2)) for value in values]
