"""Instruction sets of CPUs, one file each."""
