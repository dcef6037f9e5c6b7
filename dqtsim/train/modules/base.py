"""What all nested modules share: policies, codes, steps that are learned, and the grid of an output."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from dqtsim.train import steps
from dqtsim.train.constants import multiplier_and_shift
from dqtsim.train.integer import IntegerExact, rescale, straight_through
from dqtsim.train.nested import quantize
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE, WEIGHT_ZERO_POINT

# The least step, far below any that is used: the logarithm must be finite, and 1 / step must be.
LEAST_STEP = 1e-30
# A four-level nesting of rectified activations is best when the 8-bit grid reaches about 3.5 root mean squares.
_RECTIFIED_REACH = 3.5
# Signed tensors mostly go into a residual add, which reads all their bits.
_SIGNED_REACH = 4.5
MASTER = (MASTER_WIDTH, MASTER_WIDTH)


@dataclass(frozen=True)
class Uniform:
    """The whole network at `rules.pairs[pair]`; in training, batch norm uses and updates batch statistics."""

    pair: int


@dataclass(frozen=True)
class Mixed:
    """A candidate for every picture and layer: probabilities [N, L, K], one-hot forward; choice int64 [N, L].

    With `soft` the probabilities are not one-hot, and a layer's output is the mean of its branches.
    """

    probabilities: torch.Tensor
    choice: torch.Tensor
    explore: bool
    soft: bool = False


Policy = Uniform | Mixed


@dataclass(frozen=True)
class Codes:
    """Master codes in a float dtype, with their step [] and zero point."""

    values: torch.Tensor
    step: torch.Tensor
    zero_point: int

    def real(self) -> torch.Tensor:
        """The real values of the codes, float32."""
        return (self.values.float() - self.zero_point) * self.step

    def centred(self) -> torch.Tensor:
        """Codes less their zero point, int64, without gradient."""
        return self.values.detach().to(torch.int64) - self.zero_point

    def moved(self, values: torch.Tensor) -> "Codes":
        """Other codes on the same grid."""
        return Codes(values, self.step, self.zero_point)


class LearnedStep(nn.Module):
    """A quantizer's step; its logarithm is learned, so the step is positive."""

    def __init__(self, initial: torch.Tensor) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(initial.detach().float().clamp_min(LEAST_STEP).log())

    def forward(self) -> torch.Tensor:
        """The step: float32 [] or [O]."""
        return self.logarithm.exp()

    def set(self, value: torch.Tensor) -> None:
        """Replace the step."""
        with torch.no_grad():
            self.logarithm.copy_(value.clamp_min(LEAST_STEP).log())


class Nested(nn.Module, IntegerExact):
    """Base of all nested modules that give codes: a name, and the grid of the output.

    `zero_point` may be any code where the output is signed; calibration chooses it. Where it is `positive` it is 0.
    """

    def __init__(self, source: steps.Step) -> None:
        super().__init__()
        activation = getattr(source, "activation", None)
        self.name, self.positive = source.name, source.positive
        self.zero_point = 0 if source.positive else WEIGHT_ZERO_POINT
        self.ceiling: float | None = activation.ceiling if activation is not None else None
        self.step = LearnedStep(torch.tensor(1.0))

    def high(self) -> int:
        """The largest code (B4): that of the ceiling, where there is one."""
        if self.ceiling is None:
            return TOP_CODE
        code: int = self.zero_point + math.floor(self.ceiling / self.step().item() + 0.5)
        return min(TOP_CODE, max(self.zero_point + 1, code))

    def rescaling(self, input_step: float) -> tuple[int, int]:
        """M and S that bring codes of `input_step` to the output's grid (B4)."""
        (multiplier,), shift = multiplier_and_shift([input_step / self.step().item()], self.name)
        return multiplier, shift

    def same_grid(self, x: Codes) -> bool:
        """Whether `x` is on the output's grid already, so that B4 would change nothing."""
        return x.zero_point == self.zero_point and x.step.item() == self.step().item() and self.ceiling is None

    def rescaled(self, x: Codes) -> torch.Tensor:
        """The values of `x` on the output's grid: codes in the dtype of `x`."""
        codes = self.coded(x.real(), x.values.dtype)
        return self.exactly(codes, x.centred(), *self.rescaling(x.step.item())) if self.exact else codes

    def coded(self, real: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Codes of real values, in `dtype`."""
        return quantize(real, self.step(), self.zero_point, self.high()).to(dtype)

    def exactly(self, codes: torch.Tensor, sums: torch.Tensor, multiplier: int, shift: int) -> torch.Tensor:
        """`codes` with their values replaced by those of int64 `sums` after B4."""
        exact = rescale(sums * multiplier, shift, self.zero_point, self.high())
        return straight_through(codes, exact.to(codes.dtype))

    def initialise(self, value: torch.Tensor) -> None:
        """Set the step from the float tensor that the output represents."""
        value = value.detach()
        reach = value.square().mean().sqrt() * _RECTIFIED_REACH if self.positive else value.std() * _SIGNED_REACH
        self.step.set(reach / (TOP_CODE - self.zero_point))
