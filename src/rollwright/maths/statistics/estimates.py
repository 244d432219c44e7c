"""A mean over tasks with its standard error, and the interval and the p-value that follow from the two.

The interval takes Student's quantile, since few units tell their own spread badly, and for scores between known bounds
Wilson's form with as many trials as would have this standard error. Equal results tell no spread at all: there the
interval reaches as far as Wilson's does when all trials came out alike. The p-value inverts the interval: it is 1 minus
the largest confidence whose interval leaves out 0, so that the two never disagree.

Sources: Korn and Graubard 1998 (effective trials); Satterthwaite 1946 (degrees of freedom); Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rollwright.maths.statistics.rates import (
    Interval,
    effective_wilson,
    student_quantile,
    student_two_sided,
    wilson_interval,
)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBounds:
    """The range of a score. `known`: none can lie outside; otherwise it is what was seen."""

    low: float
    high: float
    known: bool

    @classmethod
    def of(cls, arrays: Mapping[str, Vector]) -> ScoreBounds:
        """The unit range where all scores lie in it, otherwise what was seen."""
        low, high = min(a.min() for a in arrays.values()), max(a.max() for a in arrays.values())
        if low >= 0 and high <= 1:
            return cls(low=0.0, high=1.0, known=True)
        # One value shows no range, and infinite bounds exclude nothing.
        if low == high:
            return cls(low=-math.inf, high=math.inf, known=False)
        return cls(low=float(low), high=float(high), known=False)

    def of_differences(self) -> ScoreBounds:
        """The range of the difference of two such scores."""
        return ScoreBounds(low=self.low - self.high, high=self.high - self.low, known=self.known)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeUnits:
    """Units that all came out at one value, and the share of the estimate that they make up."""

    value: float
    share: float
    num_units: int

    def reach(self, edge: float, confidence: float) -> float:
        """How far the estimate would move if as many of them lay at the edge as Wilson's interval leaves room for."""
        # 1 minus Wilson's lower edge for n of n bounds the share that another outcome may have.
        odd = 1.0 - wilson_interval(self.num_units, self.num_units, confidence=confidence).low
        return self.share * odd * abs(edge - self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """A mean, its squared standard error by what varies, the degrees of freedom behind that, and what does not vary."""

    point: float
    variance: float
    degrees: float
    alike: tuple[AlikeUnits, ...] = ()

    def widened(self, factor: float) -> MeanEstimate:
        """The same with the squared standard error times `factor`."""
        return replace(self, variance=self.variance * factor)

    def interval(self, bounds: ScoreBounds, confidence: float) -> Interval:
        """The confidence interval of the mean."""
        low, high = self._edges_by_spread(bounds, confidence) if self.variance > 0 else (self.point, self.point)
        # Groups of alike units are independent, so their reaches combine by the root of squares, as errors do.
        down, up = (math.hypot(*(a.reach(edge, confidence) for a in self.alike)) for edge in (bounds.low, bounds.high))
        # The wider of the two counts, not their sum: over many tasks the spread counts the alike ones already.
        low, high = min(low, self.point - down), max(high, self.point + up)
        return Interval(point=self.point, low=low, high=high, confidence=confidence)

    def p_value(self, bounds: ScoreBounds) -> float:
        """Two-sided, for a mean of 0: 1 minus the largest confidence at which the interval leaves out 0."""
        # Without a spread, only the units that came out alike can reach 0.
        by_spread = student_two_sided(self._distance(bounds), self.degrees) if self.variance > 0 else 0.0
        # The interval is the wider of two, so its p-value is the larger of two.
        return max(by_spread, self._p_of_alike(bounds))

    def _distance(self, bounds: ScoreBounds) -> float:
        """From 0, in standard errors as Wilson's form counts them: at the value that is tested."""
        width = bounds.high - bounds.low
        rate = (self.point - bounds.low) / width
        # At a rate of 0 or 1 the effective trials would be 0.
        if not (bounds.known and 0 < rate < 1):
            return abs(self.point) / math.sqrt(self.variance)
        # 0 on the scale of the bounds, which is one half for a difference of two rates.
        zero = -bounds.low / width
        trials = rate * (1 - rate) * width * width / self.variance
        # Wilson's test takes the spread at the value that is tested, not at the estimate.
        return abs(rate - zero) * math.sqrt(trials / (zero * (1 - zero))) if 0 < zero < 1 else math.inf

    def _p_of_alike(self, bounds: ScoreBounds) -> float:
        """The largest p-value at which what came out alike still reaches 0; by halving, it falls with the reach."""
        edge = bounds.low if self.point > 0 else bounds.high
        if self.point == 0:
            return 1.0
        if not self.alike:
            return 0.0
        low, high = 0.0, 1.0
        # 50 halvings of [0, 1] end at about 1e-15.
        for _ in range(50):
            middle = (low + high) / 2
            reach = math.hypot(*(one.reach(edge, 1.0 - middle) for one in self.alike))
            low, high = (middle, high) if reach >= abs(self.point) else (low, middle)
        # The upper end: what the halving leaves open must not make a claim stronger.
        return high

    def _edges_by_spread(self, bounds: ScoreBounds, confidence: float) -> tuple[float, float]:
        quantile = student_quantile(0.5 + confidence / 2, self.degrees)
        width = bounds.high - bounds.low
        rate = (self.point - bounds.low) / width
        if not (bounds.known and 0 < rate < 1):
            half = quantile * math.sqrt(self.variance)
            return self.point - half, self.point + half
        trials = rate * (1 - rate) * width * width / self.variance
        low, high = effective_wilson(rate, trials, quantile=quantile)
        return bounds.low + width * low, bounds.low + width * high


def mean_over_tasks(values: Vector, variance: float | None = None) -> MeanEstimate:
    """The mean of one value per task where the tasks stand for others like them.

    Args:
        values: [M].
        variance: squared standard error of the mean; None takes the one of the values' own spread.
    """
    count = len(values)
    # Values that differ by rounding alone count as alike.
    point, alike = float(values.mean()), bool(np.ptp(values) <= 1e-12 * (1 + abs(values[0])))
    if variance is None:
        variance = float(values.var(ddof=1)) / count
    same = (AlikeUnits(value=point, share=1.0, num_units=count),) if alike else ()
    return MeanEstimate(point=point, variance=0.0 if alike else variance, degrees=count - 1, alike=same)


def mean_of_these(values: Vector, variances: Vector, sizes: Vector) -> MeanEstimate:
    """The mean of one value per task, each with a squared standard error of its own from `sizes` episodes. All [M].

    Tasks that came out alike at one value count as so many times their smallest number of episodes: however the tasks'
    rates differ, all of these alike are at most as likely as with one common rate.
    """
    total = float(variances.sum())
    # The squared error of a task whose episodes came out alike is exactly 0, so `==` finds them all.
    still = variances == 0
    alike = []
    for value in np.unique(values[still]):
        of = still & (values == value)
        num_units = int(of.sum() * sizes[of].min())
        alike.append(AlikeUnits(value=float(value), share=float(of.mean()), num_units=num_units))
    return MeanEstimate(
        point=float(values.mean()),
        # Tasks are independent: variances add, and the mean over M tasks divides by M^2.
        variance=total / len(values) ** 2,
        # Satterthwaite: each task's variance rests on n - 1 degrees of freedom.
        degrees=total**2 / float((variances**2 / (sizes - 1)).sum()) if total else 1.0,
        alike=tuple(alike),
    )


def error_of_mean(episodes: Vector) -> float:
    """Squared standard error of the mean of independent episodes; 0 where all are alike. [n] -> float, n >= 2."""
    if np.ptp(episodes) <= 1e-12 * (1 + abs(episodes[0])):
        return 0.0
    return float(episodes.var(ddof=1)) / episodes.size
