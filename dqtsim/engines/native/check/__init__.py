"""Proof before anything runs: whatever a program's operations read or write lies where the program says it may.

What an operation touches is stated here once more, from the documentation of its record in `emit` and not from what
lowering does, so that a mistake of one is found by the other.
"""

from .check import check
from .words import ProgramError

__all__ = ["ProgramError", "check"]
