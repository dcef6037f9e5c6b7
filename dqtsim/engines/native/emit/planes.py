"""Planes: a tensor of the kernels' layout as contiguous bytes, one plane per channel."""

from typing import Any

from ..ir import I8, Emitter, Record
from ..isa.base import Isa
from .rows import fields, rows_of

PLANES = Record("source", "row", "step", "channels", "height", "width", "target")


def emit(module: Any, _isa: Isa) -> str:
    """Add the operation "planes" of PLANES records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "planes")
    b = e.builder
    words, chunk = e.arguments
    r = fields(e, PLANES, words)
    plane = b.mul(r.height, r.width)
    with rows_of(e, r.chunks, chunk, r.height) as y:
        at, to = b.add(r.source, b.mul(y, r.row)), b.add(r.target, b.mul(y, r.width))
        with e.loop(r.channels) as c:
            near, far = b.add(at, c), b.add(to, b.mul(c, plane))
            with e.loop(r.width) as x:
                e.store(e.load(b.add(near, b.mul(x, r.step)), I8), b.add(far, x))
    e.done()
    return "planes"
