"""Intervals of episode scores clustered by task, and the paired verdict between two policies.

Episodes of one task resemble each other, so the task is the unit that is resampled, whole: what its episodes vary by
is in the spread of the tasks already, and drawing them again would count it twice. With `fixed_tasks` the tasks stay
and only episodes are resampled: a claim about these tasks, not about tasks like them. A task's weight does not depend
on how many episodes it got: the estimate is the mean over tasks of a task's statistic.

The draws give the standard error; the interval takes Student's quantile, since few units tell their own spread badly,
and for scores between known bounds Wilson's form with as many trials as would have this standard error. Equal results
tell no spread at all: there the interval reaches as far as Wilson's does when all trials came out alike. With
`fixed_tasks` that goes for the tasks whose own episodes came out alike too: the interval is the wider of what they
leave open and of what the others' spread says. (Not the sum: over many tasks the mean spread counts them already.)

Sources: Korn and Graubard 1998 (effective trials); Satterthwaite 1946 (degrees of freedom); Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.maths.statistics.rates import (
    Interval,
    check_confidence,
    effective_wilson,
    student_quantile,
    wilson_interval,
)

_MOST = 1e100  # squares of what is larger would leave the range of floats
Vector = NDArray[np.float64]
TaskStatistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""[R, n] episode scores of one task -> [R]; must treat rows independently."""


