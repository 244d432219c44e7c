"""Intervals of episode scores clustered by task.

Episodes of one task resemble each other. A claim about tasks like these takes the task as the unit: what its episodes
vary by is in the spread of the tasks already, and counting it again would count it twice. A claim about exactly these
tasks (`fixed_tasks`) takes the episodes inside each task as the units. A task's weight does not depend on how many
episodes it got: the estimate is the mean over tasks of a task's statistic.

With `fixed_tasks` the interval is the wider of what tasks whose own episodes came out alike leave open and of what the
others' spread says. (Not the sum: over many tasks the mean spread counts them already.)

The standard error of a mean is exact, the limit of infinitely many bootstrap draws; of another statistic it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.maths.statistics.estimates import ScoreBounds, Vector, error_of_mean, mean_of_these, mean_over_tasks
from rollwright.maths.statistics.rates import Interval, check_confidence

_MOST = 1e100  # squares of what is larger would leave the range of floats
TaskStatistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""[R, n] episode scores of one task -> [R]; must treat rows independently."""


def mean_of_episodes(episodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The task's mean score. [R, n] -> [R]."""
    return np.asarray(episodes.mean(axis=-1))


def task_arrays(scores: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    """The scores of each task as a flat array of floats.

    Raises:
        ValueError: no task, a task without an episode, or a score that is not finite.
    """
    if not scores:
        raise ValueError("no task to evaluate: give at least 2 tasks with their episode scores")
    arrays = {task: np.asarray(episodes, dtype=np.float64) for task, episodes in scores.items()}
    for task, episodes in arrays.items():
        if episodes.ndim != 1 or episodes.size == 0:
            raise ValueError(f"task {task!r} needs a flat, non-empty list of episode scores, got {episodes.shape}")
        # Comparisons with NaN are false, so that one test refuses NaN, infinity and numbers that are too large.
        if not (np.abs(episodes) <= _MOST).all():
            raise ValueError(
                f"task {task!r} has a score that is not finite, or beyond {_MOST:g}: report faulted episodes apart"
            )
    return arrays


def check_units(sizes: Mapping[str, int], *, fixed_tasks: bool, confidence: float) -> None:
    """Raise ValueError where so many episodes per task tell nothing about the spread by construction."""
    check_confidence(confidence)
    if not fixed_tasks and len(sizes) < 2:
        raise ValueError(
            f"one task only ({next(iter(sizes))!r}): nothing tells how much tasks differ. "
            "Evaluate 2 tasks or more, or speak about this task alone (fixed_tasks=True, target 'these')"
        )
    lonely = sorted(task for task, size in sizes.items() if size < 2)
    if fixed_tasks and lonely:
        raise ValueError(
            f"tasks with a single start have zero width when the claim is about these tasks: {', '.join(lonely[:5])}. "
            "Run 2 starts or more of each, or speak about tasks like these (fixed_tasks=False, target 'like-these')"
        )


def clustered_bootstrap(
    scores: Mapping[str, ArrayLike],
    *,
    generator: np.random.Generator,
    fixed_tasks: bool = False,
    statistic: TaskStatistic = mean_of_episodes,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the mean over tasks of a task's statistic.

    Args:
        scores: for each task the scores of its episodes; numbers of episodes may differ. Where all lie in [0, 1] they
            are taken for rates, which cannot leave it.
        generator: the only source of randomness; a mean draws nothing.
        fixed_tasks: False speaks about tasks like these, True about exactly these.
        statistic: [R, n] -> [R], the mean by default.
        repetitions: bootstrap draws for another statistic than the mean.
        confidence: 0.95 for a 95 % interval.

    Returns:
        The interval. Equal scores of an unknown range (all -7, say) give one that excludes nothing.

    Raises:
        ValueError: a case that tells nothing about the spread by construction (one task, or fixed tasks with one
            episode), an empty task, a score or a statistic that is not finite.
    """
    arrays = task_arrays(scores)
    sizes = {task: episodes.size for task, episodes in arrays.items()}
    check_units(sizes, fixed_tasks=fixed_tasks, confidence=confidence)
    if repetitions < 100:
        raise ValueError(f"a bootstrap needs 100 repetitions or more, got {repetitions}: 2,000 is usual")
    # A statistic takes rows, [R, n]; the scores as they are make one row.
    values = np.array([statistic(episodes[None, :])[0] for episodes in arrays.values()])
    if not np.isfinite(values).all():
        raise ValueError(f"the statistic of a task is not finite: {dict(zip(arrays, values.tolist(), strict=True))}")
    if fixed_tasks:
        spreads = [_task_error(episodes, statistic, repetitions, generator) for episodes in arrays.values()]
        estimate = mean_of_these(values, np.array(spreads), np.array(list(sizes.values()), np.float64))
    else:
        estimate = mean_over_tasks(values)
    # The statistic counts for the bounds too: it may leave the range that its scores keep to.
    return estimate.interval(ScoreBounds.of({**arrays, "the statistic": values}), confidence)


def _task_error(episodes: Vector, statistic: TaskStatistic, repetitions: int, generator: np.random.Generator) -> float:
    """Squared standard error of a task's statistic."""
    if statistic is mean_of_episodes:
        return error_of_mean(episodes)
    draws = statistic(episodes[generator.integers(episodes.size, size=(repetitions, episodes.size))])
    # Bootstrap draws vary by (n - 1) / n of the squared standard error.
    # Draws that differ by rounding alone show no spread.
    same = np.ptp(draws) <= 1e-12 * (1 + abs(draws[0]))
    # `check_units` has refused fixed tasks with one episode, so that n - 1 is not 0.
    return 0.0 if same else float(draws.var()) * episodes.size / (episodes.size - 1)
