"""Integer-exact mode: forward values are those of the exported model, gradients those of fake quantization.

In this mode a layer rounds its constants as export does and computes codes from accumulators in int64. It shares no
arithmetic with `exact.py`, which runs the exported file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dqtsim.graph.model import Array


class IntegerExact:
    """A module with an integer-exact mode, in which it computes as the exported model does; see `set_exact`."""

    exact = False


def set_exact(module: nn.Module, exact: bool) -> None:
    """Set whether `module`, a nested network or a controller, computes as its exported model does, bit for bit.

    In this mode batch norm uses running statistics in training, too; convolutions run in float32, or in float64 where
    sums may pass 2^24; and logits are float64, the integers times their scale. A policy that mixes branches stays a
    mixture.
    """
    for part in module.modules():
        if isinstance(part, IntegerExact):
            part.exact = exact


@contextmanager
def integer_exact(*modules: nn.Module) -> Iterator[None]:
    """Set `modules` exact for a while."""
    parts = [part for module in modules for part in module.modules() if isinstance(part, IntegerExact)]
    before = [part.exact for part in parts]
    try:
        for module in modules:
            set_exact(module, True)
        yield
    finally:
        for part, exact in zip(parts, before, strict=True):
            part.exact = exact


@dataclass(frozen=True)
class Requantizer:
    """B3 and B4 of one row of a layer: bias, multiplier and shift int64 [C]; codes are from 0 to `high`."""

    bias: torch.Tensor
    multiplier: torch.Tensor
    shift: torch.Tensor
    zero_point: int
    high: int

    @staticmethod
    def of(tables: Sequence[Array], zero_point: int, high: int, device: torch.device) -> "Requantizer":
        """From NumPy tables B, M, S."""
        bias, multiplier, shift = (torch.from_numpy(table).to(device) for table in tables)
        return Requantizer(bias, multiplier, shift, zero_point, high)

    def codes(self, sums: torch.Tensor) -> torch.Tensor:
        """Codes int64 of aligned accumulators [N, C, ...], integers or halves in a float dtype."""
        # CENTROID takes a half off every operand (B2').
        sums = sums.floor()
        bias, multiplier, shift = (
            table.reshape(-1, *([1] * (sums.dim() - 2))) for table in (self.bias, self.multiplier, self.shift)
        )
        return rescale((sums.to(torch.int64) + bias) * multiplier, shift, self.zero_point, self.high)


def rescale(products: torch.Tensor, shift: torch.Tensor | int, zero_point: int, high: int) -> torch.Tensor:
    """The end of B4 to B6: int64 products / 2^shift, ties up, moved to the zero point and clipped to 0 to `high`."""
    half = (1 << shift) >> 1
    return ((products + half) >> shift).add_(zero_point).clamp_(0, high)


def exact_dtype(operand: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    """The dtype in which sums of operand [N, ...] times weight [O, ...] are exact, in any order of additions.

    On other devices than the CPU this is float64: there float32 may use fewer bits, or products of sums.
    """
    heaviest = weight.detach().abs().flatten(1).sum(1, dtype=torch.float64).max()
    largest = float(heaviest) * float(operand.detach().abs().max())
    # Weights may have halves (CENTROID).
    whole = bool((weight == weight.floor()).all())
    return torch.float32 if largest < (2**24 if whole else 2**23) and operand.device.type == "cpu" else torch.float64


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        ctx.dtype = values.dtype
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0].to(ctx.dtype), None


def straight_through(values: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """`exact`, whose gradient goes to `values` of the same shape."""
    result: torch.Tensor = _StraightThrough.apply(values, exact)  # type: ignore[no-untyped-call]
    return result
