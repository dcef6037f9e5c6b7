"""Cross-layer equalization: the channels of a tensor are scaled to share its 8 bits better; the network is the same.

With factors c > 0 for the channels of a tensor, the layers that write it compute c * y and those that read it have
their weights of channel i divided by c[i]. Sums, maxima and averages pass factors on, so all tensors of a residual
stage share theirs; a ReLU lets positive factors through, and so does a ReLU6 whose codes end below 6.
"""

from collections.abc import Sequence
from typing import cast

import torch

from dqtsim.train import steps
from dqtsim.train.calibration.measured import Extent
from dqtsim.train.modules.base import Nested
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.network import NestedNetwork

# A channel's factor is (largest of the tensor / its own) to this power, so the rest of the spread stays in the weights
# that read it; 1 where every reader has weights of its own per channel, which lose nothing.
_SHARE = 0.5
# The greatest factor: a channel that is 0 on all pictures stays small.
_GREATEST = 64.0
_PASSED = (steps.Add, steps.MaxPool)


def equalize(
    network: NestedNetwork, walked: Sequence[steps.Step], extents: dict[str, Extent]
) -> dict[str, torch.Tensor]:
    """Scale the modules' weights and constants; the factors [C] by tensor, of all tensors that have any."""
    factors: dict[str, torch.Tensor] = {}
    for tied in _ties(walked):
        writers = [step for step in walked if step.name in tied]
        readers = [step for step in walked if tied & {*step.sources} and step.name not in tied]
        if steps.INPUT in tied or tied & {*network.outputs}:
            continue
        if not all(map(_writes, writers)) or not all(isinstance(s, steps.Layer) and not s.flat for s in readers):
            continue
        found = _factors(writers, readers, extents)
        for step in writers:
            factors[step.name] = found
            _scale_output(network, step, found, extents[step.name])
        for step in readers:
            _scale_input(network, step, found)
    return factors


def _ties(walked: Sequence[steps.Step]) -> list[set[str]]:
    """Sets of tensors that must have the same factors; the picture has none, nor has an output."""
    tied: dict[str, set[str]] = {step.name: {step.name} for step in walked}
    for step in walked:
        if isinstance(step, _PASSED):
            joined = set().union(*(tied.get(source, {steps.INPUT}) for source in step.sources), tied[step.name])
            for name in joined:
                tied[name] = joined
    return [found for i, found in enumerate(tied.values()) if found not in list(tied.values())[:i]]


def _writes(step: steps.Step) -> bool:
    """Whether a step's output may be scaled per channel, from its weights or by passing its inputs' factors on."""
    if isinstance(step, steps.Add):
        return step.activation.ceiling is None
    return isinstance(step, steps.MaxPool) or (isinstance(step, steps.Layer) and not step.flat)


def _factors(writers: Sequence[steps.Step], readers: Sequence[steps.Step], extents: dict[str, Extent]) -> torch.Tensor:
    joined = extents[writers[0].name]
    for step in writers[1:]:
        joined = joined.joined(extents[step.name])
    # What has a sign has long tails, of which one picture decides the end.
    size = joined.high if all(step.positive for step in writers) else joined.rms
    size = size.clamp_min(size.max() / _GREATEST)
    return (size.max() / size) ** _SHARE if bool(size.max() > 0) else torch.ones_like(size)


def _scale_output(network: NestedNetwork, step: steps.Step, factors: torch.Tensor, extent: Extent) -> None:
    if isinstance(step, steps.MaxPool):
        return
    module = network.layer(step.name)
    if isinstance(module, NestedLayer):
        module.multiply_rows(factors)
    if isinstance(module, Nested) and module.ceiling is not None:
        # No channel's ceiling, 6 * c, is below the largest value, which ends the codes.
        module.ceiling = min(float((factors * module.ceiling).min()), float((extent.high * factors).max()))


def _scale_input(network: NestedNetwork, step: steps.Step, factors: torch.Tensor) -> None:
    module = cast(NestedLayer, network.layer(step.name))
    groups, (outputs, per_group) = module.geometry.groups, module.weight.shape[:2]
    own = factors.reshape(groups, 1, per_group).expand(groups, outputs // groups, per_group)
    with torch.no_grad():
        module.weight.div_(own.reshape(outputs, per_group, 1, 1))
