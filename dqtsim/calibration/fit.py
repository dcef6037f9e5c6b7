"""One row of (B, M, S): t ~ factor * A + constant in every output channel.

A is the layer's accumulator at the new pair of widths, aligned to steps of the master widths (B2, B2'), on the inputs
that the network has at that pair. The target t is M * 2^-S * (A + B) at the reference pair: the real output in codes,
less the zero point, before rounding and clip (B4). Logits have no factor (B7): t is A + B there.

The constant gives the outputs the mean of t. Least squares would make noisy outputs smaller than t, the more the
narrower the widths, and so layer after layer; a factor that gives them the variance of t would make all of the noise
count. The factor is the geometric mean of both.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from ..graph.constants import BIAS_LIMIT, Reals, requantizing
from ..graph.model import Array

# a fitted factor is at most this much greater or smaller than the reference's: accumulators of all widths are in the
# same steps, so a factor further off fits noise, in a channel that carries nothing at this width
_REACH = 2.0
# the least share of a channel's mean square that must be variance; below it there is no slope to fit
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True)
class Row:
    """The constants of every output channel, int64 (O) each; logits have no multiplier and no shift."""

    bias: Array
    multiplier: Array | None = None
    shift: Array | None = None

    @property
    def factor(self) -> Reals:
        """Return M * 2^-S, float64 (O); 1 for logits."""
        if self.multiplier is None or self.shift is None:
            return np.ones(len(self.bias))
        return _factor(self.multiplier, self.shift)

    def targets(self, aligned: Array) -> Reals:
        """Return the real outputs of accumulators int64 (O, positions), in codes less the zero point."""
        held = np.clip(self.bias, -BIAS_LIMIT, BIAS_LIMIT - 1)
        targets: Reals = self.factor[:, None] * (aligned + held[:, None])
        return targets


@dataclass(frozen=True)
class Moments:
    """Sums per channel, float64 (O) each, of accumulators a and targets t over `count` positions."""

    count: int
    a: Reals
    t: Reals
    aa: Reals
    at: Reals
    tt: Reals

    @classmethod
    def of(cls, aligned: Array, targets: Reals) -> "Moments":
        """Return the sums of accumulators and targets (O, positions)."""
        a, t = aligned.astype(np.float64), targets
        products = (np.einsum("cp,cp->c", one, other) for one, other in ((a, a), (a, t), (t, t)))
        return cls(a.shape[1], a.sum(1), t.sum(1), *products)

    def __add__(self, other: "Moments") -> "Moments":
        """Return the sums of both."""
        return Moments(
            self.count + other.count,
            self.a + other.a,
            self.t + other.t,
            self.aa + other.aa,
            self.at + other.at,
            self.tt + other.tt,
        )

    def line(self, plain: Reals, *, fixed: bool) -> tuple[Reals, Reals]:
        """Return factor and constant; the factor is near `plain`, or is that if it is `fixed`."""
        a, t, aa, at, tt = (total / self.count for total in (self.a, self.t, self.aa, self.at, self.tt))
        factor = plain
        if not fixed:
            variance, joint, wanted = aa - a * a, at - a * t, np.maximum(tt - t * t, 0)
            sound = (variance > _LEAST_VARIANCE * aa) & (joint > 0)
            variance, joint = np.where(sound, variance, 1), np.where(sound, joint, 0)
            factor = np.where(sound, np.sqrt(joint / variance * np.sqrt(wanted / variance)), plain)
            factor = np.clip(factor, plain / _REACH, plain * _REACH)
        return factor, t - factor * a

    def error(self, factor: Reals, constant: Reals) -> Reals:
        """Return the sums of squared errors of factor * a + constant, float64 (O)."""
        squares = factor**2 * self.aa + self.count * constant**2 + self.tt
        found: Reals = squares + 2 * (factor * constant * self.a - factor * self.at - constant * self.t)
        return found

    def least_error(self, reference: Row) -> float:
        """Return the sum of squared errors of all channels after the best row."""
        return float(self.error(*self.line(reference.factor, fixed=reference.multiplier is None)).sum())


def fit(moments: Moments, reference: Row, where: str) -> Row:
    """Return the row that the sums ask for. Raises ModelError, naming `where`, for a bias past 32 bits.

    A channel whose factor is 0 in the reference, or whose bias would not fit beside the fitted factor, keeps the
    reference's factor.
    """
    if reference.multiplier is None or reference.shift is None:
        return Row(_rounded(moments.line(reference.factor, fixed=True)[1], where))
    alive = reference.multiplier > 0
    plain = np.where(alive, reference.factor, 1)
    factor, _ = moments.line(plain, fixed=False)
    multiplier, shift = requantizing(factor, where)
    bias = _bias(moments, multiplier, shift)
    kept = ~alive | (multiplier == 0) | ~_fits(bias)
    multiplier, shift = np.where(kept, reference.multiplier, multiplier), np.where(kept, reference.shift, shift)
    bias = np.where(kept, _bias(moments, multiplier, shift), bias)
    return Row(_rounded(np.where(alive, bias, reference.bias), where), multiplier, shift)


def _bias(moments: Moments, multiplier: Array, shift: Array) -> Reals:
    """Return B of factors as they are written: the constant refers to these."""
    factor = _factor(multiplier, shift)
    alive = np.where(factor > 0, factor, 1)
    found: Reals = (moments.t / alive - moments.a) / moments.count
    return found


def _factor(multiplier: Array, shift: Array) -> Reals:
    factor: Reals = np.ldexp(multiplier.astype(np.float64), -shift)
    return factor


def _fits(bias: Reals) -> Array:
    return np.asarray(np.abs(bias) < BIAS_LIMIT - 1)


def _rounded(bias: Reals, where: str) -> Array:
    """Return B3's integers, ties up."""
    outside = np.flatnonzero(~_fits(bias))
    if outside.size:
        channel = int(outside[0])
        raise ModelError(
            f"a bias has 32 bits; output channel {channel} of layer '{where}' would need {bias[channel]:.4g}."
        )
    return np.floor(bias + 0.5).astype(np.int64)
