"""FAST: Numba kernels. Same file and function names as spec/, written independently, and equal to it bit for bit.

Kernels work on NumPy arrays of one sample and on plain integers; they do not depend on graphs or files. Choices of
the law arrive as numbers (`dqtsim/numbers.py`), because compiled code cannot use names.
"""
