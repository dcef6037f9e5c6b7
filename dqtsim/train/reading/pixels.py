"""The picture, its channels in some order, and affine functions of them: what layers take into their weights."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from dqtsim.train.reading.affine import Affine
from dqtsim.train.reading.reader import Reader
from dqtsim.train.steps import INPUT, Activation, Layer, Take

_NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True)
class Pixels:
    """Channel i is scale[i] * x + shift[i] of channel index[i] of the tensor `source`, which shows the picture."""

    source: str
    index: tuple[int, ...]
    scale: torch.Tensor
    shift: torch.Tensor

    @property
    def zeros(self) -> tuple[float, ...]:
        """The real values that become 0, per channel of the source; of an unused channel, 0."""
        found = {}
        for channel, a, b in zip(self.index, self.scale.tolist(), self.shift.tolist(), strict=True):
            found[channel] = -b / a if a else 0.0
        return tuple(found.get(channel, 0.0) for channel in range(max(found) + 1))

    def after(self, affine: Affine) -> "Pixels":
        """An affine function of these."""
        return Pixels(self.source, self.index, self.scale * affine.scale, self.shift * affine.scale + affine.shift)

    def chosen(self, indices: tuple[int, ...]) -> "Pixels":
        """Some of these channels."""
        at = list(indices)
        return Pixels(self.source, tuple(self.index[i] for i in at), self.scale[at], self.shift[at])


def pixels_of(reader: Reader, node: fx.Node) -> Pixels | None:
    """What a node shows of the picture, if it is nothing else."""
    if node in reader.pixels:
        return cast(Pixels, reader.pixels[node])
    if reader.tensor.get(node) == INPUT and len(reader.picture) > 1:
        count = reader.picture[0]
        return Pixels(INPUT, tuple(range(count)), torch.ones(count).double(), torch.zeros(count).double())
    return None


def note(reader: Reader, node: fx.Node, pixels: Pixels) -> None:
    """Leave `node` to those that read it; a step computes it if they cannot."""
    reader.pixels[node] = pixels
    reader.lazy[node] = lambda: _step(reader, node, pixels)


def joined(reader: Reader, nodes: list[fx.Node]) -> Pixels | None:
    """Channels of several nodes, one after another."""
    parts = [pixels_of(reader, node) for node in nodes]
    found = [part for part in parts if part is not None]
    if len(found) != len(parts) or len({part.source for part in found}) != 1:
        return None
    index = tuple(channel for part in found for channel in part.index)
    return Pixels(found[0].source, index, torch.cat([p.scale for p in found]), torch.cat([p.shift for p in found]))


def _step(reader: Reader, node: fx.Node, pixels: Pixels) -> None:
    name, shape = pixels.source, reader.shape_of(pixels.source)
    count = len(pixels.index)
    if pixels.index != tuple(range(shape[0])):
        taken = reader.name(f"{reader.path(node)}.take")
        name = reader.put(Take(taken, (name,), (count, *shape[1:]), False, 0, pixels.index), [])
    if bool((pixels.scale != 1).any() or (pixels.shift != 0).any()):
        view = (*reader.shape_of(name), 1, 1)[:3] if len(shape) != 2 else (count, 1, shape[1])
        step = Layer(
            reader.name(f"{reader.path(node)}.scale"), (reader.view(name, view),), view, False,
            pixels.scale.reshape(-1, 1, 1, 1), pixels.shift, (1, 1), _NO_PADS, (1, 1), count, None, Activation(),
            None, True,
        )  # fmt: skip
        name = reader.put(step, [node])
    reader.tensor[node] = name
