"""New pairs of widths for a nested model that exists: rows of (B, M, S) (B3'') and windows (A6)."""

from .model import check_pairs, known_pairs, named, reference_of
from .walk import calibrate

__all__ = ["calibrate", "check_pairs", "known_pairs", "named", "reference_of"]
