"""Shared parts of a run's phases: optimizers with their schedules, running averages, checkpoints."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from dqtsim import limits
from dqtsim.errors import InputError, reason
from dqtsim.outputs import write_file


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, on the CPU. Raises InputError if there is no such file."""
    if not path.is_file():
        raise InputError(f"A run must have {path.name}, but {path.parent} has none.")
    try:
        with limits.open_file(path, limits.CHECKPOINT_BYTES) as file:
            return cast(dict[str, Any], torch.load(file, map_location="cpu", weights_only=True))
    except OSError as error:
        raise InputError(f"A run's {path.name} must be readable, but {path} is not: {reason(error)}.") from None


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write aside, then rename, so that a kill leaves either the old file or the new one."""
    with write_file(path) as aside, aside.open("wb") as file:
        torch.save(state, file)


class Phase:
    """One phase's optimizers and schedules, stepped together."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], total: int, warm: float) -> None:
        self.optimizers = optimizers
        ramp = max(1, round(warm * total))

        def factor(step: int) -> float:
            """Linear up over the warm part, then half a cosine down to 0."""
            if step < ramp:
                return (step + 1) / (ramp + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))

        self.schedules = [LambdaLR(optimizer, factor) for optimizer in optimizers]

    def zero(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Take one step of every optimizer and of its schedule."""
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()

    def _items(self) -> list[Any]:
        return [*self.optimizers, *self.schedules]

    def state(self) -> list[Any]:
        """Return the states of all optimizers, then of all schedules."""
        return [item.state_dict() for item in self._items()]

    def load(self, states: list[Any]) -> None:
        """Continue from the states that `state` returned."""
        for item, state in zip(self._items(), states, strict=True):
            item.load_state_dict(state)


class Average:
    """Running averages of the parameters and buffers of some modules; a decay of 0 keeps none."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.modules, self.decay = modules, decay
        self.states = {key: self._copy(module) for key, module in modules.items()} if decay else {}

    @staticmethod
    def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self) -> None:
        """Move the averages towards the modules."""
        for key, state in self.states.items():
            for name, value in self.modules[key].state_dict().items():
                if value.is_floating_point():
                    state[name].lerp_(value, 1 - self.decay)
                else:
                    state[name].copy_(value)

    def load(self, states: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Continue from averages that were saved, on any device."""
        for key, state in self.states.items():
            for name, value in state.items():
                value.copy_(states[key][name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the modules for the duration of the with-statement."""
        kept = {key: self._copy(self.modules[key]) for key in self.states}
        self.keep()
        yield
        for key, state in kept.items():
            self.modules[key].load_state_dict(state)

    def keep(self) -> None:
        """Put the averages into the modules for good."""
        for key, state in self.states.items():
            self.modules[key].load_state_dict(state)
