"""What the float network's tensors hold, per channel, over all calibration pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dqtsim.train import steps
from dqtsim.train.calibration.pictures import Parts, Walk, by_channel
from dqtsim.train.network import NestedNetwork


@dataclass(frozen=True)
class Extent:
    """Least, greatest and root mean square value of a tensor's channels, float32 [C] each."""

    low: torch.Tensor
    high: torch.Tensor
    rms: torch.Tensor

    def joined(self, other: "Extent") -> "Extent":
        """The extent of both: the greater of the root mean squares."""
        return Extent(
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            torch.maximum(self.rms, other.rms),
        )


def extents(
    network: NestedNetwork, walked: Sequence[steps.Step], parts: Parts, progress: Callable[[str], None]
) -> dict[str, Extent]:
    """By step, the extent of its output."""
    found = {}
    walk = Walk(network, walked, parts)
    for step in walked:
        progress(f"range of {step.name}")
        _, outputs = walk.step(step)
        flat = [by_channel(value) for value in outputs]
        count = sum(part.shape[1] for part in flat)
        squares = torch.stack([part.square().sum(1, dtype=torch.float64) for part in flat]).sum(0)
        low = torch.stack([part.amin(1) for part in flat]).amin(0)
        high = torch.stack([part.amax(1) for part in flat]).amax(0)
        found[step.name] = Extent(low, high, (squares / count).sqrt().float())
        walk.forget(step)
    return found
