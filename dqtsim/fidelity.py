"""How near integers are to what they stand for: signal to noise of tensors, and agreement of classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .engines.result import Result
from .graph.model import Array, Graph, Quantization, Widths
from .graph.results import meaning, results

Real = npt.NDArray[np.float64]


def real(codes: Array, means: Quantization) -> Real:
    """Return the real values that `codes` (1, C, ...) stand for, float64: scale * (q - zero point)."""
    scale = np.array(means.scale, np.float64)
    if scale.size > 1:
        scale = scale.reshape(-1, *([1] * (codes.ndim - 2)))
    return np.asarray((codes.astype(np.float64) - means.zero_point) * scale)


@dataclass
class SignalToNoise:
    """Sums of squares: `signal` of reference values, `noise` of the differences from them."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, found: npt.ArrayLike, reference: npt.ArrayLike) -> None:
        """Count values beside their reference; both have as many elements, in the same order."""
        wanted = np.asarray(reference, np.float64).reshape(-1)
        differences = np.asarray(found, np.float64).reshape(-1) - wanted
        self.signal += float(np.dot(wanted, wanted))
        self.noise += float(np.dot(differences, differences))

    @property
    def decibel(self) -> float:
        """10 log10(signal / noise): inf if nothing differs, else -inf if the reference is 0 everywhere."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


class Fidelity:
    """The results of many pictures at one setting of widths, beside reference outputs.

    `agree` counts the pictures whose class is the reference's; `each` has the outputs whose real values are known.
    """

    def __init__(self, widths: Widths, graph: Graph) -> None:
        self.widths = widths
        self.pictures = self.agree = 0
        self.classifies = False
        self._values = [(value.name, meaning(graph, value.name)) for value in results(graph)]
        self.each = {name: SignalToNoise() for name, means in self._values if means is not None}

    def add(self, result: Result, expected: Sequence[Array]) -> None:
        """Count one picture, whose reference outputs are `expected`, real values in the graph's order."""
        self.pictures += 1
        for (name, means), reference in zip(self._values, expected, strict=True):
            if name == result.scores:
                self.classifies = True
                self.agree += result.class_index == int(np.argmax(reference))
            if means is not None:
                self.each[name].add(real(result.outputs[name], means), reference)

    @property
    def ratio(self) -> SignalToNoise:
        """Signal to noise over all known outputs."""
        known = self.each.values()
        return SignalToNoise(sum(one.signal for one in known), sum(one.noise for one in known))

    @property
    def decibel(self) -> float | None:
        """`ratio` in decibels; None where no output's real values are known."""
        return self.ratio.decibel if self.each else None
