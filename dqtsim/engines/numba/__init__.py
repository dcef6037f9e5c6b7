"""FAST: Numba kernels. Same file and function names as spec/, formulated apart, and equal to it bit for bit.

Kernels work on NumPy arrays of one sample and on plain integers; they know nothing of graphs or files. Choices of the
law arrive as their numbers (`dqtsim/numbers.py`), because compiled code has no use for names.
"""
