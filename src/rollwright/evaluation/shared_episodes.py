"""The episodes that all of several runs finished: their scores are comparable start by start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import DataError
from rollwright.evaluation.evaluation_record import EpisodeRow, Evaluation
from rollwright.evaluation.pairing import return_of, success_of

Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEpisodes:
    """The episodes that every run finished, and what is read from them.

    `keys` are by task; `metric` is "success" where every run judged all of them, else "return".
    """

    keys: Mapping[str, tuple[Key, ...]]
    metric: str
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, runs: Mapping[str, Evaluation]) -> SharedEpisodes:
        """The shared episodes of these runs.

        Raises:
            DataError: no episode was finished by all of them.
        """
        scored = {name: {row.key: row for row in run.scored} for name, run in runs.items()}
        shared = set.intersection(*(set(rows) for rows in scored.values()))
        if not shared:
            raise DataError(
                f"the {len(runs)} runs have no episode in common that all of them finished: evaluate all of them on "
                "the same split, tasks and seeds"
            )
        # Successes of some and returns of others could not stand in one matrix.
        judged = all(rows[key].success is not None for rows in scored.values() for key in shared)
        # A set has no order; that of the first run makes reports repeatable.
        order = [key for key in next(iter(scored.values())) if key in shared]
        keys: dict[str, list[Key]] = {}
        for key in order:
            keys.setdefault(key[0], []).append(key)
        # From the longest run: what a shorter one did not play is lost to all.
        most = max(len(run.rows) for run in runs.values())
        lost = most - len(shared)
        warnings = [f"{lost} of {most} episodes are left out: not every run finished them"] if lost else []
        return cls(
            keys={task: tuple(found) for task, found in keys.items()},
            metric="success" if judged else "return",
            warnings=tuple(warnings),
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order they were first played."""
        return tuple(self.keys)

    @property
    def num_starts(self) -> int:
        """Start states, over all tasks."""
        # Task and seed: attempts at one start do not make another start.
        return len({key[:2] for keys in self.keys.values() for key in keys})

    def rows(self, run: Evaluation) -> list[EpisodeRow]:
        """The shared episodes of a run."""
        wanted = {key for keys in self.keys.values() for key in keys}
        return [row for row in run.rows if row.key in wanted]

    def scores(self, run: Evaluation) -> dict[str, list[float]]:
        """task -> the score of each shared start, the mean over its attempts."""
        value = success_of if self.metric == "success" else return_of
        # Made in the order of `keys`, so that a column is the same task in the matrix of every group.
        starts: dict[str, dict[int, list[float]]] = {task: {} for task in self.keys}
        for row in self.rows(run):
            starts[row.task].setdefault(row.seed, []).append(value(row))
        return {task: [fmean(attempts) for attempts in seeds.values()] for task, seeds in starts.items()}

    def matrix(self, members: Mapping[str, Evaluation]) -> NDArray[np.float64]:
        """[N runs, M tasks]."""
        return np.array([[fmean(starts) for starts in self.scores(run).values()] for run in members.values()])

    def bounds(self, runs: Mapping[str, Evaluation]) -> tuple[float, float]:
        """The range of the thresholds of a profile."""
        if self.metric == "success":
            return 0.0, 1.0
        matrix = self.matrix(runs)
        return float(matrix.min()), float(matrix.max())
