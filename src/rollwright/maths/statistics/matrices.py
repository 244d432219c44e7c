"""Aggregates over a matrix of scores, runs by tasks, and their stratified bootstrap intervals (arXiv:2108.13264).

Scores are normalised beforehand and higher is better: shape [N runs, M tasks]. All randomness comes from the generator
that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.maths.statistics.rates import Interval, check_confidence

Scores = NDArray[np.float64]


def score_matrix(scores: ArrayLike) -> Scores:
    """The scores as a float matrix [N, M].

    Raises:
        ValueError: not two-dimensional, empty, or a score that is not finite.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"expected a non-empty matrix of runs by tasks, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("scores must be finite: report faulted episodes apart instead of scoring them")
    return matrix


def mean_score(scores: ArrayLike) -> float:
    """Mean over tasks of the per-task means."""
    return float(score_matrix(scores).mean())


def median_score(scores: ArrayLike) -> float:
    """Median over tasks of the per-task means."""
    return float(np.median(score_matrix(scores).mean(axis=0)))


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores: sorted, the lowest and the highest int(n / 4) dropped.

    Takes any shape. With fewer than 8 scores it is nearly a median, so say how many there were.

    Raises:
        ValueError: no score, or one that is not finite.
    """
    # As one row, so that `score_matrix` checks scores of any shape.
    flat = np.sort(score_matrix(np.reshape(np.asarray(scores, dtype=np.float64), (1, -1)))[0])
    # Rounded down, as in rliable.
    cut = int(0.25 * flat.size)
    return float(flat[cut : flat.size - cut].mean())


def optimality_gap(scores: ArrayLike, *, target: float = 1.0) -> float:
    """How far the scores fall short of `target` on average; scores above it do not make up for others."""
    return float(target - np.minimum(score_matrix(scores), target).mean())


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of all scores strictly above each threshold. [N, M], [T] -> [T].

    Raises:
        ValueError: thresholds that are not flat, or one that is not a number: nothing is above it.
    """
    flat, edges = score_matrix(scores).ravel(), np.asarray(thresholds, dtype=np.float64)
    if edges.ndim != 1 or np.isnan(edges).any():
        raise ValueError(f"thresholds are a flat list of numbers, got {edges.tolist()}")
    # Strictly above, as in rliable: a score at the threshold does not count.
    return np.asarray((flat[None, :] > edges[:, None]).mean(axis=1))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Chance that a run of X beats a run of Y on the same task, averaged over tasks; a tie counts one half.

    Args:
        x: [N, M] scores of X.
        y: [K, M] scores of Y on the same tasks.

    Raises:
        ValueError: different numbers of tasks.
    """
    a, b = score_matrix(x), score_matrix(y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"both need the same tasks in the same order, got {a.shape[1]} and {b.shape[1]}")
    # [N, K, M]: each run of X meets each run of Y on the same task.
    wins = (a[:, None, :] > b[None, :, :]) + 0.5 * (a[:, None, :] == b[None, :, :])
    return float(wins.mean())


def percentile_interval(point: float, draws: NDArray[np.float64], confidence: float) -> Interval:
    """The percentile interval of bootstrap draws around a point estimate."""
    # `np.percentile` counts in percent.
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return Interval(point=point, low=float(low), high=float(high), confidence=confidence)


def _check_bootstrap(matrix: Scores, repetitions: int, confidence: float, resample_tasks: bool) -> None:
    check_confidence(confidence)
    if repetitions < 100:
        raise ValueError(f"a percentile interval needs 100 repetitions or more, got {repetitions}: 2,000 is usual")
    if matrix.shape[0] < 2:
        raise ValueError(
            "a stratified bootstrap of one run per task has zero width and means nothing: "
            "give 2 runs (seeds) or more, or use `clustered_bootstrap` over tasks"
        )
    if resample_tasks and matrix.shape[1] < 2:
        raise ValueError("resampling tasks needs 2 tasks or more, got 1: set resample_tasks=False")


def _resample(matrix: Scores, generator: np.random.Generator, resample_tasks: bool) -> Scores:
    """For every task N runs drawn with replacement, independently of the other tasks. [N, M] -> [N, M]."""
    runs, tasks = matrix.shape
    # One draw of tasks serves all runs of a repetition.
    columns = generator.integers(tasks, size=tasks) if resample_tasks else np.arange(tasks)
    # Row numbers are drawn for each task apart: the tasks are the strata.
    return np.asarray(matrix[generator.integers(runs, size=(runs, tasks)), columns])


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Callable[[Scores], float],
    *,
    generator: np.random.Generator,
    repetitions: int = 2000,
    confidence: float = 0.95,
    resample_tasks: bool = False,
) -> Interval:
    """Percentile interval of any statistic of a score matrix, runs resampled within each task.

    Args:
        scores: [N, M].
        statistic: [N, M] -> float, for example `interquartile_mean`.
        generator: the only source of randomness.
        repetitions: 50,000 for published numbers.
        confidence: 0.95 for a 95 % interval.
        resample_tasks: also draw the tasks, for a claim about tasks that were not tried.

    Raises:
        ValueError: one run only (the interval would have zero width), too few repetitions, a score that is not finite.
    """
    matrix = score_matrix(scores)
    _check_bootstrap(matrix, repetitions, confidence, resample_tasks)
    draws = np.array([statistic(_resample(matrix, generator, resample_tasks)) for _ in range(repetitions)])
    return percentile_interval(statistic(matrix), draws, confidence)


def stratified_bootstrap_pair(
    x: ArrayLike,
    y: ArrayLike,
    statistic: Callable[[Scores, Scores], float],
    *,
    generator: np.random.Generator,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The same for a statistic of two matrices, for example `probability_of_improvement`; both resampled independently.

    Raises:
        ValueError: as for `stratified_bootstrap`.
    """
    a, b = score_matrix(x), score_matrix(y)
    for matrix in (a, b):
        _check_bootstrap(matrix, repetitions, confidence, resample_tasks=False)
    draws = [statistic(_resample(a, generator, False), _resample(b, generator, False)) for _ in range(repetitions)]
    return percentile_interval(statistic(a, b), np.array(draws), confidence)


def profile_band(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    generator: np.random.Generator,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge of a performance profile, pointwise. -> [T], [T].

    Raises:
        ValueError: as for `stratified_bootstrap`.
    """
    matrix = score_matrix(scores)
    _check_bootstrap(matrix, repetitions, confidence, resample_tasks=False)
    draws = [performance_profile(_resample(matrix, generator, False), thresholds) for _ in range(repetitions)]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(np.array(draws), [tail, 100.0 - tail], axis=0)
    return low, high
