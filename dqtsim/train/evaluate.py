"""Accuracy of the nested network, integer-exact, and the choices of its controller."""

from dataclasses import dataclass

import torch
from torch import nn

from dqtsim.train.controller import Controller, decide
from dqtsim.train.data import Split
from dqtsim.train.device import of
from dqtsim.train.files import in_parts
from dqtsim.train.integer import integer_exact
from dqtsim.train.modules.base import Mixed, Uniform
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rewrite import INPUT_SCALE, INPUT_ZERO_POINT
from dqtsim.train.rules import Widths

_NO_CHOICE = torch.empty((0, 0), dtype=torch.int64)


@dataclass(frozen=True)
class Evaluation:
    """Classes int64 [N] that a policy predicts, its choices int64 [N, L] (empty unless dynamic), and its accuracy.

    Both tensors are on the CPU.
    """

    predictions: torch.Tensor
    choices: torch.Tensor
    accuracy: float


def float_pictures(images: torch.Tensor) -> torch.Tensor:
    """The real values of input codes uint8 [N, 3, H, W]."""
    values = (images.float() - INPUT_ZERO_POINT) * INPUT_SCALE
    return values.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def evaluate_float(network: nn.Module, split: Split) -> Evaluation:
    """The float network on `split`."""
    network.eval()
    place = of(network)
    classes = [network(float_pictures(split.images[part].to(place))).argmax(1).cpu() for part in in_parts(split.images)]
    return _evaluation(torch.cat(classes), _NO_CHOICE, split)


@torch.no_grad()
def evaluate_uniform(network: NestedNetwork, split: Split, pair: int) -> Evaluation:
    """The network on `split` with every layer at one of `rules.pairs`, as its exported model computes it."""
    network.eval()
    with integer_exact(network):
        classes = [network(split.images[part], Uniform(pair)).argmax(1).cpu() for part in in_parts(split.images)]
    return _evaluation(torch.cat(classes), _NO_CHOICE, split)


@torch.no_grad()
def evaluate_dynamic(network: NestedNetwork, controller: Controller, split: Split) -> Evaluation:
    """The network on `split` at its controller's choices, as the exported model computes both."""
    network.eval()
    classes, choices = [], []
    with integer_exact(network, controller):
        for part in in_parts(split.images):
            stem = network.features(split.images[part])
            mixed: Mixed = decide(controller(stem))
            classes.append(network.head(stem, mixed).argmax(1).cpu())
            choices.append(mixed.choice.cpu())
    return _evaluation(torch.cat(classes), torch.cat(choices), split)


def _evaluation(predictions: torch.Tensor, choices: torch.Tensor, split: Split) -> Evaluation:
    return Evaluation(predictions, choices, float((predictions == split.labels).float().mean()))


def choice_summary(choices: torch.Tensor, candidates: tuple[Widths, ...]) -> dict[str, object]:
    """Mean width, share of each candidate per layer, and mean entropy in bits, of choices int64 [N, L]."""
    counts = torch.stack([(choices == k).float().mean(0) for k in range(len(candidates))], 1)
    widths = torch.tensor([(w + a) / 2 for w, a in candidates])
    entropy = -(counts * counts.clamp_min(1e-9).log2()).sum(1)
    return {
        "mean_width": round(float((counts @ widths).mean()), 3),
        "entropy": round(float(entropy.mean()), 3),
        "shares": [[round(float(share), 3) for share in row] for row in counts],
    }
