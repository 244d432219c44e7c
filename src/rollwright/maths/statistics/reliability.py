"""How far a judge's probabilities can be trusted: discrimination (AUC), accuracy at a threshold, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.maths.statistics.rates import Interval, wilson_interval

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The cases whose probability lies in [low, high); the last bin takes its upper edge in."""

    low: float
    high: float
    count: int
    mean_probability: float
    """Of the cases in it; 0 for an empty bin."""
    success_rate: Interval | None
    """How many of them were successes; None for an empty bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Counts at a threshold; a case is called a success from the threshold on."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def accuracy(self) -> Interval:
        """Share of verdicts that are right."""
        right = self.true_positives + self.true_negatives
        return wilson_interval(right, right + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> Interval | None:
        """Of those called a success, the share that was one: how clean the successes are that a policy learns from."""
        return _rate(self.true_positives, self.false_positives)

    @property
    def recall(self) -> Interval | None:
        """Of the successes, the share that was called one."""
        return _rate(self.true_positives, self.false_negatives)

    @property
    def specificity(self) -> Interval | None:
        """Of the failures, the share that was called one."""
        return _rate(self.true_negatives, self.false_positives)


def _rate(hits: int, misses: int) -> Interval | None:
    return wilson_interval(hits, hits + misses) if hits + misses else None


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
    """Counts of right and wrong verdicts; labels [N] in {0, 1}, scores [N]."""
    truth, given = _pair(labels, scores)
    called = given >= threshold
    return Confusion(
        true_positives=int((called & truth).sum()),
        false_positives=int((called & ~truth).sum()),
        true_negatives=int((~called & ~truth).sum()),
        false_negatives=int((~called & truth).sum()),
    )


def area_under_curve(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Chance that a success has a higher score than a failure; an equal score counts one half. None with one class.

    Sources: the Mann-Whitney form of the area under the ROC curve.
    """
    truth, given = _pair(labels, scores)
    num_won, num_lost = int(truth.sum()), int((~truth).sum())
    if not num_won or not num_lost:
        return None
    _, place, counts = np.unique(given, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share their mean rank
    # The Mann-Whitney count over the number of pairs, from ranks: no pair is formed.
    return float((ranks[truth].sum() - num_won * (num_won + 1) / 2) / (num_won * num_lost))


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance of the probability from the outcome: 0 is perfect, 0.25 is a constant one half.

    Sources: Brier 1950.
    """
    truth, given = _pair(labels, probabilities, probabilities=True)
    return float(np.mean((given - truth) ** 2))


def calibration_bins(labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1], each with its count, mean probability and success rate.

    Raises:
        ValueError: fewer than one bin, no case, labels that are not 0 and 1, or a probability outside [0, 1].
    """
    truth, given = _pair(labels, probabilities, probabilities=True)
    if num_bins < 1:
        raise ValueError(f"calibration needs 1 bin or more, got {num_bins}: 10 is usual")
    edges = np.arange(1, num_bins) / num_bins  # compared, not multiplied: 0.29 * 100 is 28.999999999999996
    # "right" puts a probability on an edge into the bin above it; 1.0 has no edge and stays in the last bin.
    place = np.searchsorted(edges, given, side="right")
    bins = []
    for number in range(num_bins):
        inside = place == number
        count = int(inside.sum())
        bins.append(
            Bin(
                low=number / num_bins,
                high=(number + 1) / num_bins,
                count=count,
                mean_probability=float(given[inside].mean()) if count else 0.0,
                success_rate=wilson_interval(int(truth[inside].sum()), count) if count else None,
            )
        )
    return bins


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean over cases of |mean probability - success rate| of their bin.

    Sources: arXiv:1706.04599 sec. 2.
    """
    total = sum(bin.count for bin in bins)
    gaps = (bin.count * abs(bin.mean_probability - bin.success_rate.point) for bin in bins if bin.success_rate)
    return sum(gaps) / total


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The score from which on calling a success makes the fewest mistakes, half way to the next lower score.

    Choose it on other cases than those it is judged on. It need not be a score: it may lie 1 beyond the outermost one.
    """
    truth, given = _pair(labels, scores)
    steps = np.unique(given)
    # The outermost edges stand for calling everything, or nothing, a success.
    edges = np.concatenate([[steps[0] - 1.0], (steps[1:] + steps[:-1]) / 2, [steps[-1] + 1.0]])
    order = np.argsort(given, kind="stable")
    below = np.searchsorted(given[order], edges)  # how many scores lie under each edge
    won_below = np.concatenate([[0], np.cumsum(truth[order])])[below]
    # Below the edge the successes are mistakes, from the edge on the failures.
    mistakes = won_below + (len(truth) - below) - (truth.sum() - won_below)
    # Of equally good edges this is the lowest.
    return float(edges[int(np.argmin(mistakes))])


def _pair(labels: ArrayLike, scores: ArrayLike, *, probabilities: bool = False) -> tuple[NDArray[np.bool_], Vector]:
    truth, given = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != given.shape or not truth.size:
        raise ValueError(f"expected as many labels as scores, and one at least; got {truth.shape} and {given.shape}")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(truth.tolist()) - {0.0, 1.0})[:5]}")
    fine = np.isfinite(given) & ((given >= 0) & (given <= 1) if probabilities else True)
    if not fine.all():
        wanted = "probabilities in [0, 1]" if probabilities else "finite scores"
        raise ValueError(f"expected {wanted}, got {given[~fine][:5]}")
    return truth.astype(np.bool_), given
