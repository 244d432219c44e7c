"""Is B better than A? The paired difference over tasks, its p-value, and the verdict in words.

Two targets, and every verdict names its own. *These tasks*: the tasks are the ones that matter, and only start states
(or training runs) stand for others; each task's own episodes tell the error. *Tasks like these*: the tasks were drawn
from many, and what was measured on them is to hold for the rest; the spread of the tasks' differences tells the error,
which makes the interval wider. A claim about tasks like these needs as many tasks as a sign test does: six at 95 %.

A difference that rests on few episodes with unlike outcomes knows its own spread badly. Its squared standard error is
counted with one such event more than was seen, which keeps the coverage near 95 % down to a handful of events
(`benchmarks/coverage.py`); the larger ones hardly change.

Sources: Agresti and Min 2005, Bonett and Price 2012 (added pairs); McNemar 1947.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rollwright.contracts import require_choice
from rollwright.maths.statistics.clusters import check_units, task_arrays
from rollwright.maths.statistics.estimates import (
    MeanEstimate,
    ScoreBounds,
    Vector,
    error_of_mean,
    mean_of_these,
    mean_over_tasks,
)
from rollwright.maths.statistics.multiplicity import mcnemar_exact, units_needed
from rollwright.maths.statistics.rates import Interval, student_quantile

Target = Literal["these", "like-these"]
"""What a verdict speaks about: exactly the tasks that were tried, or tasks like them."""
Unit = Literal["task", "start", "run"]
"""What an interval takes for independent: a task, a start state, a training run."""
MOST_UNITS = 10_000
"""More units than this are said to be out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much better B is than A on the same tasks.

    `p_value` is two-sided and belongs to the interval, except where every task is one pair of yes/no outcomes: there it
    is the exact McNemar test, and the verdict follows it. `unit` is what the interval takes for independent: "task",
    "start" (a start state of these tasks) or "run" (a training run); `num_units` counts all of them, `units_each` those
    of one task, or of the smaller group of runs. `num_runs` are the runs on either side. `lasting_share` of the squared
    error stays however many units there are: it comes from elsewhere.
    """

    name_a: str
    name_b: str
    interval: Interval
    p_value: float
    target: Target
    unit: Unit
    num_units: int
    units_each: int
    num_tasks: int
    num_episodes: int
    degrees: float
    num_runs: tuple[int, int] = (1, 1)
    lasting_share: float = 0.0

    def __post_init__(self) -> None:
        require_choice("target", self.target, Target)
        require_choice("unit", self.unit, Unit)

    @property
    def enough_units(self) -> bool:
        """Whether an exact sign test over so many units could reach this confidence at all (6 for 95 %)."""
        # Runs are compared by Welch's test, which asks for no such number.
        return self.unit == "run" or self.num_units >= units_needed(alpha=1.0 - self.interval.confidence)

    @property
    def decided(self) -> bool:
        """The p-value is at most 1 minus the confidence."""
        # 1 - 0.95 is a little more than 0.05 in floats, and other levels come out a little less: hence the slack.
        return self.p_value <= 1.0 - self.interval.confidence + 1e-12

    @property
    def more_units_needed(self) -> int | None:
        """Further units that would decide: tasks, starts of each task, or runs of each group.

        The difference and the spread are taken to stay as they are, so this many decide about every second time. None
        where it is decided, where no difference was seen, and beyond `MOST_UNITS`.
        """
        gap = abs(self.interval.point)
        if self.decided or gap == 0:
            return None
        # The interval may be lopsided, and the half towards 0 decides.
        edge = self.interval.low if self.interval.point > 0 else self.interval.high
        half = abs(self.interval.point - edge)
        # Equal scores of an unknown range have infinite edges, from which no number of units follows.
        if not math.isfinite(half):
            return None
        # One more at least: the units that are there have not decided it.
        fewest = max(1, self._missing_for_a_sign_test())
        found = next((k for k in _counts(fewest) if self._half_width(half, k) < gap), None)
        return found if found is None or found <= MOST_UNITS else None

    def _missing_for_a_sign_test(self) -> int:
        if self.enough_units:
            return 0
        missing = units_needed(alpha=1.0 - self.interval.confidence) - self.num_units
        # Rounded up, since one start more is one more for each task.
        return missing if self.unit == "task" else -(-missing // self.num_tasks)

    def _half_width(self, half: float, more: int) -> float:
        """Of the interval with so many units more each."""
        # More units give more degrees of freedom, so that Student's quantile shrinks beside the root.
        growth = (self.units_each + more) / self.units_each
        probability = 0.5 + self.interval.confidence / 2
        quantiles = [student_quantile(probability, degrees) for degrees in (self.degrees, self.degrees * growth)]
        return half * quantiles[1] / quantiles[0] * math.sqrt(self.lasting_share + (1 - self.lasting_share) / growth)

    def scope(self) -> str:
        """'on these 6 tasks', or 'on tasks like these 6'."""
        if self.target == "like-these":
            return f"on tasks like these {self.num_tasks}"
        return "on this task" if self.num_tasks == 1 else f"on these {self.num_tasks} tasks"

    def verdict(self) -> str:
        """One sentence for a report, for example 'B is better than A: +0.11 [0.06, 0.16] on these 6 tasks (95% CI)'."""
        i = self.interval
        # Four digits: 100 * 0.95 need not be 95 exactly, and 99.99 must not become 100.
        sure = f"{float(f'{100 * i.confidence:.4g}'):g}% CI"
        if self.num_runs != (1, 1):
            sure += f" over {_plural(self.num_runs[1], 'run')} against {self.num_runs[0]}"
        if not self.decided:
            head = f"no significant difference between {self.name_a} and {self.name_b} {self.scope()}"
            return f"{head}: {_signed(i.point, i.low, i.high)} ({sure}); {self._remedy()}"
        if i.point > 0:
            return (
                f"{self.name_b} is better than {self.name_a}: {_signed(i.point, i.low, i.high)} {self.scope()} ({sure})"
            )
        # The signs turn with the names, so that the gain of the better one is positive.
        return (
            f"{self.name_a} is better than {self.name_b}: {_signed(-i.point, -i.high, -i.low)} {self.scope()} ({sure})"
        )

    def _remedy(self) -> str:
        if self.interval.point == 0:
            return "no difference was seen"
        more = self.more_units_needed
        what = {"task": "task", "start": "start state per task", "run": "run per group"}[self.unit]
        if more is None:
            return f"more than {MOST_UNITS:,} further {_plural_of(what)} would be needed to settle it"
        if more == 1:
            return f"about one more {what} would settle it"
        return f"about {more:,} more {_plural_of(what)} would settle it"


def _counts(fewest: int) -> list[int]:
    # Growing steps keep the search up to `MOST_UNITS` short.
    """Whole numbers from `fewest` on: every one at first, then in steps of a twentieth, rounded up."""
    found = [fewest]
    while found[-1] <= MOST_UNITS:
        found.append(found[-1] + max(1, found[-1] // 20))
    return found


def _signed(point: float, low: float, high: float) -> str:
    """With so many digits that an edge which is not 0 is not printed as 0: two if that is enough, at most five."""
    digits = next((n for n in (2, 3, 4) if all(round(edge, n) or not edge for edge in (low, high))), 5)
    return f"{point:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {_plural_of(what)}"


def _plural_of(what: str) -> str:
    noun, _, rest = what.partition(" per ")
    return f"{noun}s per {rest}" if rest else f"{noun}s"


def paired_difference(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    pair_episodes: bool,
    target: Target = "like-these",
    name_a: str = "A",
    name_b: str = "B",
    confidence: float = 0.95,
) -> PairedDifference:
    """Mean score of B minus that of A over the same tasks, with an interval clustered by task.

    Args:
        a: for each task the scores of A's episodes.
        b: the same for B, on the same tasks.
        pair_episodes: the i-th episodes of both had the same seed, so their difference is one observation.
        target: what the verdict speaks about.
        name_a: for the verdict.
        name_b: for the verdict.
        confidence: 0.95 for a 95 % interval.

    Raises:
        ValueError: an unknown target, different tasks, unequal numbers of paired episodes, or a case that tells
            nothing about the spread (see `clustered_bootstrap`).
    """
    require_choice("target", target, Target)
    first, second = task_arrays(a), task_arrays(b)
    _check_pairs(first, second, pair_episodes, name_a, name_b)
    # Sides that are not paired may differ in size; the smaller one counts.
    sizes = {task: min(first[task].size, second[task].size) for task in first}
    check_units(sizes, fixed_tasks=target == "these", confidence=confidence)
    # Both sides share one range: a difference of two rates then lies in [-1, 1].
    both = {f"{side}/{task}": x for side, arrays in enumerate((first, second)) for task, x in arrays.items()}
    estimate = _estimate(first, second, pair_episodes, target)
    bounds = ScoreBounds.of(both).of_differences()
    num_units = sum(sizes.values()) if target == "these" else len(first)
    p_value = estimate.p_value(bounds)
    if (exact := _exact_p(first, second, pair_episodes)) is not None:
        p_value = exact
    return PairedDifference(
        name_a=name_a,
        name_b=name_b,
        interval=estimate.interval(bounds, confidence),
        # Fewer units than a sign test needs decide nothing, whatever their spread.
        p_value=max(p_value, min(1.0, 2.0 * 0.5**num_units)),
        target=target,
        unit="start" if target == "these" else "task",
        num_units=num_units,
        # Tasks may have different numbers of starts: their mean, rounded down.
        units_each=max(1, num_units // len(first)) if target == "these" else len(first),
        num_tasks=len(first),
        num_episodes=sum(episodes.size for episodes in second.values()),
        degrees=estimate.degrees,
    )


def _check_pairs(
    first: Mapping[str, Vector], second: Mapping[str, Vector], pair_episodes: bool, name_a: str, name_b: str
) -> None:
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))
        raise ValueError(f"{name_a} and {name_b} must have the same tasks; only one of them has: {', '.join(odd[:5])}")
    for task in first:
        if pair_episodes and first[task].size != second[task].size:
            raise ValueError(
                f"task {task!r} has {first[task].size} and {second[task].size} episodes, so they cannot be paired: "
                "keep the seeds that both finished, or set pair_episodes=False"
            )


def _estimate(
    first: Mapping[str, Vector], second: Mapping[str, Vector], pair_episodes: bool, target: Target
) -> MeanEstimate:
    values = np.array([second[task].mean() - first[task].mean() for task in first])
    differences = [second[task] - first[task] for task in first] if pair_episodes else []
    if target == "like-these":
        return _with_one_event_more(mean_over_tasks(values), differences)
    if pair_episodes:
        errors = [error_of_mean(difference) for difference in differences]
    else:
        # Sides that are not paired are independent, so their squared errors add.
        errors = [error_of_mean(first[task]) + error_of_mean(second[task]) for task in first]
    sizes = [min(first[task].size, second[task].size) for task in first]
    estimate = mean_of_these(values, np.array(errors), np.array(sizes, dtype=np.float64))
    return _with_one_event_more(estimate, differences)


def _with_one_event_more(estimate: MeanEstimate, differences: list[Vector]) -> MeanEstimate:
    """The squared standard error times (K + 1) / K, where the difference rests on K events.

    K is the number of episodes with unlike outcomes, fewer where these cluster in tasks or are of unlike size:
    m2^3 / (m4 * variance) with the mean second and fourth powers of the episodes' differences.
    """
    if not differences or not estimate.variance:
        return estimate
    # Means over tasks of means over episodes, so that each task weighs the same as in the estimate.
    second = float(np.mean([np.mean(d**2) for d in differences]))
    scaled = float(np.mean([np.mean((d**2 / second) ** 2) for d in differences]))  # m4 / m2^2 without huge powers
    # The second term is 1 / K.
    return estimate.widened(1.0 + scaled * estimate.variance / second)


def _exact_p(first: Mapping[str, Vector], second: Mapping[str, Vector], pair_episodes: bool) -> float | None:
    """McNemar's p-value where every task is one pair of yes/no outcomes."""
    # Without pairs there is nothing that McNemar's test could count.
    if not pair_episodes:
        return None
    # The exact test knows single pairs of 0 and 1 only.
    if not all(x.size == 1 and x[0] in (0.0, 1.0) for side in (first, second) for x in side.values()):
        return None
    differences = [float(second[task][0] - first[task][0]) for task in first]
    return mcnemar_exact(sum(d < 0 for d in differences), sum(d > 0 for d in differences))
