"""Nested modules without weights: sums, products, tables, pools, and codes on another grid."""

import numpy as np
import torch
from torch.nn import functional

from dqtsim.graph.model import Array
from dqtsim.train import floats, steps
from dqtsim.train.constants import multiplier_and_shift, reals
from dqtsim.train.integer import straight_through
from dqtsim.train.modules.base import Codes, Nested
from dqtsim.train.nested import add_codes
from dqtsim.train.rules import TOP_CODE


class NestedAdd(Nested):
    """Residual add (B5) and its activation."""

    def constants(self, step_a: float, step_b: float) -> tuple[list[int], int]:
        """M_a and M_b, and S."""
        step = self.step().item()
        return multiplier_and_shift([step_a / step, step_b / step], self.name)

    def forward(self, a: Codes, b: Codes) -> Codes:
        """Codes of one shape to codes of that shape."""
        step, zeros = self.step(), (a.zero_point, b.zero_point, self.zero_point)
        codes = add_codes(a.values, b.values, a.step, b.step, step, zeros, self.high())
        if self.exact:
            (m_a, m_b), shift = self.constants(a.step.item(), b.step.item())
            codes = self.exactly(codes, a.centred() * m_a + b.centred() * m_b, 1, shift)
        return Codes(codes, step, self.zero_point)


class NestedMultiply(Nested):
    """Product of two tensors (B10) and its activation; the second may have one value per channel."""

    def constants(self, step_a: float, step_b: float) -> tuple[int, int]:
        """M and S: M * 2^-S ~ step_a * step_b / step."""
        (multiplier,), shift = multiplier_and_shift([step_a * step_b / self.step().item()], self.name)
        return multiplier, shift

    def forward(self, a: Codes, b: Codes) -> Codes:
        """Codes [N, C, H, W] and codes of that shape or [N, C, 1, 1] to codes [N, C, H, W]."""
        codes = self.coded(a.real() * b.real(), a.values.dtype)
        if self.exact:
            codes = self.exactly(codes, a.centred() * b.centred(), *self.constants(a.step.item(), b.step.item()))
        return Codes(codes, self.step(), self.zero_point)


class NestedRescale(Nested):
    """B4 on codes: the same values on another grid, for a separate activation."""

    def forward(self, x: Codes) -> Codes:
        """Codes to codes of the same shape."""
        return Codes(self.rescaled(x), self.step(), self.zero_point)


class NestedConcat(Nested):
    """Every input is brought to the grid of the output (B4) where it is on another, then they are joined."""

    def __init__(self, source: steps.Concat) -> None:
        super().__init__(source)
        self.axis = source.axis

    def forward(self, *parts: Codes) -> Codes:
        """Codes [N, ...] that differ along one axis to codes of all."""
        codes = [part.values if self.same_grid(part) else self.rescaled(part) for part in parts]
        return Codes(torch.cat(codes, self.axis + 1), self.step(), self.zero_point)


class NestedTable(Nested):
    """Any function of one code (B9): a table of its results, one for all channels or one per channel."""

    def __init__(self, source: steps.Table) -> None:
        super().__init__(source)
        # In a list, so that the function's constants are no parameters; they are few, and stay on the CPU.
        self._source = [steps.converted(source, torch.float64)]

    @property
    def per_channel(self) -> bool:
        """Whether there is one table per channel."""
        return self._source[0].per_channel

    def table(self, input_step: float, zero_point: int) -> Array:
        """The results uint8 [256] or [C, 256] for all codes of an input on that grid, computed in float64."""
        codes = torch.arange(TOP_CODE + 1, dtype=torch.float64)
        values = reals(floats.at(self._source[0], (codes - zero_point) * input_step))
        rounded = np.floor(np.nan_to_num(values / self.step().item()) + 0.5) + self.zero_point
        codes_of: Array = np.clip(rounded, 0, TOP_CODE).astype(np.uint8)
        return codes_of

    def forward(self, x: Codes) -> Codes:
        """Codes [N, C, ...] to codes of the same shape; gradient of the function itself."""
        function = steps.converted(self._source[0], torch.float32)
        real = floats.apply(steps.converted(function.function, x.values.device), x.real())
        codes = self.coded(real, x.values.dtype)
        if self.exact:
            codes = straight_through(codes, self._looked_up(x).to(codes.dtype))
        return Codes(codes, self.step(), self.zero_point)

    def _looked_up(self, x: Codes) -> torch.Tensor:
        table = torch.from_numpy(self.table(x.step.item(), x.zero_point)).to(x.values.device)
        index = x.values.detach().to(torch.int64)
        if table.dim() == 1:
            return table[index]
        channel = torch.arange(len(table), device=index.device).reshape(-1, *[1] * (index.dim() - 2))
        return table[channel, index]


class NestedAveragePool(Nested):
    """Average over windows, padded taps being 0, by the number of taps (B6) or by a divisor per position (B6')."""

    divisor: torch.Tensor | None

    def __init__(self, source: steps.AveragePool) -> None:
        super().__init__(source)
        self.kernel, self.stride, self.pads = source.kernel, source.stride, source.pads
        self.register_buffer("divisor", source.divisor, persistent=False)

    def constants(self, input_step: float) -> tuple[int | Array, int]:
        """M, one for all positions or int64 [H', W'], and S."""
        taps = self.kernel[0] * self.kernel[1]
        divisors = [taps] if self.divisor is None else self.divisor.double().flatten().tolist()
        ratio = input_step / self.step().item()
        multipliers, shift = multiplier_and_shift([ratio / divisor for divisor in divisors], self.name)
        if self.divisor is None or len(set(multipliers)) == 1:
            return multipliers[0], shift
        return np.array(multipliers, np.int64).reshape(tuple(self.divisor.shape)), shift

    def forward(self, x: Codes) -> Codes:
        """Codes [N, C, H, W] to codes [N, C, H', W']."""
        mean = self._sums(x.real()) / self._divisors(x.values.device)
        codes = self.coded(mean, x.values.dtype)
        if self.exact:
            sums = self._sums(x.centred().double()).to(torch.int64)
            multiplier, shift = self.constants(x.step.item())
            factor = multiplier if isinstance(multiplier, int) else torch.from_numpy(multiplier).to(sums.device)
            codes = self.exactly(codes, sums * factor, 1, shift)
        return Codes(codes, self.step(), self.zero_point)

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        top, left, bottom, right = self.pads
        padded = functional.pad(values, (left, right, top, bottom)) if any(self.pads) else values
        return functional.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)

    def _divisors(self, device: torch.device) -> torch.Tensor | int:
        return self.kernel[0] * self.kernel[1] if self.divisor is None else self.divisor.to(device)
