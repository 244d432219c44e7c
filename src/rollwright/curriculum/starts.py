"""Where episodes begin: at the task's own initial state, or in the middle of an earlier episode (S3RL).

    draw(step, group):  with probability `frac`, while step < `steps` and there are waypoints:
                        one of k clusters of waypoints of like value f, uniformly; a waypoint of it, uniformly
    learn(groups):      the best episodes of each task leave their waypoints here, with an f each

f stands for the teacher's V(s): what its episode still earned from there on, discounted per turn and scaled to [0, 1]
within the task, so that tasks can be compared; or 1 - j / H with j turns left to the end of the episode and H the turn
limit. Clustering by f (status classification) draws rare values as often as common ones. An episode that begins at a
waypoint may be cut after `max_turns` turns (student trajectory truncation): a truncation, without a verdict.

Sources: arXiv:2403.00673 (SnapshotRL, S3RL).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollwright.contracts import Group, Trajectory, Way, Waypoint
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.samplers import draws_of
from rollwright.curriculum.waypoints import from_row, to_row, waypoints_of
from rollwright.rollout import GroupRequest

Array = NDArray[Any]
_FILE = "starts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """One episode that later ones may begin in: its waypoints and the f of each. `earned` ranks it in its task."""

    earned: float
    waypoints: tuple[Waypoint, ...]
    values: tuple[float, ...]

    @property
    def task(self) -> str:
        """The task whose episode was there."""
        return self.waypoints[0].task.id


class StartPool:
    """The waypoints of a run. Made by `Training` where `starts.name` is "snapshots"; a part of its checkpoints.

    Args:
        seed: of the run; draws depend on it, the step, the group and what was learned, on nothing else.
        horizon: H, the turn limit of an episode from its initial state.
        writes: whether this process writes checkpoints; every rank holds the same waypoints.
    """

    def __init__(self, settings: StartSettings, *, seed: int, horizon: int, writes: bool = True) -> None:
        self.settings, self.seed, self.horizon, self.writes = settings, seed, horizon, writes
        self.visited: list[Visited] = []
        self._clustered: tuple[list[Waypoint], list[list[int]]] | None = None

    def is_open(self, step: int) -> bool:
        """Whether groups of this step may begin at a waypoint, and leave some."""
        return not self.settings.steps or step < self.settings.steps

    def draw(self, step: int, index: int) -> Waypoint | None:
        """Where group `index` of this step begins; None for the task's own initial state."""
        # A generator per group: every rank finds the same start without asking the others.
        rng = draws_of(self.seed, "starts", step, index)
        if not self.is_open(step) or rng.random() >= self.settings.frac:
            return None
        waypoints, clusters = self.clusters()
        return waypoints[rng.choice(rng.choice(clusters))] if clusters else None

    def place(self, request: GroupRequest, step: int, index: int) -> GroupRequest:
        """The request as it is, or of the task, seed and state of a waypoint, with the turn limit that holds there."""
        if not self.is_open(step):
            return request
        own = self.settings.source == "own"
        # A teacher's pool was filled before the first step, and the policy's own episodes do not extend it.
        request = replace(request, waypoint_every=self.settings.every if own else 0)
        start = self.draw(step, index)
        if start is None:
            return request
        limit, cut = self.limit_from(start), self.settings.max_turns > 0
        # All members of a group share the start, its task and its seed, so that group baselines stay valid.
        return replace(request, task=start.task, seed=start.seed, start=start, max_turns=limit, cut=cut)

    def limit_from(self, start: Waypoint) -> int:
        """The turns of an episode that begins there: `starts.max_turns`, or what is left of the whole limit."""
        # At least 1: `Episode.max_turns` reads 0 as no limit of its own. The limit may be lower than it once was.
        return self.settings.max_turns or max(1, self.horizon - len(start.passed))

    def clusters(self) -> tuple[list[Waypoint], list[list[int]]]:
        """All waypoints, and their numbers by cluster; one cluster of all where they are drawn uniformly."""
        if self._clustered is None:
            owners = [one.task for one in self.visited for _ in one.waypoints]
            values = np.array([value for one in self.visited for value in one.values])
            labels = np.zeros(len(values), np.int64)
            if self.settings.pick == "clusters":
                # Returns of unlike tasks differ in scale: unscaled, the clusters would only tell tasks apart.
                # Progress is a share of one turn limit and compares as it is.
                scaled = values if self.settings.value == "progress" else scaled_within(values, owners)
                labels = cluster_values(scaled, self.settings.clusters)
            members = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
            self._clustered = [w for one in self.visited for w in one.waypoints], members
        return self._clustered

    def learn(self, groups: Sequence[Group]) -> None:
        """Take in the waypoints of episodes with a way; keep those of the best `episodes` of each task.

        Of episodes that earned the same the newest stay. No more than `capacity` waypoints are kept in all.
        """
        new = [
            self._visit(t, group.ways[t.id], group.start)
            for group in groups
            for t in group.trajectories
            if t.id in group.ways and t.learnable
        ]
        candidates = [one for one in (*self.visited, *new) if one.waypoints]
        best_first = sorted(reversed(candidates), key=lambda one: -one.earned)  # keeps the order of equals
        per_task: Counter[str] = Counter()
        kept: set[int] = set()
        room = self.settings.capacity
        for one in best_first:
            # An episode that no longer fits is passed over: a shorter one behind it may still fit.
            if per_task[one.task] < self.settings.episodes and len(one.waypoints) <= room:
                per_task[one.task] += 1
                room -= len(one.waypoints)
                # By identity: a task's parameters are a dict, so a `Visited` has no hash.
                kept.add(id(one))
        # In order of arrival, not of rank: the next `learn` finds the newest of equals by it.
        self.visited = [one for one in candidates if id(one) in kept]
        self._clustered = None

    def _visit(self, trajectory: Trajectory, way: Way, start: Waypoint | None) -> Visited:
        waypoints = waypoints_of(trajectory, way, start, every=self.settings.every)
        # A waypoint's `passed` counts from the initial state, so the end must count the prefix too.
        end = len(trajectory.turns) + (len(start.passed) if start else 0)
        left = [end - len(waypoint.passed) for waypoint in waypoints]
        if self.settings.pick == "clusters" and self.settings.value == "progress":
            values = [1.0 - turns / self.horizon for turns in left]
        else:
            returns = trajectory.returns_to_go(self.settings.gamma)
            # Waypoints lie before turns of this episode itself, so `turns` lies between 1 and the length of `returns`.
            values = [returns[-turns] for turns in left]
        # An episode from a waypoint is ranked by what it earned itself: its prefix is somebody else's merit.
        return Visited(earned=trajectory.total_reward, waypoints=waypoints, values=tuple(values))

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Where these groups began, and how both kinds fared: their success is not the same quantity."""
        prefixes = [len(group.start.passed) for group in groups if group.start is not None]
        metrics = {
            "starts/waypoints_count": float(sum(len(one.waypoints) for one in self.visited)),
            "starts/snapshot_frac": len(prefixes) / max(1, len(groups)),
        }
        if prefixes:
            metrics["starts/prefix_turns_mean"] = float(np.mean(prefixes))
        if judged := _verdicts([group for group in groups if group.start is None]):
            metrics["starts/initial_success_frac"] = float(np.mean(judged))
        if judged := _verdicts([group for group in groups if group.start is not None]):
            metrics["starts/snapshot_success_frac"] = float(np.mean(judged))
        return metrics

    def save_state(self, folder: Path) -> None:
        """Write everything that draws depend on into a checkpoint."""
        # All ranks hold the same waypoints and share one checkpoint folder: one file is enough.
        if self.writes:
            rows = [to_row(one.waypoints) | {"earned": one.earned, "values": one.values} for one in self.visited]
            (folder / _FILE).write_text(json.dumps(rows), encoding="utf-8")

    def load_state(self, folder: Path) -> None:
        """The inverse of `save_state`."""
        self.visited = [
            Visited(earned=row["earned"], waypoints=from_row(row), values=tuple(row["values"]))
            for row in json.loads((folder / _FILE).read_text(encoding="utf-8"))
        ]
        self._clustered = None


def _verdicts(groups: Sequence[Group]) -> list[bool]:
    return [t.success for g in groups for t in g.trajectories if t.learnable and t.success is not None]


def scaled_within(values: Array, owners: Sequence[str]) -> Array:
    """[n] float64: values scaled to [0, 1] among those of the same owner; 0.5 where all of them are equal."""
    scaled = np.full(len(values), 0.5)
    names = np.asarray(owners)
    for name in np.unique(names):
        mine = names == name
        low, high = values[mine].min(), values[mine].max()
        if high > low:
            scaled[mine] = (values[mine] - low) / (high - low)
    return scaled


def cluster_values(values: Array, count: int) -> Array:
    """[n] int64 labels 0, 1, ... of k-means on numbers; every label has a member.

    Lloyd's algorithm from quantiles of the distinct values: nothing is drawn, so the labels depend on the values alone.
    At most `count` clusters, fewer where there are fewer distinct values.
    """
    distinct = np.unique(values)
    count = min(count, len(distinct))
    if not count:
        return np.zeros(0, np.int64)
    # Quantiles of all values would coincide where many are equal, and clusters would be lost from the start.
    means = np.quantile(distinct, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - means[None, :]).argmin(axis=1)
        labels = np.unique(nearest, return_inverse=True)[1]  # an empty cluster leaves
        moved = np.array([values[labels == label].mean() for label in range(int(labels.max()) + 1)])
        if np.array_equal(moved, means):
            break
        means = moved
    return labels.astype(np.int64)
