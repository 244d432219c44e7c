"""Rates, correlations and shares of the audit. Pure functions on numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist

from rollwright.maths.statistics import Interval, effective_wilson, spearman, wilson_interval

# Two-sided 95 %: 2.5 % in each tail.
_Z95 = NormalDist().inv_cdf(0.975)


def clustered_rate(hits: Iterable[tuple[Hashable, bool]]) -> Interval:
    """Wilson's 95 % interval of a rate; episodes of one cluster count for less where clusters differ.

    The spread between clusters gives a design effect, and Wilson's interval is taken at `n / effect` trials. Clusters
    that all agree show no spread: the interval is then that of independent episodes.

    Args:
        hits: for each episode its cluster (a task or a template) and whether it counts.

    Raises:
        ValueError: there is no episode.

    Sources: Kish 1965 (design effect); Wilson 1927.
    """
    clusters: dict[Hashable, list[bool]] = {}
    for cluster, hit in hits:
        clusters.setdefault(cluster, []).append(hit)
    num_trials = sum(map(len, clusters.values()))
    num_hits = sum(sum(own) for own in clusters.values())
    plain = wilson_interval(num_hits, num_trials)
    # One cluster shows no spread, clusters of one episode are independent, and a rate of 0 or 1 has no variance.
    if len(clusters) in (1, num_trials) or num_hits in (0, num_trials):
        return plain
    rate, count = num_hits / num_trials, len(clusters)
    # The residual of each cluster against the pooled rate; clusters may be of unlike size.
    spread = math.fsum((sum(own) - rate * len(own)) ** 2 for own in clusters.values())
    # Of the ratio estimator, with the small-sample factor count / (count - 1).
    variance = spread / num_trials**2 * count / (count - 1)
    # Never more trials than episodes: clusters that happen to agree must not narrow the interval.
    trials = min(num_trials, rate * (1 - rate) / variance) if variance else num_trials
    # At least one trial, since Wilson's formula divides by their number.
    low, high = effective_wilson(rate, max(1.0, trials), quantile=_Z95)
    return Interval(point=rate, low=low, high=high, confidence=0.95)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's correlation of two lists; None where one side is constant or there are fewer than 3 pairs."""
    # A constant side has no ranks to correlate: the formula would divide by zero.
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return spearman(x, y)


def informative_share(rates: Sequence[float], group_size: int) -> float:
    """Expected share of groups with both results: the mean over tasks of 1 - p^K - (1 - p)^K."""
    if not rates:
        raise ValueError("no task: give the success rate of at least one")
    return math.fsum(1 - p**group_size - (1 - p) ** group_size for p in rates) / len(rates)
