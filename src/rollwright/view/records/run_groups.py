"""Runs that differ in nothing but chance, taken together: mean, interquartile mean and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rollwright.maths.statistics import Interval, interquartile_mean, stratified_bootstrap
from rollwright.view.live.run_answers import flat_settings
from rollwright.view.records.run_record import RunRecord, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """The runs with the same values under the names that were grouped by."""

    key: tuple[Value, ...]
    records: tuple[RunRecord, ...]

    @property
    def label(self) -> str:
        """The values, as a name in tables and plots."""
        return " ".join("-" if value is None else str(value) for value in self.key)

    def numbers(self, name: str) -> list[float]:
        """The numbers that the runs have under a name; runs without one are left out."""
        values = [record.value(name) for record in self.records]
        return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """One number of a group. `interval` is None with fewer than two runs: one seed says nothing about seeds."""

    count: int
    mean: float
    iqm: float
    interval: Interval | None


def group_records(records: Sequence[RunRecord], keys: Sequence[str]) -> list[RunGroup]:
    """Group by the values under these names, in the order in which they are met."""
    found: dict[tuple[Value, ...], list[RunRecord]] = {}
    for record in records:
        found.setdefault(tuple(record.value(key) for key in keys), []).append(record)
    return [RunGroup(key=key, records=tuple(members)) for key, members in found.items()]


def summarise_group(group: RunGroup, name: str) -> GroupSummary | None:
    """Mean, interquartile mean and the 95% bootstrap interval of the latter; None where no run has the number.

    For `success` the scores are those of every task of every run (arXiv:2108.13264); for other numbers one per run.
    """
    scores = task_scores(group) if name == "success" else None
    if scores is None:
        values = group.numbers(name)
        if not values:
            return None
        # One column stands for one task: the runs alone are resampled.
        scores = np.array(values)[:, None]  # [N runs, 1]
    # A fixed seed: the same record prints the same interval.
    generator = np.random.default_rng(0)
    interval = stratified_bootstrap(scores, interquartile_mean, generator=generator) if len(scores) > 1 else None
    return GroupSummary(
        count=len(scores), mean=fmean(scores.mean(axis=1)), iqm=interquartile_mean(scores), interval=interval
    )


def unlike_settings(group: RunGroup) -> list[str]:
    """The settings in which the runs of a group differ, seeds and folders aside; [] where they are repetitions."""
    seen: dict[str, set[str]] = {}
    for record in group.records:
        for key, value in flat_settings(record.settings):
            # `repr`, since settings may be lists, which no set can hold.
            seen.setdefault(key, set()).add(repr(value))
    chance = ("run.folder", "run.seed", "world.seed", "model.path")
    return sorted(key for key, values in seen.items() if len(values) > 1 and key not in chance)


def task_scores(group: RunGroup) -> np.ndarray | None:
    """[N runs, M tasks] success in each run's last evaluation; None where runs lack one or judge other tasks."""
    found: list[dict[str, float]] = []
    for record in group.records:
        judged: dict[str, list[float]] = {}
        # Undecided rows are left out, and with them a task that has no others.
        for row in record.final.rows if record.final is not None else ():
            if row.success is not None:
                judged.setdefault(row.task, []).append(float(row.success))
        found.append({task: fmean(outcomes) for task, outcomes in judged.items()})
    # A matrix needs the same tasks in every run.
    if not found or not found[0] or any(one.keys() != found[0].keys() for one in found):
        return None
    # Sorted, so that a column is one task in all runs, whatever order they were played in.
    return np.array([[one[task] for task in sorted(one)] for one in found])
