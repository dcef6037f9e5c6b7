"""The loss, eq. 11: J = J_task + alpha * J_consistency + beta * J_cost, and one term of ours.

J_task is the loss at the controller's own choices, J_consistency the sum over K' of the loss with the whole network at
one pair of widths, J_cost the expected bits (the paper's) or the expected BitOPs. Ours, not the paper's: a budget,
which turns J_cost into its distance from a wanted average, and an information term, because one choice per layer,
whatever the picture, can meet a budget too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from dqtsim.errors import InputError
from dqtsim.train.rules import MASTER_WIDTH, Widths

_BITOPS_AT_MASTER = MASTER_WIDTH * MASTER_WIDTH


@dataclass(frozen=True)
class CostModel:
    """J_cost: `table` [L, K] is what each candidate adds; with a budget, in the same unit, the distance from it.

    Both costs are in bits: the average width, or BitOPs in units of what one bit of both widths at 8 bits costs, so
    that beta means about the same to both.
    """

    table: torch.Tensor
    budget: float | None

    def expected(self, logits: torch.Tensor) -> torch.Tensor:
        """The mean over pictures of the expected cost, from logits [N, L, K] or probabilities' logarithms."""
        return (functional.softmax(logits, -1) * self.table.to(logits)).sum((1, 2)).mean()

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """J_cost."""
        expected = self.expected(logits)
        return expected if self.budget is None else (expected - self.budget).abs()


def bits_cost(layers: int, candidates: Sequence[Widths], budget: float | None) -> CostModel:
    """J_cost = (1/N) sum_i sum_k p_ik * d_k over layers i; d_k is a candidate's mean width."""
    widths = torch.tensor([(w + a) / 2 for w, a in candidates])
    return CostModel((widths / layers).repeat(layers, 1), budget)


def bitops_cost(macs: Sequence[int], fixed: int, candidates: Sequence[Widths], budget: float | None) -> CostModel:
    """BitOPs of layers of `macs`; `fixed` BitOPs are spent in any case, `budget` is in millions per picture."""
    unit = sum(macs) * MASTER_WIDTH
    products = torch.tensor([w * a for w, a in candidates], dtype=torch.float64)
    table = (torch.tensor(macs, dtype=torch.float64)[:, None] * products / unit).float()
    if budget is None:
        return CostModel(table, None)
    cheapest = fixed + sum(macs) * min(w * a for w, a in candidates)
    if budget * 1e6 < cheapest:
        raise InputError(
            f"A budget must allow the narrowest widths, {cheapest / 1e6:.2f} MBitOPs per picture, but is {budget}."
        )
    return CostModel(table, (budget * 1e6 - fixed) / unit)


def task_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
    teacher: torch.Tensor | None = None,
    share: float = 0.0,
) -> torch.Tensor:
    """Cross entropy of float32 logits [N, classes] with int64 labels [N]; `share` of it with the teacher's softmax."""
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if teacher is None or not share:
        return loss
    imitation = functional.kl_div(
        functional.log_softmax(logits, -1), functional.log_softmax(teacher, -1), log_target=True, reduction="batchmean"
    )
    return (1 - share) * loss + share * imitation


def information(logits: torch.Tensor) -> torch.Tensor:
    """Nats that a choice tells about its picture: entropy of the mean minus mean entropy, averaged over layers.

    [N, L, K] logits; 0 when every picture gets the same probabilities, log K when choices are certain and balanced.
    """
    p = functional.softmax(logits, -1)
    mean = p.mean(0)
    marginal = -(mean * mean.clamp_min(1e-9).log()).sum(-1)
    conditional = -(p * functional.log_softmax(logits, -1)).sum(-1).mean(0)
    return (marginal - conditional).mean()