def mean_of_episodes(episodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The task's mean score. [R, n] -> [R]."""
    return np.asarray(episodes.mean(axis=-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """The range of a score. `known`: none can lie outside; otherwise it is what was seen."""

    low: float
    high: float
    known: bool

    @classmethod
    def of(cls, arrays: Mapping[str, Vector]) -> _Bounds:
        low, high = min(a.min() for a in arrays.values()), max(a.max() for a in arrays.values())
        if low >= 0 and high <= 1:
            return cls(low=0.0, high=1.0, known=True)
        if low == high:
            return cls(low=-math.inf, high=math.inf, known=False)
        return cls(low=float(low), high=float(high), known=False)

    def of_differences(self) -> _Bounds:
        return _Bounds(low=self.low - self.high, high=self.high - self.low, known=self.known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alike:
    """Units that all came out at one value, and the share of the estimate that they make up."""

    value: float
    share: float
    num_units: int

    def reach(self, edge: float, confidence: float) -> float:
        """How far the estimate would move if as many of them lay at the edge as Wilson's interval leaves room for."""
        odd = 1.0 - wilson_interval(self.num_units, self.num_units, confidence=confidence).low
        return self.share * odd * abs(edge - self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    """A mean, its squared standard error by what varies, the degrees of freedom behind that, and what does not vary."""

    point: float
    variance: float
    degrees: float
    alike: tuple[_Alike, ...] = ()

    def interval(self, bounds: _Bounds, confidence: float) -> Interval:
        low, high = self._edges_by_spread(bounds, confidence) if self.variance > 0 else (self.point, self.point)
        down, up = (math.hypot(*(a.reach(edge, confidence) for a in self.alike)) for edge in (bounds.low, bounds.high))
        low, high = min(low, self.point - down), max(high, self.point + up)
        return Interval(point=self.point, low=low, high=high, confidence=confidence)

    def _edges_by_spread(self, bounds: _Bounds, confidence: float) -> tuple[float, float]:
        quantile = student_quantile(0.5 + confidence / 2, self.degrees)
        width = bounds.high - bounds.low
        rate = (self.point - bounds.low) / width
        if not (bounds.known and 0 < rate < 1):
            half = quantile * math.sqrt(self.variance)
            return self.point - half, self.point + half
        trials = rate * (1 - rate) * width * width / self.variance
        low, high = effective_wilson(rate, trials, quantile=quantile)
        return bounds.low + width * low, bounds.low + width * high


def _task_arrays(scores: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    if not scores:
        raise ValueError("no task to evaluate: give at least 2 tasks with their episode scores")
    arrays = {task: np.asarray(episodes, dtype=np.float64) for task, episodes in scores.items()}
    for task, episodes in arrays.items():
        if episodes.ndim != 1 or episodes.size == 0:
            raise ValueError(f"task {task!r} needs a flat, non-empty list of episode scores, got {episodes.shape}")
        if not (np.abs(episodes) <= _MOST).all():
            raise ValueError(
                f"task {task!r} has a score that is not finite, or beyond {_MOST:g}: report faulted episodes apart"
            )
    return arrays


def _check_units(sizes: Mapping[str, int], *, fixed_tasks: bool, repetitions: int, confidence: float) -> None:
    check_confidence(confidence)
    if repetitions < 100:
        raise ValueError(f"a bootstrap needs 100 repetitions or more, got {repetitions}: 2,000 is usual")
    if not fixed_tasks and len(sizes) < 2:
        raise ValueError(
            f"one task only ({next(iter(sizes))!r}): nothing tells how much tasks differ. "
            "Evaluate 2 tasks or more, or set fixed_tasks=True to speak about this task alone"
        )
    lonely = sorted(task for task, size in sizes.items() if size < 2)
    if fixed_tasks and lonely:
        raise ValueError(
            f"tasks with a single episode have zero width when tasks are fixed: {', '.join(lonely[:5])}. "
            "Run 2 episodes or more of each, or set fixed_tasks=False"
        )


def _variance_of(draws: Vector, size: int) -> float:
    """Squared standard error by bootstrap draws over `size` units. Unbiased: draws vary by (size - 1) / size of it."""
    return 0.0 if np.ptp(draws) <= 1e-12 * (1 + abs(draws[0])) else float(draws.var()) * size / (size - 1)


def _over_tasks(values: Vector, generator: np.random.Generator, repetitions: int) -> _Estimate:
    """The mean of one value per task, tasks resampled."""
    count = len(values)
    picks = generator.multinomial(count, np.full(count, 1 / count), size=repetitions)
    point = float(values.mean())
    variance = 0.0 if np.ptp(values) == 0 else _variance_of(picks @ values / count, count)
    alike = () if variance else (_Alike(value=point, share=1.0, num_units=count),)
    return _Estimate(point=point, variance=variance, degrees=count - 1, alike=alike)


def _within_tasks(values: Vector, variances: Vector, sizes: Vector) -> _Estimate:
    """The mean of one value per task, each with a squared standard error of its own from `sizes` episodes.

    Tasks that came out alike at one value count as so many times their smallest number of episodes: however the tasks'
    rates differ, all of these alike are at most as likely as with one common rate.
    """
    total = float(variances.sum())
    still = variances == 0
    alike = []
    for value in np.unique(values[still]):
        of = still & (values == value)
        num_units = int(of.sum() * sizes[of].min())
        alike.append(_Alike(value=float(value), share=float(of.mean()), num_units=num_units))
    return _Estimate(
        point=float(values.mean()),
        variance=total / len(values) ** 2,
        degrees=total**2 / float((variances**2 / (sizes - 1)).sum()) if total else 1.0,
        alike=tuple(alike),
    )


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
        scores: for each task the scores of its episodes; numbers of episodes may differ. Where all lie in [0, 1] they
            are taken for rates, which cannot leave it.
        generator: the only source of randomness.
        fixed_tasks: False speaks about tasks like these, True about exactly these.
        statistic: [R, n] -> [R], the mean by default.
        repetitions: bootstrap draws.
        confidence: 0.95 for a 95 % interval.

    Returns:
        The interval. Equal scores of an unknown range (all -7, say) give one that excludes nothing.

    Raises:
        ValueError: a case that tells nothing about the spread by construction (one task, or fixed tasks with one
            episode), an empty task, a score or a statistic that is not finite.
    """
    arrays = _task_arrays(scores)
    sizes = {task: episodes.size for task, episodes in arrays.items()}
    _check_units(sizes, fixed_tasks=fixed_tasks, repetitions=repetitions, confidence=confidence)
    values = np.array([statistic(episodes[None, :])[0] for episodes in arrays.values()])
    if not np.isfinite(values).all():
        raise ValueError(f"the statistic of a task is not finite: {dict(zip(arrays, values.tolist(), strict=True))}")
    if fixed_tasks:
        spreads = [
            _variance_of(_draws_of(episodes, repetitions, statistic, generator), episodes.size)
            for episodes in arrays.values()
        ]
        estimate = _within_tasks(values, np.array(spreads), np.array(list(sizes.values()), np.float64))
    else:
        estimate = _over_tasks(values, generator, repetitions)
    return estimate.interval(_Bounds.of({**arrays, "the statistic": values}), confidence)


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


def _paired_variance(a: Vector, b: Vector, repetitions: int, paired: bool, generator: np.random.Generator) -> float:
    """Squared standard error of one task's mean difference."""
    sides = (b - a,) if paired else (b, a)
    return sum(_variance_of(_draws_of(x, repetitions, mean_of_episodes, generator), x.size) for x in sides)


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
        ValueError: different tasks, unequal numbers of paired episodes, or a case that tells nothing about the spread
            (see `clustered_bootstrap`).
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
    _check_units(sizes, fixed_tasks=fixed_tasks, repetitions=repetitions, confidence=confidence)
    values = np.array([second[task].mean() - first[task].mean() for task in first])
    if fixed_tasks:
        spreads = [_paired_variance(first[t], second[t], repetitions, pair_episodes, generator) for t in first]
        estimate = _within_tasks(values, np.array(spreads), np.array(list(sizes.values()), np.float64))
    else:
        estimate = _over_tasks(values, generator, repetitions)
    both = {f"{side}/{task}": x for side, arrays in enumerate((first, second)) for task, x in arrays.items()}
    return PairedDifference(
        name_a=name_a,
        name_b=name_b,
        interval=estimate.interval(_Bounds.of(both).of_differences(), confidence),
        num_tasks=len(first),
        num_episodes=sum(episodes.size for episodes in second.values()),
        fixed_tasks=fixed_tasks,
        num_units=sum(sizes.values()) if fixed_tasks else len(first),
    )
