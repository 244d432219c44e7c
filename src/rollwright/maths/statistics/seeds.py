"""Is method B better than method A? The difference of two groups of training runs on the same tasks.

A run's score already holds the luck of its start states, so the spread of the runs tells both. A claim about tasks like
these adds the spread of the tasks' differences; what the two have in common, the residual of runs by tasks, is counted
once. A group of one run tells nothing about other runs of its kind: its own error by start states stands in, and the
claim is about that very run.

Sources: Welch 1947; Satterthwaite 1946 (degrees of freedom); Searle, Casella and McCulloch 1992 (crossed effects).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollwright.contracts import require_choice
from rollwright.maths.statistics.differences import PairedDifference, Target
from rollwright.maths.statistics.estimates import AlikeUnits, MeanEstimate, ScoreBounds
from rollwright.maths.statistics.matrices import score_matrix
from rollwright.maths.statistics.rates import check_confidence

_MANY = 1e6  # degrees of freedom of an error that comes from hundreds of episodes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScores:
    """The runs of one method: scores [N runs, M tasks], and for a single run the squared standard error of its mean."""

    name: str
    scores: NDArray[np.float64]
    start_error: float = 0.0

    @property
    def num_runs(self) -> int:
        """N."""
        return int(self.scores.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A squared standard error and its degrees of freedom."""

    variance: float
    degrees: float


def run_difference(
    a: RunScores, b: RunScores, *, num_episodes: int, target: Target = "these", confidence: float = 0.95
) -> PairedDifference:
    """Mean score of B's runs minus that of A's, with an interval over runs, and for tasks like these over tasks too.

    Args:
        a: the baseline's runs.
        b: the other method's, on the same tasks in the same order.
        num_episodes: behind all scores of B.
        target: what the verdict speaks about.
        confidence: 0.95 for a 95 % interval.

    Raises:
        ValueError: an unknown target, different numbers of tasks, one run on either side, or one task where it is to
            stand for others.
    """
    require_choice("target", target, Target)
    check_confidence(confidence)
    first, second = score_matrix(a.scores), score_matrix(b.scores)
    num_tasks = first.shape[1]
    if num_tasks != second.shape[1]:
        raise ValueError(f"both need the same tasks in the same order, got {num_tasks} and {second.shape[1]}")
    if max(a.num_runs, b.num_runs) < 2:
        raise ValueError("one run on either side: compare their episodes with `paired_difference`")
    if target == "like-these" and num_tasks < 2:
        raise ValueError("one task only: nothing tells how much tasks differ. Speak about this task (target 'these')")
    runs = _sum(_of_runs(first, a.start_error), _of_runs(second, b.start_error))
    tasks = _of_tasks(second.mean(axis=0) - first.mean(axis=0))
    # Where the claim is about these tasks they do not vary, and the runs alone do.
    whole, unit = runs, "run"
    if target == "like-these":
        whole = _crossed(runs, tasks, _residual(first, a.start_error) + _residual(second, b.start_error))
        # More of what varies most would help most, so the verdict speaks of that unit.
        unit = "task" if tasks.variance > runs.variance else "run"
    point = float(second.mean() - first.mean())
    # A group of one run has no spread of its own, so it does not count here.
    fewest = min(n for n in (a.num_runs, b.num_runs) if n > 1)
    alike = () if whole.variance else (AlikeUnits(value=point, share=1.0, num_units=fewest),)
    estimate = MeanEstimate(point=point, variance=whole.variance, degrees=whole.degrees, alike=alike)
    bounds = ScoreBounds.of({"a": first.ravel(), "b": second.ravel()}).of_differences()
    counted = runs if unit == "run" else tasks
    p_value = estimate.p_value(bounds)
    return PairedDifference(
        name_a=a.name,
        name_b=b.name,
        interval=estimate.interval(bounds, confidence),
        # Fewer tasks than a sign test needs decide nothing about tasks like these.
        p_value=max(p_value, min(1.0, 2.0 * 0.5**num_tasks)) if target == "like-these" else p_value,
        target=target,
        unit="task" if unit == "task" else "run",
        num_units=num_tasks if unit == "task" else a.num_runs + b.num_runs,
        units_each=num_tasks if unit == "task" else fewest,
        num_tasks=num_tasks,
        num_episodes=num_episodes,
        degrees=whole.degrees,
        num_runs=(a.num_runs, b.num_runs),
        # The error that comes from the other source stays, however many of these units are added.
        lasting_share=1.0 - min(1.0, counted.variance / whole.variance) if whole.variance else 0.0,
    )


def _of_runs(scores: NDArray[np.float64], start_error: float) -> _Part:
    """By the spread of the runs' means, or by start states where there is one run."""
    count = len(scores)
    if count < 2:
        return _Part(variance=start_error, degrees=_MANY)
    return _Part(variance=_spread(scores.mean(axis=1)) / count, degrees=count - 1)


def _of_tasks(gains: NDArray[np.float64]) -> _Part:
    # A single task is allowed where the claim is about it: this part is then computed and not used.
    return _Part(variance=_spread(gains) / len(gains), degrees=max(1, len(gains) - 1))


def _spread(values: ArrayLike) -> float:
    """The variance of the values; 0 where they differ by rounding alone."""
    found = np.asarray(values)
    return 0.0 if np.ptp(found) <= 1e-12 * (1 + abs(found[0])) else float(found.var(ddof=1))


def _residual(scores: NDArray[np.float64], start_error: float) -> float:
    """The part of a group's squared standard error that the runs' and the tasks' spread both contain."""
    runs, tasks = scores.shape
    if runs < 2:
        return start_error
    # What neither a run's mean nor a task's mean explains.
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    return float((rest**2).sum()) / ((runs - 1) * (tasks - 1)) / (runs * tasks)


def _sum(*parts: _Part) -> _Part:
    """Independent errors add; degrees of freedom by Satterthwaite."""
    total = sum(part.variance for part in parts)
    if not total:
        return _Part(variance=0.0, degrees=1.0)
    return _Part(variance=total, degrees=total**2 / sum(part.variance**2 / part.degrees for part in parts))


def _crossed(runs: _Part, tasks: _Part, residual: float) -> _Part:
    both = _sum(runs, tasks)
    # The residual is in both parts. Its estimate is noisy, so the difference never falls below either of them.
    least = max(runs.variance, tasks.variance)
    return _Part(variance=max(least, both.variance - residual), degrees=both.degrees)
