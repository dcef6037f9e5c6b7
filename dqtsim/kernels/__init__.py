"""FAST: Numba kernels. Same file and function names as spec/, formulated apart, and equal to it bit for bit.

Kernels work on NumPy arrays of one sample and on plain integers; they know nothing of graphs or files. Choices of the
law arrive as the small integers below, because compiled code has no use for names.
"""

from ..spec.rules import Overflow, Rounding

ROUNDING_CODES = {Rounding.TIES_UP: 0, Rounding.FLOOR: 1, Rounding.TIES_AWAY: 2, Rounding.TIES_EVEN: 3}
OVERFLOW_CODES = {Overflow.ERROR: 0, Overflow.WRAP: 1, Overflow.SATURATE: 2}
