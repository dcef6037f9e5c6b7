"""Proof before anything runs: a program's operations read and write only inside its buffers and constants.

The memory that an operation accesses is stated here a second time, from the documentation of its record in `emit` and
not from lowering, so that a mistake in one is found by the other.
"""

from .check import check
from .words import ProgramError

__all__ = ["ProgramError", "check"]
