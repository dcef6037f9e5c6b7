"""The loss, eq. 11: J = J_task + alpha * J_consistency + beta * J_cost, and one term of ours.

J_task is the loss at the controller's own choices, J_consistency the sum over the candidates of the loss with the
whole network at that candidate, J_cost the expected bits. Ours, not the paper's: a budget, which turns J_cost into
its distance from a wanted average, and an information term, because one choice per layer, whatever the picture, can
meet a budget too.
"""

import torch
from torch.nn import functional


def task_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross entropy of float32 logits [N, classes] with int64 labels [N]."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def expected_bits(logits: torch.Tensor, candidates: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """J_cost = (1/N) sum_i sum_k p_ik * d_k over layers i, mean over pictures; d_k is a candidate's mean width."""
    widths = torch.tensor([(w + a) / 2 for w, a in candidates], dtype=logits.dtype)
    return (functional.softmax(logits, -1) @ widths).mean()


def cost_loss(logits: torch.Tensor, candidates: tuple[tuple[int, int], ...], budget: float | None) -> torch.Tensor:
    """J_cost, or with a budget its distance from it, in bits."""
    bits = expected_bits(logits, candidates)
    return bits if budget is None else (bits - budget).abs()


def information(logits: torch.Tensor) -> torch.Tensor:
    """Nats that a choice tells about its picture: entropy of the mean minus mean entropy, averaged over layers.

    [N, L, K] logits; 0 when every picture gets the same probabilities, log K when choices are certain and balanced.
    """
    p = functional.softmax(logits, -1)
    mean = p.mean(0)
    marginal = -(mean * mean.clamp_min(1e-9).log()).sum(-1)
    conditional = -(p * functional.log_softmax(logits, -1)).sum(-1).mean(0)
    return (marginal - conditional).mean()
