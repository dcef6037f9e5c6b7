"""Zeros: the first operation of a run clears counters and flags."""

from typing import Any

from ..ir import I64, Emitter, Record, constant

# `bytes` must be a multiple of 8
CLEAR = Record("target", "bytes")


def emit_clear(module: Any) -> str:
    """Add the operation "clear" to `module`; return its name."""
    e = Emitter(module, "clear")
    words, _ = e.arguments
    target, size = e.unpack(CLEAR, words, "target", "bytes")
    with e.loop(size, 0, 8) as at:
        e.store(constant(I64, 0), e.builder.add(target, at), 8)
    e.done()
    return "clear"
