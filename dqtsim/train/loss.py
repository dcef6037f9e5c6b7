"""The loss, eq. 11: J = J_task + alpha * J_consistency + beta * J_cost, and one term of ours.

J_task is the loss at the controller's own choices, J_consistency the sum over K' of the loss with the whole network at
one pair of widths, J_cost the expected bits (the paper's), BitOPs, energy or cycles. Ours, not the paper's: a budget,
which turns J_cost into the distance from a wanted average, and an information term, because one constant choice per
layer can meet a budget, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from dqtsim.train.rules import Widths


@dataclass(frozen=True)
class CostModel:
    """J_cost: `table` [L, K] is the cost of each candidate; with a budget, in the same unit, the distance from it.

    Every cost is in bits, so that beta means about the same for all: either the average width, or a count in units of
    the cost of one bit of all widths (`pricing.py`).
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
    """Information of a choice about its picture, in nats: entropy of the mean minus mean entropy, averaged over layers.

    [N, L, K] logits; 0 when every picture gets the same probabilities, log K when choices are certain and balanced.
    """
    p = functional.softmax(logits, -1)
    mean = p.mean(0)
    marginal = -(mean * mean.clamp_min(1e-9).log()).sum(-1)
    conditional = -(p * functional.log_softmax(logits, -1)).sum(-1).mean(0)
    return (marginal - conditional).mean()
