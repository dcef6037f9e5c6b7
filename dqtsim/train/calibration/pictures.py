"""Calibration pictures in parts of fixed size, and the float network computed beside the nested one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from dqtsim.errors import InputError
from dqtsim.train import given, steps
from dqtsim.train.floats import evaluate_step
from dqtsim.train.network import NestedNetwork

# Pictures computed at once: few, because the tensors of all parts are kept while a step is fitted.
PART = 5

Parts = list[torch.Tensor]


def parts_of(batches: object, shape: tuple[int, ...]) -> Parts:
    """All pictures of `batches` in their order, uint8 [PART, C, H, W] each, the last one perhaps smaller.

    Raises InputError if there is none.
    """
    found = list(given.batches(batches, shape))
    if not sum(len(batch) for batch in found):
        raise InputError("calibration needs at least one picture, but there is none.")
    together = torch.cat(found)
    return [together[start : start + PART] for start in range(0, len(together), PART)]


class Walk:
    """The float network on all parts, step by step; `values` holds the tensors that are still to be read."""

    def __init__(self, network: NestedNetwork, walked: Sequence[steps.Step], parts: Parts) -> None:
        scale, zero = network.scale, network.zero_point
        self.values: dict[str, Parts] = {
            steps.INPUT: [(part.to(network.device).float() - zero) * scale for part in parts]
        }
        self.last = last_readers(walked)

    def step(self, step: steps.Step, seen: Callable[[torch.Tensor], torch.Tensor] | None = None) -> tuple[Parts, Parts]:
        """Compute one step: what `seen` takes of the values before its activation, and its outputs.

        The outputs are kept for their readers.
        """
        before, after = [], []
        for inputs in zip(*(self.values[source] for source in step.sources), strict=True):
            value, output = evaluate_step(step, inputs)
            after.append(output)
            if seen is not None:
                before.append(seen(value))
        self.values[step.name] = after
        return before, after

    def forget(self, step: steps.Step) -> None:
        """Drop the tensors that nobody reads after `step`."""
        drop(self.values, self.last, step)


def last_readers(walked: Sequence[steps.Step]) -> dict[str, str]:
    """By tensor, the last step that reads it."""
    return {source: step.name for step in walked for source in step.sources}


def drop(values: dict[str, Parts], last: dict[str, str], step: steps.Step) -> None:
    """Delete what `step` is the last to read, and its own output if nobody reads it."""
    for source in {*step.sources}:
        if last[source] == step.name:
            del values[source]
    if step.name not in last:
        del values[step.name]


def by_channel(value: torch.Tensor) -> torch.Tensor:
    """[N, C, ...] as [C, n]."""
    return value.transpose(0, 1).flatten(1)


def never_trained(walked: Sequence[steps.Step]) -> bool:
    """Whether there are batch norms, and all have mean 0 and variance 1, which no training leaves."""
    norms = [step.norm for step in walked if isinstance(step, steps.Layer) and step.norm is not None]
    return bool(norms) and all(not bool(n.mean.any()) and bool((n.variance == 1).all()) for n in norms)


def with_measured_norms(
    network: NestedNetwork, parts: Parts, progress: Callable[[str], None]
) -> tuple[steps.Step, ...]:
    """The steps with every batch norm's mean and variance measured on all pictures, layer after layer."""
    found: list[steps.Step] = []
    walk = Walk(network, network.steps, parts)
    for given_step in steps.converted(network.steps, network.device):
        step = given_step
        progress(f"measuring {step.name}")
        if isinstance(step, steps.Layer) and (norm := step.norm) is not None:
            plain = replace(step, norm=None)
            mean, variance = moments(evaluate_step(plain, [x])[0] for x in walk.values[step.sources[0]])
            step = replace(step, norm=replace(norm, mean=mean, variance=variance))
        found.append(step)
        walk.step(step)
        walk.forget(step)
    return tuple(found)


def moments(values: Iterator[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance float32 [C] over all of several [N, C, ...]."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for value in values:
        flat = by_channel(value).double()
        count += flat.shape[1]
        total, squares = total + flat.sum(1), squares + flat.square().sum(1)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(0).float()
