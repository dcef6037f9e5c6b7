"""Tensors to the real numbers of which `graph/constants.py` makes the integers of a model."""

import torch

from dqtsim.graph.constants import (
    BIAS_LIMIT,
    Reals,
    multiplier_and_shift,
    multipliers_and_shifts,
    per_channel,
    requantizing,
    rounded_bias,
)

__all__ = [
    "BIAS_LIMIT",
    "Reals",
    "multiplier_and_shift",
    "multipliers_and_shifts",
    "per_channel",
    "reals",
    "requantizing",
    "rounded_bias",
]


def reals(tensor: torch.Tensor) -> Reals:
    """A tensor's values as float64, without gradient."""
    return tensor.detach().double().cpu().numpy()
