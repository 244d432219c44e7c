"""Many comparisons at once: adjusted p-values, the exact test of paired outcomes, rank correlation.

Pure functions on plain numbers. m comparisons, declared before anybody looked, are a family; at level alpha with m true
nulls an unadjusted report claims something wrong in 1 - (1 - alpha)^m of all cases.

Sources: Holm 1979; Benjamini and Hochberg 1995; McNemar 1947.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold the chance of any wrong claim, whatever the dependence. For claims.

    Sorted ascending, p_(i) becomes the largest over j <= i of min(1, (m - j + 1) p_(j)).

    Returns:
        In the order given; equal p-values get equal adjusted ones.

    Raises:
        ValueError: no p-value, or one that is not in [0, 1].
    """
    count = len(_checked(p_values))
    order = sorted(range(count), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * count, 0.0
    for place, i in enumerate(order):
        # Without the running maximum a larger p-value could end up with a smaller adjusted one.
        largest = max(largest, min(1.0, (count - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold the expected share of wrong claims. For screening; needs positive dependence or none.

    Sorted ascending, p_(i) becomes the smallest over j >= i of m p_(j) / j.

    Returns:
        In the order given; equal p-values get equal adjusted ones.

    Raises:
        ValueError: no p-value, or one that is not in [0, 1].
    """
    count = len(_checked(p_values))
    order = sorted(range(count), key=lambda i: p_values[i])
    adjusted, smallest = [0.0] * count, 1.0
    # From the largest p-value down, since the minimum runs over all later places.
    for place in range(count, 0, -1):
        i = order[place - 1]
        smallest = min(smallest, count * p_values[i] / place)
        adjusted[i] = smallest
    return adjusted


def _checked(p_values: Sequence[float]) -> Sequence[float]:
    # A comparison that was refused must not be dropped in silence: that would make m smaller than what was declared.
    if not len(p_values):
        raise ValueError("there is no p-value to adjust: give one for each comparison of the family")
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value lies in [0, 1], got {p}: name a comparison that was refused, do not drop it")
    return p_values


def units_needed(num_comparisons: int = 1, *, alpha: float = 0.05) -> int:
    """Smallest number of paired units (tasks) whose sign test can pass Holm's first step.

    A sign test over n units cannot give a p-value below 2 * 0.5^n: at alpha 0.05, m = 1, 5, 10, 20 comparisons need
    6, 8, 9, 10 units.

    Raises:
        ValueError: no comparison, or alpha outside (0, 1).
    """
    if num_comparisons < 1 or not 0 < alpha < 1:
        raise ValueError(f"expected a comparison or more and 0 < alpha < 1, got {num_comparisons} and {alpha}")
    # 1 - confidence is rounded, and a whole result may come out a little above itself: hence the slack.
    return math.ceil(math.log2(2 * num_comparisons / alpha) - 1e-9)


def mcnemar_exact(num_first_only: int, num_second_only: int) -> float:
    """Two-sided exact p-value of paired yes/no outcomes; pairs that agree carry no information.

    Args:
        num_first_only: pairs that only the first solved.
        num_second_only: pairs that only the second solved.

    Raises:
        ValueError: a negative count.
    """
    if min(num_first_only, num_second_only) < 0:
        raise ValueError(f"counts of pairs are 0 or more, got {num_first_only} and {num_second_only}")
    count = num_first_only + num_second_only
    # Both tails of a fair coin are twice this one, hence 2^(count - 1) below; with equal counts that exceeds 1.
    tail = sum(math.comb(count, k) for k in range(min(num_first_only, num_second_only) + 1))
    # Whole numbers until the last division: 2^count would overflow a float from 1,024 pairs on.
    return min(1.0, tail / 2 ** (count - 1)) if count else 1.0


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation in [-1, 1]; ties get the mean of their ranks. NaN where either side is constant.

    Raises:
        ValueError: unequal lengths, fewer than two pairs, or a number that is not finite.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2:
        raise ValueError(f"expected two flat lists of equal length, two or more, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a rank correlation needs finite numbers: leave out pairs without a value")
    ranks_a, ranks_b = _mean_ranks(a), _mean_ranks(b)
    # The ranks have mean 0, so this product over the norms is the correlation.
    spread = float(np.linalg.norm(ranks_a) * np.linalg.norm(ranks_b))
    return float(ranks_a @ ranks_b) / spread if spread else math.nan


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks around their mean. [n] -> [n]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The last rank of equal values minus half of the others is their mean rank.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[inverse] - (len(values) + 1) / 2)
