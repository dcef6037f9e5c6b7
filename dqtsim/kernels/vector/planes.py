"""Planes: a tensor of the kernels' layout as contiguous bytes, one plane per channel."""

from typing import Any

from .emit import I8, Emitter, Record
from .isa import Isa
from .rows import share

PLANES = Record("source", "row", "step", "channels", "height", "width", "target")


def emit(module: Any, _isa: Isa) -> str:
    """Add the operation "planes" of PLANES records to `module`; return its name. Chunks split rows."""
    e = Emitter(module, "planes")
    b = e.builder
    words, chunk = e.arguments
    source, row, step, channels, height, width, target = e.unpack(PLANES, words, *PLANES.names[2:])
    plane = b.mul(height, width)
    with e.loop(*reversed(share(e, PLANES, words, chunk, height))) as y:
        at, to = b.add(source, b.mul(y, row)), b.add(target, b.mul(y, width))
        with e.loop(channels) as c:
            near, far = b.add(at, c), b.add(to, b.mul(c, plane))
            with e.loop(width) as x:
                e.store(e.load(b.add(near, b.mul(x, step)), I8), b.add(far, x))
    e.done()
    return "planes"
