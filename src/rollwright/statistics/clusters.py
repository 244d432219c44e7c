"""Bootstrap of episode scores clustered by task, and the paired verdict between two policies.

Episodes of one task resemble each other, so the task is the unit that is resampled; then episodes within it. With
`fixed_tasks` the tasks stay and only episodes are resampled: a claim about these tasks, not about tasks like them.
A task's weight does not depend on how many episodes it got: the estimate is the mean over tasks of a task's statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.statistics.matrices import percentile_interval
from rollwright.statistics.rates import Interval, check_confidence

Vector = NDArray[np.float64]
TaskStatistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""[R, n] episode scores of one task -> [R]; must treat rows independently."""


def mean_of_episodes(episodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The task's mean score. [R, n] -> [R]."""
    return np.asarray(episodes.mean(axis=-1))


def _task_arrays(scores: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    if not scores:
        raise ValueError("no task to evaluate: give at least 2 tasks with their episode scores")
    arrays = {task: np.asarray(episodes, dtype=np.float64) for task, episodes in scores.items()}
    for task, episodes in arrays.items():
        if episodes.ndim != 1 or episodes.size == 0:
            raise ValueError(f"task {task!r} needs a flat, non-empty list of episode scores, got {episodes.shape}")
        if not np.isfinite(episodes).all():
            raise ValueError(f"task {task!r} has a score that is not finite: report faulted episodes apart")
    return arrays


def _check_width(sizes: Mapping[str, int], *, fixed_tasks: bool, repetitions: int, confidence: float) -> None:
    check_confidence(confidence)
    if repetitions < 100:
        raise ValueError(f"a percentile interval needs 100 repetitions or more, got {repetitions}: 2,000 is usual")
    if not fixed_tasks and len(sizes) < 2:
        raise ValueError(
            f"one task only ({next(iter(sizes))!r}): its interval over tasks would have zero width. "
            "Evaluate 2 tasks or more, or set fixed_tasks=True to speak about this task alone"
        )
    lonely = sorted(task for task, size in sizes.items() if size < 2)
    if fixed_tasks and lonely:
        raise ValueError(
            f"tasks with a single episode have zero width when tasks are fixed: {', '.join(lonely[:5])}. "
            "Run 2 episodes or more of each, or set fixed_tasks=False"
        )


def _sum_over_tasks(
    draw_task: Callable[[str, int], Vector],
    tasks: list[str],
    *,
    generator: np.random.Generator,
    repetitions: int,
    fixed_tasks: bool,
) -> Vector:
    """Bootstrap draws of the mean over tasks. Each time a task is drawn, its episodes are drawn afresh. -> [R]."""
    if fixed_tasks:
        return np.asarray(np.mean([draw_task(task, repetitions) for task in tasks], axis=0))
    picks = generator.multinomial(len(tasks), np.full(len(tasks), 1 / len(tasks)), size=repetitions)
    totals = np.zeros(repetitions)
    for column, task in enumerate(tasks):
        owner = np.repeat(np.arange(repetitions), picks[:, column])
        totals += np.bincount(owner, weights=draw_task(task, owner.size), minlength=repetitions)
    return totals / len(tasks)


def _draws_of(episodes: Vector, count: int, statistic: TaskStatistic, generator: np.random.Generator) -> Vector:
    """The task's statistic on `count` resamples of its episodes. -> [count]."""
    return statistic(episodes[generator.integers(episodes.size, size=(count, episodes.size))])


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
        scores: for each task the scores of its episodes; numbers of episodes may differ.
        generator: the only source of randomness.
        fixed_tasks: False speaks about tasks like these, True about exactly these.
        statistic: [R, n] -> [R], the mean by default.
        repetitions: bootstrap draws.
        confidence: 0.95 for a 95 % interval.

    Raises:
        ValueError: a case whose interval would have zero width by construction (one task, or fixed tasks with one
            episode), an empty task, a score that is not finite.
    """
    arrays = _task_arrays(scores)
    sizes = {task: episodes.size for task, episodes in arrays.items()}
    _check_width(sizes, fixed_tasks=fixed_tasks, repetitions=repetitions, confidence=confidence)
    point = float(np.mean([statistic(episodes[None, :])[0] for episodes in arrays.values()]))
    draws = _sum_over_tasks(
        lambda task, count: _draws_of(arrays[task], count, statistic, generator),
        list(arrays),
        generator=generator,
        repetitions=repetitions,
        fixed_tasks=fixed_tasks,
    )
    return percentile_interval(point, draws, confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much better B is than A on the same tasks."""

    name_a: str
    name_b: str
    interval: Interval
    """Of score B minus score A."""
    num_tasks: int
    num_episodes: int
    """Of B, over all tasks."""
    fixed_tasks: bool
    num_units: int
    """Independent units behind the interval: tasks, or episodes where the tasks are fixed."""

    @property
    def enough_units(self) -> bool:
        """Whether an exact sign test over so many units could reach this confidence at all (6 for 95 %)."""
        return 2.0 * 0.5**self.num_units <= 1.0 - self.interval.confidence

    @property
    def decided(self) -> bool:
        """The interval excludes 0, and there are enough units to believe an interval."""
        return self.enough_units and (self.interval.low > 0 or self.interval.high < 0)

    @property
    def more_units_needed(self) -> int | None:
        """Further tasks (or, with fixed tasks, episodes per task) that would decide; None if decided or no difference.

        The interval shrinks with the square root of their number; the difference is taken to stay as it is.
        """
        gap = abs(self.interval.point)
        if self.decided or gap == 0:
            return None
        edge = self.interval.low if self.interval.point > 0 else self.interval.high
        have = self.num_tasks if not self.fixed_tasks else max(1, self.num_episodes // self.num_tasks)
        by_width = math.ceil(have * (abs(self.interval.point - edge) / gap) ** 2 + 1e-9) - have
        smallest = math.ceil(math.log2(2.0 / (1.0 - self.interval.confidence)) - 1e-9)
        by_count = (
            smallest - self.num_units if not self.fixed_tasks else -(-(smallest - self.num_units) // self.num_tasks)
        )
        return max(1, by_width, by_count)

    def verdict(self) -> str:
        """One sentence for a report, for example 'B is better than A: +0.11 [0.06, 0.16]'."""
        i = self.interval
        numbers = f"{i.point:+.2f} [{i.low:.2f}, {i.high:.2f}]"
        if self.decided and i.point > 0:
            return f"{self.name_b} is better than {self.name_a}: {numbers}"
        if self.decided:
            return f"{self.name_a} is better than {self.name_b}: {-i.point:+.2f} [{-i.high:.2f}, {-i.low:.2f}]"
        more = self.more_units_needed
        if more is None:
            return f"cannot tell {self.name_b} from {self.name_a}: {numbers}, no difference was seen"
        unit = "episodes per task" if self.fixed_tasks else "tasks"
        return f"cannot tell {self.name_b} from {self.name_a}: {numbers}, about {more} more {unit} would"


def _paired_draws(a: Vector, b: Vector, count: int, paired: bool, generator: np.random.Generator) -> Vector:
    """Resampled mean differences of one task. -> [count]."""
    if paired:
        return _draws_of(b - a, count, mean_of_episodes, generator)
    drawn_b = _draws_of(b, count, mean_of_episodes, generator)
    return drawn_b - _draws_of(a, count, mean_of_episodes, generator)


def paired_difference(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    generator: np.random.Generator,
    pair_episodes: bool,
    fixed_tasks: bool = False,
    name_a: str = "A",
    name_b: str = "B",
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> PairedDifference:
    """Mean score of B minus that of A over the same tasks, with an interval clustered by task.

    Args:
        a: for each task the scores of A's episodes.
        b: the same for B, on the same tasks.
        generator: the only source of randomness.
        pair_episodes: the i-th episodes of both had the same seed, so their difference is resampled as one.
        fixed_tasks: False speaks about tasks like these, True about exactly these.
        name_a: for the verdict.
        name_b: for the verdict.
        repetitions: bootstrap draws.
        confidence: 0.95 for a 95 % interval.

    Raises:
        ValueError: different tasks, unequal numbers of paired episodes, or a case whose width would be zero by
            construction (see `clustered_bootstrap`).
    """
    first, second = _task_arrays(a), _task_arrays(b)
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))
        raise ValueError(f"{name_a} and {name_b} must have the same tasks; only one of them has: {', '.join(odd[:5])}")
    for task in first:
        if pair_episodes and first[task].size != second[task].size:
            raise ValueError(
                f"task {task!r} has {first[task].size} and {second[task].size} episodes, so they cannot be paired: "
                "keep the seeds that both finished, or set pair_episodes=False"
            )
    sizes = {task: min(first[task].size, second[task].size) for task in first}
    _check_width(sizes, fixed_tasks=fixed_tasks, repetitions=repetitions, confidence=confidence)
    draws = _sum_over_tasks(
        lambda task, count: _paired_draws(first[task], second[task], count, pair_episodes, generator),
        list(first),
        generator=generator,
        repetitions=repetitions,
        fixed_tasks=fixed_tasks,
    )
    point = float(np.mean([second[task].mean() - first[task].mean() for task in first]))
    return PairedDifference(
        name_a=name_a,
        name_b=name_b,
        interval=percentile_interval(point, draws, confidence),
        num_tasks=len(first),
        num_episodes=sum(episodes.size for episodes in second.values()),
        fixed_tasks=fixed_tasks,
        num_units=sum(sizes.values()) if fixed_tasks else len(first),
    )
