"""Decisions: equations B7 and B8 of spec/README.md."""

from collections.abc import Sequence


def argmax(values: Sequence[int]) -> int:
    """Return the index of the largest value, the lowest such index on a tie (B7, B8)."""
    return max(range(len(values)), key=lambda index: (values[index], -index))


def choose_widths(logits: Sequence[int], layers: int, candidates: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (weight width, activation width) of every controlled layer (B8).

    `logits` is layer-major: the score of candidate k for layer i is logits[i * K + k].
    """
    k = len(candidates)
    return [candidates[argmax(logits[i * k : (i + 1) * k])] for i in range(layers)]
