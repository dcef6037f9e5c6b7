"""What the codes of a picture stand for, and how a mean and deviation per channel fold into the first layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dqtsim.errors import InputError
from dqtsim.train.rules import TOP_CODE
from dqtsim.train.steps import INPUT, Activation, Layer, Step, Traced

NORMALISED = "input.normalised"


@dataclass(frozen=True)
class Pixels:
    """Pictures of codes of `shape` (C, H, W), (C, L) or (K): a code q is the pixel v = scale * (q - zero_point).

    The network takes (v - mean[c]) / std[c] in channel c; without `mean` and `std` it takes v.
    """

    shape: tuple[int, ...]
    zero_point: int
    scale: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def check(self) -> None:
        """Raise InputError for values with which no network is possible."""
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise InputError(f"input_shape must be (C, H, W), (C, L) or (K,), but is {self.shape}.")
        if isinstance(self.scale, Sequence) or isinstance(self.zero_point, Sequence):
            raise InputError(
                "input_scale and input_zero_point are one number for all channels; input_mean and input_std are per "
                "channel."
            )
        if not 0 <= self.zero_point <= TOP_CODE or not 0 < self.scale < float("inf"):
            raise InputError(
                f"A picture's zero point must be a code and its scale positive, but they are {self.zero_point} and "
                f"{self.scale}."
            )
        for name, values in (("input_mean", self.mean), ("input_std", self.std)):
            if values is not None and len(values) != self.shape[0]:
                raise InputError(
                    f"{name} must have one value for each of {self.shape[0]} channels, but has {len(values)}."
                )
        if not all(0 < value < float("inf") for value in self.std or ()):
            raise InputError(f"input_std must be positive, but is {self.std}.")

    @property
    def plain(self) -> bool:
        """Whether the network takes the pixels as they are."""
        return not any(self.mean or ()) and all(value == 1 for value in self.std or ())

    def values(self, codes: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """What the network takes for codes uint8 [N, C, ...], computed in `dtype`."""
        pixels = (codes.to(dtype) - self.zero_point) * self.scale
        return (pixels - self._channels(self.mean, 0.0, pixels)) / self._channels(self.std, 1.0, pixels)

    def _channels(self, values: tuple[float, ...] | None, default: float, like: torch.Tensor) -> torch.Tensor:
        table = torch.tensor(values or (default,) * self.shape[0], dtype=like.dtype, device=like.device)
        return table.reshape(-1, *[1] * (like.dim() - 2))

    def folded(self, traced: Traced) -> Traced:
        """Steps in float64 that take the pixels v instead, and give the same.

        A layer that reads the picture gets the weights w / std and the bias b - sum(w * mean / std); its padded taps
        hold the channel's mean (B1'). What else reads the picture reads a layer of one weight per channel.
        """
        if self.plain:
            return traced
        mean, std = (list(v or (d,) * self.shape[0]) for v, d in ((self.mean, 0.0), (self.std, 1.0)))
        found: list[Step] = []
        others = any(INPUT in step.sources and not isinstance(step, Layer) for step in traced.steps)
        if others:
            found.append(_normaliser(self.shape, mean, std))
        for step in traced.steps:
            if isinstance(step, Layer) and INPUT in step.sources:
                found.append(_absorbed(step, mean, std))
            else:
                sources = tuple(NORMALISED if source == INPUT else source for source in step.sources)
                found.append(replace(step, sources=sources))
        return replace(traced, steps=tuple(found))


def _absorbed(step: Layer, mean: list[float], std: list[float]) -> Layer:
    weight = step.weight.double()
    groups, per_group = step.groups, weight.shape[1]
    means, deviations = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    own = deviations.reshape(groups, 1, per_group).expand(groups, len(weight) // groups, per_group)
    scaled = weight / own.reshape(len(weight), per_group, *[1] * (weight.dim() - 2))
    taps = scaled.flatten(2).sum(2) if weight.dim() > 2 else scaled
    constant = (taps.reshape(groups, -1, per_group) * means.reshape(groups, 1, per_group)).sum(2).flatten()
    bias = -constant if step.bias is None else step.bias.double() - constant
    border = torch.tensor(step.padding or [0.0] * len(mean), dtype=torch.float64) * deviations + means
    return replace(step, weight=scaled, bias=bias, padding=tuple(border.tolist()))


def _normaliser(shape: tuple[int, ...], mean: list[float], std: list[float]) -> Layer:
    """(v - mean) / std as a layer of one weight per channel, on the picture's own shape."""
    if len(shape) != 3:
        raise InputError(
            f"input_mean and input_std need layers that read the picture, or pictures (C, H, W), but these are {shape}."
        )
    weight = torch.ones(shape[0], 1, 1, 1, dtype=torch.float64)
    step = Layer(
        NORMALISED, (INPUT,), shape, False, weight, None, (1, 1), (0, 0, 0, 0), (1, 1), shape[0], None, Activation(),
        None, True,
    )  # fmt: skip
    return _absorbed(step, mean, std)
