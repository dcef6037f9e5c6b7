"""The controller (B8): from the stem's codes of a picture to one candidate per layer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dqtsim.graph.model import Array
from dqtsim.train.constants import Reals, multiplier_and_shift, per_channel, reals, rounded_bias
from dqtsim.train.integer import IntegerExact, Requantizer, exact_dtype, rescale, straight_through
from dqtsim.train.modules.base import Codes, LearnedStep, Mixed
from dqtsim.train.nested import nest_weight, quantize
from dqtsim.train.rules import MASTER_WIDTH, TOP_CODE

GRID = 4
HIDDEN = 64
# The steps of the controller's own tensors cover slightly more than the largest value seen in calibration.
_HEADROOM = 1.1


@dataclass(frozen=True)
class FoldedGemm:
    """A fully connected layer in real units with its weight step: weight [O, I], step [O] or [], bias [O]."""

    weight: torch.Tensor
    step: torch.Tensor
    bias: torch.Tensor

    def steps(self) -> Reals:
        """The weight step of each output, float64 [O]."""
        return np.broadcast_to(reals(self.step), (len(self.weight),)).copy()

    def integer_bias(self, input_step: float) -> Array:
        """B, int64 [O] (B3)."""
        return rounded_bias(reals(self.bias) / (self.steps() * input_step))

    def sums(self, codes: torch.Tensor) -> torch.Tensor:
        """P int64 [N, O] (B1) of codes less their zero point, integers [N, I] in any dtype."""
        weight = nest_weight(self.weight.detach(), self.step, MASTER_WIDTH, "FLOOR")
        dtype = exact_dtype(codes, weight)
        return functional.linear(codes.to(dtype), weight.to(dtype)).to(torch.int64)


class Controller(nn.Module, IntegerExact):
    """Sum-pool to about 4x4, hidden layer of 64 with ReLU, logits [N, layers, candidates], all at eight bits.

    Features are standardised by constants measured at calibration; these are folded into the first layer's
    weights, so the integer controller does not need this operation.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, shape: tuple[int, int, int], zero_point: int, layers: int, candidates: int) -> None:
        super().__init__()
        self.zero_point = zero_point
        self.layers, self.candidates = layers, candidates
        channels, rows, columns = shape
        self.window = max(1, rows // GRID), max(1, columns // GRID)
        features = channels * (rows // self.window[0]) * (columns // self.window[1])
        self.hidden = nn.Linear(features, HIDDEN)
        self.logits = nn.Linear(HIDDEN, layers * candidates)
        nn.init.normal_(self.hidden.weight, std=features**-0.5)
        nn.init.zeros_(self.hidden.bias)
        # Different pictures must prefer different widths from the start, otherwise a constant choice wins early.
        nn.init.normal_(self.logits.weight, std=2 * HIDDEN**-0.5)
        nn.init.zeros_(self.logits.bias)
        self.pool_step = LearnedStep(torch.tensor(1.0))
        self.hidden_step = LearnedStep(torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def calibrate(self, stem: Codes) -> None:
        """Set the pooled and hidden steps and the features' mean and deviation from stem codes [N, C, H, W]."""
        with torch.no_grad():
            features = self._pooled(stem)
            self.pool_step.set(features.abs().max() * _HEADROOM / (TOP_CODE - self.zero_point))
            self.mean.copy_(features.mean(0))
            self.deviation.copy_(features.std(0).clamp_min(float(self.pool_step())))
            folded = self.folded_hidden()
            hidden = functional.linear(features, folded.weight, folded.bias)
            self.hidden_step.set(hidden.max() * _HEADROOM / TOP_CODE)

    def folded_hidden(self) -> FoldedGemm:
        """The hidden layer with the standardisation folded in, one weight step per output."""
        weight = self.hidden.weight / self.deviation
        step = weight.detach().abs().amax(1).clamp_min(1e-12) / 127
        return FoldedGemm(weight, step, self.hidden.bias - weight @ self.mean)

    def folded_logits(self) -> FoldedGemm:
        """The logits' layer; one weight step, since logits are compared."""
        step = self.logits.weight.detach().abs().max().clamp_min(1e-12) / 127
        return FoldedGemm(self.logits.weight, step, self.logits.bias)

    def pool_constants(self, stem_step: float) -> tuple[int, int]:
        """M and S of the pool (B6)."""
        area = self.window[0] * self.window[1]
        (multiplier,), shift = multiplier_and_shift([stem_step / (area * self.pool_step().item())], "controller.pool")
        return multiplier, shift

    def hidden_constants(self) -> tuple[Array, Array, Array]:
        """B, M and S of the hidden layer, int64 [O]."""
        gemm, pooled = self.folded_hidden(), self.pool_step().item()
        rates, shifts = per_channel(gemm.steps() * pooled / self.hidden_step().item(), "controller.hidden")
        return gemm.integer_bias(pooled), rates, shifts

    def _pooled(self, stem: Codes) -> torch.Tensor:
        values = stem.values.detach().float() - stem.zero_point
        return functional.avg_pool2d(values, self.window).flatten(1) * stem.step.detach()

    def forward(self, stem: Codes) -> torch.Tensor:
        """The stem's codes [N, C, H, W] to float32 logits [N, layers, candidates], float64 in integer-exact mode.

        The stem receives no gradient from here: it is trained for the classification, the controller only reads it.
        """
        step, hidden_layer, logits_layer = self.pool_step(), self.folded_hidden(), self.folded_logits()
        pooled = quantize(self._pooled(stem), step, self.zero_point) - self.zero_point
        if self.exact:
            pooled = straight_through(pooled, self._exact_pooled(stem).to(pooled.dtype))
        hidden = quantize(_apply(hidden_layer, pooled, step), self.hidden_step())
        if self.exact:
            requantizer = Requantizer.of(self.hidden_constants(), 0, TOP_CODE, pooled.device)
            codes = requantizer.codes(hidden_layer.sums(pooled.detach()))
            hidden = straight_through(hidden, codes.to(hidden.dtype))
        logits = _apply(logits_layer, hidden, self.hidden_step())
        if self.exact:
            scale = self.hidden_step().item()
            bias = torch.from_numpy(logits_layer.integer_bias(scale)).to(hidden.device)
            sums = logits_layer.sums(hidden.detach()) + bias
            logits = straight_through(logits, sums.double() * (scale * logits_layer.step.item()))
        return logits.reshape(-1, self.layers, self.candidates)

    def _exact_pooled(self, stem: Codes) -> torch.Tensor:
        """Codes of the pool less their zero point, int64 [N, features] (B6)."""
        values = stem.values.detach().double() - stem.zero_point
        sums = functional.avg_pool2d(values, self.window, divisor_override=1).flatten(1).to(torch.int64)
        multiplier, shift = self.pool_constants(stem.step.item())
        return rescale(sums * multiplier, shift, self.zero_point, TOP_CODE) - self.zero_point


def _apply(gemm: FoldedGemm, codes: torch.Tensor, input_step: torch.Tensor) -> torch.Tensor:
    weight = nest_weight(gemm.weight, gemm.step, MASTER_WIDTH, "FLOOR")
    product: torch.Tensor = functional.linear(codes, weight)
    return product * (gemm.step * input_step) + gemm.bias


def mix(logits: torch.Tensor) -> Mixed:
    """Plain softmax of logits [N, L, K]: a layer's output is the mean of its branches."""
    soft = functional.softmax(logits, -1)
    return Mixed(soft, soft.argmax(-1), explore=False, soft=True)


def sample(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> Mixed:
    """Hard Gumbel-softmax choice [N, L] of logits [N, L, K]: one-hot forward, softmax gradient.

    The noise is drawn where `generator` is, on the CPU, and then moved.
    """
    uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7).to(logits.device)
    soft = functional.softmax((logits - (-uniform.log()).log()) / temperature, -1)
    choice = soft.argmax(-1)
    hard = functional.one_hot(choice, logits.shape[-1]).to(soft.dtype)
    return Mixed(hard + (soft - soft.detach()), choice, explore=True)


def decide(logits: torch.Tensor) -> Mixed:
    """The choice at inference: argmax over candidates, lowest index on a tie (B8)."""
    top = logits == logits.max(-1, keepdim=True).values
    choice = top.to(torch.int64).argmax(-1)
    return Mixed(functional.one_hot(choice, logits.shape[-1]).to(logits.dtype), choice, explore=False)
