"""`python -m dqtsim` is the command `dqtsim`."""

from .cli import main

main(prog_name="dqtsim")
