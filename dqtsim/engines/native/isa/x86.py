"""Shared parts of the instruction sets of x86-64."""

from typing import Any

from llvmlite import ir

from ..ir import Emitter

ARCHITECTURE = ("x86_64",)


def pause(e: Emitter) -> None:
    """Tell the core that it waits."""
    e.call("llvm.x86.sse2.pause", ir.VoidType())


def vpmaddwd(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    """Add the products of two neighbours, int16, to each of eight lanes."""
    return e.builder.add(accumulators, e.call("llvm.x86.avx2.pmadd.wd", accumulators.type, pixels, weights))
