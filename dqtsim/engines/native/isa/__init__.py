"""Instruction sets of CPUs, one file each, and the one list of them.

To add one, write a file with an `Isa` and add it to ISAS. Nothing outside this folder depends on the kind of CPU.
"""

from .amx import AMX
from .avx2 import AVX2
from .base import AND, SMALL, XOR, Isa, Product
from .portable import PORTABLE
from .vnni import VNNI256, VNNI512

# the best first; the last one needs nothing
ISAS = (AMX, VNNI512, VNNI256, AVX2, PORTABLE)


def named(name: str) -> Isa | None:
    """Return the instruction set of that name, None if there is none."""
    return next((isa for isa in ISAS if isa.name == name), None)


__all__ = ["AND", "ISAS", "SMALL", "XOR", "Isa", "Product", "named"]
