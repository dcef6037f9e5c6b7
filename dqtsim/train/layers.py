"""Nested layers and what they share, by the names that the rest of the trainer uses."""

from dqtsim.train.modules.base import Codes, LearnedStep, Mixed, Nested, Policy, Uniform
from dqtsim.train.modules.layer import NestedLayer
from dqtsim.train.modules.logits import NestedLogits

__all__ = ["Codes", "LearnedStep", "Mixed", "Nested", "NestedLayer", "NestedLogits", "Policy", "Uniform"]
