"""Statistics of single rates: an interval for a success rate, and pass@k."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    point: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]"


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies strictly between 0 and 1, got {confidence}: 0.95 is usual")


def wilson_interval(num_successes: int, num_trials: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate; never zero wide, and never outside [0, 1].

    It takes the trials as independent: for several episodes of each task use `clustered_bootstrap`.

    Raises:
        ValueError: no trial, or more successes than trials.

    Sources: Wilson 1927.
    """
    check_confidence(confidence)
    if not 0 <= num_successes <= num_trials or num_trials < 1:
        raise ValueError(f"expected 0 <= successes <= trials and a trial, got {num_successes} of {num_trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = num_successes / num_trials
    centre = rate + z * z / (2 * num_trials)
    half = z * math.sqrt(rate * (1 - rate) / num_trials + z * z / (4 * num_trials**2))
    scale = 1 + z * z / num_trials
    # At the borders the formula gives 0 and 1 only up to rounding.
    low = 0.0 if num_successes == 0 else (centre - half) / scale
    high = 1.0 if num_successes == num_trials else (centre + half) / scale
    return Interval(point=rate, low=low, high=high, confidence=confidence)


def effective_wilson(rate: float, num_trials: float, *, quantile: float) -> tuple[float, float]:
    """Wilson's interval for a rate in [0, 1] known as well as by so many independent trials, whole or not.

    Args:
        quantile: of the normal distribution, or of Student's where the number of trials was itself estimated.
    """
    # z^2 / n in the formula of `wilson_interval`.
    k = quantile * quantile / num_trials
    half = math.sqrt(k * rate * (1 - rate) + k * k / 4)
    # Only rounding could leave [0, 1].
    return max(0.0, (rate + k / 2 - half) / (1 + k)), min(1.0, (rate + k / 2 + half) / (1 + k))


# A search for the units that are missing asks for the same quantile at every step.
@lru_cache(maxsize=4096)
def student_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t. `degrees` need not be whole; 1 or more.

    Raises:
        ValueError: a probability outside (0, 1), or fewer than 1 degree of freedom.
    """
    check_confidence(probability)
    if degrees > _NEARLY_NORMAL:
        return NormalDist().inv_cdf(probability)
    angles, beyond = _student_tails(degrees)
    half = min(probability, 1.0 - probability) / 0.5  # of the mass on one side, what lies beyond
    # `np.interp` needs ascending places, and `beyond` falls.
    angle = float(np.interp(half, beyond[::-1], angles[::-1]))
    return math.copysign(math.sqrt(degrees) * math.tan(angle), probability - 0.5)


def student_two_sided(t: float, degrees: float) -> float:
    """The chance that Student's t lies as far from 0 as `t`, on either side: the p-value of a t statistic.

    Raises:
        ValueError: fewer than 1 degree of freedom.
    """
    if degrees > _NEARLY_NORMAL:
        return math.erfc(abs(t) / math.sqrt(2))
    angles, beyond = _student_tails(degrees)
    return float(np.interp(math.atan(abs(t) / math.sqrt(degrees)), angles, beyond))


# The 97.5 % quantile is 1.9602 there, and 1.9600 of the normal distribution.
_NEARLY_NORMAL = 10_000


def _student_tails(degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A grid of angles, and the share of one side's mass beyond each.

    With t = sqrt(degrees) tan(angle) the density is proportional to cos(angle)^(degrees - 1). The sum runs from the far
    end, so that small tails keep their digits.
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs 1 degree of freedom or more, got {degrees}")
    # tan(x) >= x, so the grid reaches t = 12 or more; beyond, there is no mass left where degrees are many.
    angles = np.linspace(0, min(math.pi / 2, 12 / math.sqrt(degrees)), 4_001)
    density = np.cos(angles) ** (degrees - 1)
    # The sums of trapezoids lack a common factor, which the division below takes out.
    beyond = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1])[::-1])])[::-1]
    return angles, beyond / beyond[0]


def pass_at_k(num_trials: int, num_successes: int, *, k: int) -> float:
    """Probability that k of the trials, drawn without replacement, hold a success: 1 - C(n-c, k) / C(n, k).

    Unbiased for the chance that k fresh attempts solve the task.

    Raises:
        ValueError: fewer than k trials, or impossible counts.

    Sources: arXiv:2107.03374.
    """
    if not 0 <= num_successes <= num_trials:
        raise ValueError(f"expected 0 <= successes <= trials, got {num_successes} of {num_trials}")
    if not 1 <= k <= num_trials:
        raise ValueError(f"pass@{k} needs {k} attempts or more at each task, got {num_trials}: sample more, or lower k")
    # Whole numbers stay exact, and C(n - c, k) is 0 where fewer than k attempts failed.
    return 1.0 - math.comb(num_trials - num_successes, k) / math.comb(num_trials, k)
