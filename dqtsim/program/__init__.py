"""PROGRAM: a plan as native operations, one call for a whole sample.

The plan's nodes become operations of `kernels/vector`, their tensors places in one arena that is reused by liveness,
their constants tables as the kernels want them. A layer goes this way only where the plan proves that its sums fit its
register and 32 bits at all its widths; every other step is left to its ordinary kernel, between two native stretches.
"""

from .native import Native, Ran, native

__all__ = ["Native", "Ran", "native"]
