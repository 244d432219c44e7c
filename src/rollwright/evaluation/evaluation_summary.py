"""The figures of an evaluation, each with its interval: per task, over all tasks, pass@k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.pairing import chosen_target, return_of, success_of
from rollwright.maths.statistics import Interval, Target, clustered_bootstrap, pass_at_k, wilson_interval
from rollwright.run_io import metric_part

Starts = Mapping[str, Mapping[int, Sequence[float]]]
"""task -> seed -> one number per attempt"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One task. `success` is None where no episode got a verdict."""

    task: str
    success: Interval | None
    mean_return: float | None
    mean_turns: float | None
    num_episodes: int
    num_faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One evaluation.

    `success` is the mean over tasks of the task's success rate. `target` says what the intervals over tasks speak
    about. Faults are in no rate, nor are starts whose prompt left no room for an action.
    """

    tasks: tuple[TaskSummary, ...]
    success: Interval | None
    mean_return: Interval | None
    pass_at: Mapping[int, Interval]
    target: Target
    num_episodes: int
    num_faults: int
    num_undecided: int
    num_without_room: int = 0

    @property
    def fault_frac(self) -> float:
        """Share of episodes that broke."""
        return self.num_faults / max(1, self.num_episodes)


def summarise(evaluation: Evaluation, *, target: Target | None = None, confidence: float = 0.95) -> Summary:
    """All figures of an evaluation.

    Args:
        target: "these" speaks about exactly these tasks, "like-these" about tasks like them; None takes the first where
            every task has two starts or more (`chosen_target`).
        confidence: 0.95 for 95 % intervals.
    """
    rows = evaluation.scored
    judged = [row for row in rows if row.success is not None]
    outcomes = by_start(judged, success_of)
    # By the scored rows: faults may have taken all starts but one of a task.
    aim = chosen_target(rows, target)
    tasks = tuple(_task_summary(evaluation, task, confidence) for task in evaluation.tasks)

    def interval(values: Mapping[str, Sequence[float]]) -> Interval | None:
        return interval_over_tasks(values, aim, confidence)

    return Summary(
        tasks=tasks,
        success=_overall_success(tasks, interval(start_means(outcomes))),
        mean_return=interval(start_means(by_start(rows, return_of))),
        pass_at={k: found for k in _attempt_counts(outcomes) if (found := interval(_pass_rates(outcomes, k)))},
        target=aim,
        num_episodes=len(evaluation.rows),
        num_faults=sum(row.is_fault for row in evaluation.rows),
        num_undecided=len(rows) - len(judged),
        num_without_room=sum(row.had_no_room for row in evaluation.rows),
    )


def metrics(evaluation: Evaluation) -> dict[str, float]:
    """The figures a run tracks, named `eval/<what>`; per task under `eval_task/<task>/`."""
    summary = summarise(evaluation)
    named = {"success_frac": summary.success, "return_mean": summary.mean_return}
    found = {f"eval/{key}": value.point for key, value in named.items() if value is not None}
    if summary.success is not None:
        found |= {"eval/success_low": summary.success.low, "eval/success_high": summary.success.high}
    # pass@1 is the success rate, which has a name of its own.
    found |= {f"eval/pass_at_{k}": value.point for k, value in summary.pass_at.items() if k > 1}
    found |= {"eval/fault_frac": summary.fault_frac, "eval/episodes_count": float(summary.num_episodes)}
    # Only where it happens, so that most runs have no column of zeros.
    if summary.num_without_room:
        found["eval/no_room_frac"] = summary.num_without_room / summary.num_episodes
    per_task = {t.task: t.success for t in summary.tasks if t.success is not None}
    # A metric's name takes letters, digits and a few signs; a task may be called anything.
    return found | {f"eval_task/{metric_part(t)}/success_frac": value.point for t, value in per_task.items()}


def by_start(rows: Sequence[EpisodeRow], value: Callable[[EpisodeRow], float]) -> dict[str, dict[int, list[float]]]:
    """task -> seed -> the value of each attempt."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row.task, {}).setdefault(row.seed, []).append(value(row))
    return found


def start_means(starts: Starts) -> dict[str, list[float]]:
    """task -> the mean over attempts of each start. Attempts at one start resemble each other: together they are one
    observation."""
    return {task: [fmean(attempts) for attempts in seeds.values()] for task, seeds in starts.items()}


def _attempt_counts(outcomes: Starts) -> list[int]:
    """1, 2, 4 ... and the largest number of attempts that every start has."""
    # A start with fewer than k attempts has no estimate of pass@k.
    fewest = min((len(attempts) for seeds in outcomes.values() for attempts in seeds.values()), default=0)
    powers = [1 << exponent for exponent in range(fewest.bit_length())]
    return sorted({k for k in powers if k <= fewest} | ({fewest} if fewest else set()))


def _pass_rates(outcomes: Starts, k: int) -> dict[str, list[float]]:
    return {
        # Floats of 0 and 1, whose sum is exact.
        task: [pass_at_k(len(attempts), int(sum(attempts)), k=k) for attempts in seeds.values()]
        for task, seeds in outcomes.items()
    }


def _overall_success(tasks: Sequence[TaskSummary], found: Interval | None) -> Interval | None:
    """Over the tasks, or where there is one alone, over its starts."""
    rates = [task.success for task in tasks if task.success is not None]
    return rates[0] if len(rates) == 1 else found


def interval_over_tasks(values: Mapping[str, Sequence[float]], target: Target, confidence: float) -> Interval | None:
    """Mean over tasks with its interval; where a task has one start alone, the interval excludes nothing."""
    if not values:
        return None
    # One task tells nothing about the spread over tasks.
    fixed = target == "these" or len(values) == 1
    if fixed and min(len(starts) for starts in values.values()) < 2:
        point = fmean(fmean(starts) for starts in values.values())
        return Interval(point=point, low=-np.inf, high=np.inf, confidence=confidence)
    # The mean draws nothing; the generator is an argument for other statistics.
    return clustered_bootstrap(values, generator=np.random.default_rng(0), fixed_tasks=fixed, confidence=confidence)


def _task_summary(evaluation: Evaluation, task: str, confidence: float) -> TaskSummary:
    rows = [row for row in evaluation.rows if row.task == task]
    scored = [row for row in evaluation.scored if row.task == task]
    judged = [row for row in scored if row.success is not None]
    return TaskSummary(
        task=task,
        success=_task_success(judged, confidence),
        mean_return=fmean(row.total_return for row in scored) if scored else None,
        mean_turns=fmean(row.num_turns for row in scored) if scored else None,
        num_episodes=len(rows),
        num_faults=sum(row.is_fault for row in rows),
    )


def _task_success(judged: Sequence[EpisodeRow], confidence: float) -> Interval | None:
    """Wilson's interval where each start was tried once; with several attempts the starts are the trials."""
    if not judged:
        return None
    starts = by_start(judged, success_of)[judged[0].task]
    num_solved = sum(bool(row.success) for row in judged)
    # Of a single start the attempts are all that there is, so they are the trials.
    if len(starts) == 1 or len(starts) == len(judged):
        return wilson_interval(num_solved, len(judged), confidence=confidence)
    # The starts take the place of the tasks: attempts at one start are not independent.
    clusters = {str(seed): attempts for seed, attempts in starts.items()}
    return clustered_bootstrap(clusters, generator=np.random.default_rng(0), confidence=confidence)
