"""The classifier: integer logits, never requantized (B7)."""

import torch
from torch import nn
from torch.nn import functional

from dqtsim.graph.model import Array
from dqtsim.train import steps
from dqtsim.train.constants import BIAS_LIMIT, reals, rounded_bias
from dqtsim.train.integer import IntegerExact, exact_dtype, straight_through
from dqtsim.train.modules.base import Codes, LearnedStep, Policy, Uniform
from dqtsim.train.modules.layer import WEIGHT_REACH
from dqtsim.train.nested import Geometry, nest_activation, nest_weight
from dqtsim.train.rules import MASTER_WIDTH, WEIGHT_ZERO_POINT, NestingRules, Widths


class NestedLogits(nn.Module, IntegerExact):
    """Classifier (B7): one weight step for all classes, because their logits are compared; one bias row per width.

    As in a NestedLayer, rows are selected by `row_widths` or, after `separate_rows`, by `row_pairs`.
    """

    def __init__(self, source: steps.Logits, rules: NestingRules, layer: int) -> None:
        super().__init__()
        self.name, self.rules, self.layer = source.name, rules, layer
        self.pairs, self.row_widths = rules.pairs, rules.row_widths
        self.rows = tuple(rules.row(pair) for pair in self.pairs)
        self.row_pairs: tuple[Widths, ...] | None = None
        self.windows: tuple[int, ...] | None = None
        self.weight = nn.Parameter(source.weight.clone())
        spread = torch.maximum(self.weight.std(unbiased=False), self.weight.abs().max() / (2 * WEIGHT_REACH))
        self.weight_step = LearnedStep(spread * WEIGHT_REACH / WEIGHT_ZERO_POINT)
        bias = self.weight.new_zeros(len(self.weight)) if source.bias is None else source.bias
        self.bias = nn.Parameter(bias.repeat(len(rules.row_widths), 1))

    def separate_rows(self) -> None:
        """Give every pair of widths a row of its own (B3''), equal to the one that it had."""
        if self.row_pairs is not None or len(self.pairs) == 1:
            return
        with torch.no_grad():
            self.bias = nn.Parameter(self.bias[torch.tensor(self.rows).to(self.bias.device)])
        self.row_pairs, self.rows = self.pairs, tuple(range(len(self.pairs)))

    def effective_step(self, input_step: torch.Tensor) -> torch.Tensor:
        """The weight step [] that is used: the learned one, raised where B would leave no room for int32 logits."""
        step = self.weight_step()
        # Logits are int32 (B7), so the bias leaves room for the largest sum.
        room = BIAS_LIMIT - 2 - self.weight[0].numel() * 2 ** (2 * MASTER_WIDTH - 1)
        least = float(self.bias.detach().abs().max()) / (input_step.item() * room) * (1 + 1e-6)
        return step if least <= step.item() else torch.full_like(step, least)

    def factors(self, input_step: torch.Tensor) -> torch.Tensor:
        """Logit per accumulator step, [R, O], all equal."""
        return torch.ones_like(self.bias) * (self.effective_step(input_step) * input_step)

    def set_row(self, row: int, factor: torch.Tensor, constant: torch.Tensor, input_step: torch.Tensor) -> None:
        """Let the logits of a row be the accumulators times `factors` plus `constant` float64 [O]."""
        with torch.no_grad():
            self.bias[row] = constant

    def operand(self, pair: int, input_step: torch.Tensor) -> torch.Tensor:
        """The weights' operands [O, I] at one of `pairs`, in master steps, float32."""
        return nest_weight(self.weight, self.effective_step(input_step), self.pairs[pair][0], self.rules.weight)

    def sums(self, x: Codes, operand: torch.Tensor, pair: int, geometry: Geometry | None = None) -> torch.Tensor:
        """Sums [N, O] of operands at one of `pairs` (B1, B2)."""
        width = self.pairs[pair][1]
        values = nest_activation(x.values, width, x.zero_point, self.rules.activation, self.window(width))
        return functional.linear(values, operand)

    def constants(self, input_step: float) -> Array:
        """B, int64 [R, O], as export writes it."""
        step = self.effective_step(torch.tensor(input_step, dtype=torch.float64)).item()
        return rounded_bias(reals(self.bias) / (step * input_step))

    def forward(self, x: Codes, policy: Policy) -> torch.Tensor:
        """Codes [N, I] to logits [N, classes]: float32, or float64 in integer-exact mode."""
        if isinstance(policy, Uniform):
            return self._at(x, policy.pair)
        branches = torch.stack([self._at(x, k) for k in range(len(self.rules.candidates))], 1)
        return (policy.probabilities[:, self.layer, :, None] * branches).sum(1)

    def window(self, width: int) -> int:
        """How many bits lower activations of a width are taken (A6)."""
        return self.windows[width] if self.windows is not None else 0

    def _at(self, x: Codes, pair: int) -> torch.Tensor:
        width_w, width_a = self.pairs[pair]
        step = self.effective_step(x.step)
        weight = nest_weight(self.weight, step, width_w, self.rules.weight)
        operand = nest_activation(x.values.float(), width_a, x.zero_point, self.rules.activation, self.window(width_a))
        product: torch.Tensor = functional.linear(operand, weight)
        row = self.rows[pair]
        result: torch.Tensor = product * (step * x.step) + self.bias[row]
        if not self.exact:
            return result
        dtype = exact_dtype(operand, weight)
        sums = functional.linear(operand.detach().to(dtype), weight.detach().to(dtype)).double().floor()
        bias = torch.from_numpy(self.constants(x.step.item())[row]).to(sums.device)
        return straight_through(result, (sums + bias) * (step.item() * x.step.item()))
