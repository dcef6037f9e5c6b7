"""The inner kernels of layers by their names: the pixels and channels that each computes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..emit.libraries import shapes_of
from ..emit.tile import CODES, DEPTH, LOGITS, QUADS
from ..isa import AND, SMALL, XOR, named
from ..isa.base import PACKED

_NAME = re.compile(rf"({SMALL}|{AND}|{XOR}|)({CODES}|{LOGITS}|{DEPTH}|{QUADS})_(\d+)x(\d+)(?:x(\d+))?")


@dataclass(frozen=True)
class Kernel:
    """A kernel: its kind, its pixels and its vectors of `lanes` channels; matrix: it multiplies whole matrices."""

    name: str
    kind: str
    pixels: int
    vectors: int
    lanes: int
    matrix: bool

    @property
    def channels(self) -> int:
        """Return the channels that it computes."""
        return self.vectors * self.lanes


@cache
def kernels_of(name: str) -> Mapping[str, Kernel]:
    """Return the kernels of an instruction set."""
    isa = named(name)
    assert isa is not None
    names = []
    for product in ("", *isa.dots):
        for pixels, vectors in shapes_of(isa):
            names.append(f"{product}{CODES}_{pixels}x{vectors}")
            if pixels == 1 and product not in (AND, XOR):
                names.append(f"{product}{LOGITS}_{pixels}x{vectors}")
    pixels = isa.depthwise.pixels
    names += [f"{QUADS}_{pixels}x{PACKED}x{quads.lanes}" for quads in isa.depthwise.quads]
    if not isa.depthwise.quads:
        names += [f"{DEPTH}_{pixels}x{vectors}" for vectors in isa.shapes]
    found = {name: _kernel(name, isa.lanes, matrix=False) for name in names}
    if isa.matrices is not None:
        names = [f"{CODES}_{pixels}x{vectors}" for pixels in isa.matrices.pixels for vectors in isa.shapes]
        found |= {name: _kernel(name, isa.lanes, matrix=True) for name in names}
    return found


def _kernel(name: str, lanes: int, *, matrix: bool) -> Kernel:
    match = _NAME.fullmatch(name)
    assert match is not None
    _, kind, pixels, vectors, own = match.groups()
    return Kernel(name, kind, int(pixels), int(vectors), int(own) if own else lanes, matrix)
