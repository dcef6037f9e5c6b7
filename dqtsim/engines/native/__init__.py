"""PROGRAM: a plan as native operations, one call for a whole sample.

The plan's nodes become operations of `emit`, their tensors places in one arena that is reused by liveness,
their constants tables in the layout of the kernels. A layer runs natively only if the plan proves that 32 bits hold its
exact sums at all its widths; every other step runs on its fallback kernel, between two native segments. If sums may
leave the accumulator's register, a second operation wraps or clamps them, at the end or after every product, and
counts them; it computes only the channels for which there is no proof at the widths of the run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run.engine import NativeEngine, Ran, native, program_of

__all__ = ["NativeEngine", "Ran", "native", "program_of"]


def __getattr__(name: str) -> Any:
    # imported on demand: asking only for the instruction set needs no plan and no NumPy
    if name in __all__:
        from .run import engine

        return getattr(engine, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
