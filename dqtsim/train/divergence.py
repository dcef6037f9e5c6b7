"""A training that has diverged stops at once, before anything of it is written."""

import math
from collections.abc import Mapping

from torch import nn

from dqtsim.errors import InputError

# The option that a diverged phase needs smaller.
_RATES = {"float": "--float-rate", "uniform": "--nested-rate", "dynamic": "--dynamic-rate"}


def check_losses(phase: str, losses: Mapping[str, float], place: str) -> None:
    """Raise InputError if a loss is not finite: nothing that follows would be of use."""
    for key, value in losses.items():
        if not math.isfinite(value):
            what = "the loss" if key == "loss" else f"the term '{key}' of the loss"
            raise _diverged(phase, f"{what} is {value}", place)


def check_parameters(phase: str, modules: Mapping[str, nn.Module], place: str) -> None:
    """Raise InputError if the last step of an epoch has left a parameter that is not finite, before it is saved."""
    for module in modules.values():
        for name, parameter in module.named_parameters():
            if not parameter.isfinite().all():
                raise _diverged(phase, f"'{name}' is not finite", f"the end of {place}")


def _diverged(phase: str, what: str, place: str) -> InputError:
    return InputError(
        f"the training has diverged: {what} at {place}; try a smaller {_RATES[phase]}. What is in the run's folder is "
        f"that of the last whole epoch."
    )
